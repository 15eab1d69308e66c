// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package architecture

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestEveryAlertHasASectionInTheRunbook compares the alerts with docs/operations.md,
// where their links lead.
func TestEveryAlertHasASectionInTheRunbook(t *testing.T) {
	rules, err := os.ReadFile(filepath.Join(root(t), "manifests/components/monitoring/rules.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	runbook, err := os.ReadFile(filepath.Join(root(t), "docs/operations.md"))
	if err != nil {
		t.Fatal(err)
	}
	sections := map[string]bool{}
	for _, heading := range regexp.MustCompile(`(?m)^### (Incumbent\w+)$`).FindAllStringSubmatch(string(runbook), -1) {
		sections[heading[1]] = true
	}
	alerts := strings.Split(string(rules), "- alert: ")[1:]
	if len(alerts) < 10 {
		t.Fatalf("read %d alerts", len(alerts))
	}
	for _, alert := range alerts {
		name, _, _ := strings.Cut(alert, "\n")
		if link := "docs/operations.md#" + strings.ToLower(name) + "\n"; !strings.Contains(alert, link) {
			t.Errorf("the alert %s does not link to %s", name, link)
		}
		if !sections[name] {
			t.Errorf("docs/operations.md has no section %s", name)
		}
		delete(sections, name)
	}
	for name := range sections {
		t.Errorf("docs/operations.md explains %s, which is no alert", name)
	}
}

// TestAlertsAndDashboardKnowTheirMetrics looks for names that docs/metrics.md, which is
// compared with what a manager serves, does not have: a query for one never has data.
func TestAlertsAndDashboardKnowTheirMetrics(t *testing.T) {
	metrics, err := os.ReadFile(filepath.Join(root(t), "docs/metrics.md"))
	if err != nil {
		t.Fatal(err)
	}
	name := regexp.MustCompile(`\b(?:incumbent|leader_election|workqueue|rest_client|process|go)_[a-z_]+`)
	for _, file := range []string{"rules.yaml", "dashboard.json"} {
		content, err := os.ReadFile(filepath.Join(root(t), "manifests/components/monitoring", file))
		if err != nil {
			t.Fatal(err)
		}
		found := name.FindAllString(string(content), -1)
		if len(found) < 10 {
			t.Errorf("%s: read %d names of metrics", file, len(found))
		}
		for _, metric := range found {
			family := strings.TrimSuffix(strings.TrimSuffix(metric, "_bucket"), "_count")
			if !strings.Contains(string(metrics), "\n| `"+family+"` |") {
				t.Errorf("%s asks for %s, which docs/metrics.md does not have", file, metric)
			}
		}
	}
}
