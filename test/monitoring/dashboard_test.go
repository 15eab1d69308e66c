// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package monitoring

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// panel is one of the dashboard.
type panel struct {
	Title       string
	FieldConfig struct{ Defaults struct{ Unit string } }
	Targets     []struct{ Expr, LegendFormat string }
}

func panels(t *testing.T) []panel {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(shared.Root, "manifests/components/monitoring/dashboard.json"))
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct{ Panels []panel }
	if err := json.Unmarshal(content, &dashboard); err != nil {
		t.Fatal(err)
	}
	if len(dashboard.Panels) < 8 {
		t.Fatalf("read %d panels", len(dashboard.Panels))
	}
	return dashboard.Panels
}

// filledIn does what Grafana does to an expression before it asks.
func filledIn(expression, namespace string) string {
	return strings.NewReplacer("$namespace", namespace, "$__rate_interval", "10s").Replace(expression)
}

// expectDashboard runs the queries of every panel.
func expectDashboard(t *testing.T, p *prometheus, namespace string) {
	t.Helper()
	for _, panel := range panels(t) {
		for _, target := range panel.Targets {
			if expression := filledIn(target.Expr, namespace); len(p.query(t, expression)) == 0 {
				t.Errorf("panel %q: no data for %s", panel.Title, expression)
			}
		}
	}
}
