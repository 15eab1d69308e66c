// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package e2e

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/incumbent-io/incumbent/test/cluster"
)

// family is a metric, as the documentation or a scrape tells of it.
type family struct {
	Type   string
	Labels []string // sorted
}

var (
	tableRow   = regexp.MustCompile("^\\| `([a-z_]+)` \\| (\\w+) \\|(.*?)\\| (.*) \\|$")
	quoted     = regexp.MustCompile("`([^`]+)`")
	typeLine   = regexp.MustCompile(`^# TYPE (\S+) (\S+)$`)
	sampleLine = regexp.MustCompile(`^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? \S+$`)
	labelName  = regexp.MustCompile(`(?:^|,)([a-zA-Z_]\w*)="(?:[^"\\]|\\.)*"`)
)

// documented reads the tables of docs/metrics.md. optional are those that exist only
// once something has happened; others is what no promise is made about.
func documented(t *testing.T) (families map[string]family, optional map[string]bool, others []string) {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(shared.Root, "docs/metrics.md"))
	if err != nil {
		t.Fatal(err)
	}
	families, optional = map[string]family{}, map[string]bool{}
	for line := range strings.Lines(string(content)) {
		match := tableRow.FindStringSubmatch(strings.TrimSpace(line))
		if match == nil {
			continue
		}
		f := family{Type: match[2]}
		for _, label := range quoted.FindAllStringSubmatch(match[3], -1) {
			f.Labels = append(f.Labels, label[1])
		}
		slices.Sort(f.Labels)
		families[match[1]] = f
		optional[match[1]] = strings.Contains(match[4], "(from the first")
	}
	_, rest, _ := strings.Cut(string(content), "\nBeside these")
	for _, match := range quoted.FindAllStringSubmatch(rest, -1) {
		others = append(others, match[1])
	}
	return families, optional, others
}

// scrape parses what a manager serves. A family without samples is left out.
func scrape(body string) map[string]family {
	types, families := map[string]string{}, map[string]family{}
	for line := range strings.Lines(body) {
		line = strings.TrimSpace(line)
		if match := typeLine.FindStringSubmatch(line); match != nil {
			types[match[1]] = match[2]
			continue
		}
		match := sampleLine.FindStringSubmatch(line)
		if match == nil {
			continue
		}
		name := match[1]
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			if base := strings.TrimSuffix(name, suffix); types[base] == "histogram" || types[base] == "summary" {
				name = base
			}
		}
		f := family{Type: types[name]}
		for _, label := range labelName.FindAllStringSubmatch(match[2], -1) {
			if label[1] != "le" && label[1] != "quantile" {
				f.Labels = append(f.Labels, label[1])
			}
		}
		slices.Sort(f.Labels)
		families[name] = f
	}
	return families
}

// TestMetricsAreThoseOfTheDocumentation compares docs/metrics.md with what a leader and
// a standby serve.
func TestMetricsAreThoseOfTheDocumentation(t *testing.T) {
	const namespace = "metrics"
	shared.Namespace(t, namespace)
	config := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(config, []byte("apiVersion: config.incumbent.io/v1alpha1\nkind: ManagerConfiguration\ncontrollers: [object-ttl]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	start := func() *cluster.Process {
		return launch(t, "--kubeconfig="+shared.Kubeconfig, "--config="+config, "--leader-elect-resource-namespace="+namespace,
			"--authorization-always-allow-paths=/livez,/readyz,/healthz,/readyz/*,/metrics")
	}
	leader := start()
	leader.AwaitController(t, 20*time.Second, "object-ttl", "running")
	standby := start()
	standby.AwaitController(t, 20*time.Second, "object-ttl", "warm")

	promised, optional, others := documented(t)
	if len(promised) < 30 || len(others) < 5 {
		t.Fatalf("docs/metrics.md: read %d metrics and %v; its form has changed", len(promised), others)
	}
	for role, p := range map[string]*cluster.Process{"leader": leader, "standby": standby} {
		status, body, err := cluster.Get(t, p.Address+"/metrics", "")
		if err != nil || status != 200 {
			t.Fatalf("%s: /metrics: got %d (%v)", role, status, err)
		}
		served := scrape(body)
		for name, want := range promised {
			got, ok := served[name]
			switch {
			case !ok && !optional[name]:
				t.Errorf("%s: %s is documented and not served", role, name)
			case ok && !cmp.Equal(got, want):
				t.Errorf("%s: %s: (-documented +served)\n%s", role, name, cmp.Diff(want, got))
			}
		}
		for _, name := range slices.Sorted(maps.Keys(served)) {
			if _, ok := promised[name]; !ok && !slices.ContainsFunc(others, func(pattern string) bool {
				matched, err := filepath.Match(pattern, name)
				return err == nil && matched
			}) {
				t.Errorf("%s: %s is served and not in docs/metrics.md", role, name)
			}
		}
	}
	// At 0 from the start, before anything of the kind has happened.
	_, body, err := cluster.Get(t, standby.Address+"/metrics", "")
	if err != nil {
		t.Fatal(err)
	}
	for _, series := range []string{
		`leader_election_terms_total{end="lost",name="incumbent"}`,
		`leader_election_fence_requests_total{name="incumbent",result="refused"}`,
		`leader_election_master_status{name="incumbent"}`,
		`incumbent_controller_failures_total{cause="panic",controller="object-ttl"}`,
		`incumbent_controller_failures_total{cause="panic",controller="leader-label"}`, // disabled
		`workqueue_adds_total{name="leader-label"}`,
		`incumbent_reconcile_duration_seconds_count{controller="leader-label",result="panic"}`,
		`incumbent_config_reloads_total{result="rejected"}`,
		`promhttp_metric_handler_errors_total{cause="gathering"}`, // in the scrape before
	} {
		if !strings.Contains(body, "\n"+series+" 0\n") {
			t.Errorf("no %s at 0", series)
		}
	}
	if !strings.Contains(body, `incumbent_informer_watching{form="metadata",resource="configmaps/v1",scope=""} 1`) {
		t.Error("the standby's cache of ConfigMaps has no open watch")
	}
	leader.Terminate(t)
	standby.Terminate(t)
}
