// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package monitoring

import (
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// replay has promtool run the rules, as they are shipped, over what Prometheus has
// recorded since began, at the true pace: one sample every 30 s.
func replay(t *testing.T, p *prometheus, began time.Time) {
	t.Helper()
	rules := rulesFile(t, "rules.yaml", func(s string) string { return s })
	promtool := filepath.Join(shared.Root, "bin/promtool")
	if out, err := exec.CommandContext(t.Context(), promtool, "check", "rules", rules).CombinedOutput(); err != nil {
		t.Fatalf("promtool check rules: %v\n%s", err, out)
	}
	recorded, err := p.get(t.Context(), "/api/v1/query_range", url.Values{
		"query": {`{__name__=~"up|leader_election_.*|incumbent_.*|workqueue_depth",__name__!~".*_bucket",namespace!=""}`},
		"start": {fmt.Sprint(float64(began.UnixMilli()) / 1000)}, "end": {fmt.Sprint(float64(time.Now().UnixMilli()) / 1000)}, "step": {fmt.Sprint(step.Seconds())},
	})
	if err != nil || len(recorded) < 100 {
		t.Fatalf("read %d recorded series (%v)", len(recorded), err)
	}
	steps := int(time.Since(began)/step) + 1
	var b strings.Builder
	fmt.Fprintf(&b, "rule_files: [%q]\nevaluation_interval: 30s\ntests:\n- interval: 30s\n  input_series:\n", rules)
	for _, s := range recorded {
		fmt.Fprintf(&b, "  - series: '%s'\n    values: '%s'\n", selector(s.Metric), values(s.Values, began, steps))
	}
	b.WriteString("  promql_expr_test:\n")
	end := time.Duration(steps) * 30 * time.Second
	fired := func(namespace, alert string, want int) {
		fmt.Fprintf(&b, "  - expr: 'count(last_over_time(ALERTS{alertstate=\"firing\",namespace=\"%s\",alertname=~\"%s\"}[%dm])) or vector(0)'\n    eval_time: %dm\n    exp_samples: [{labels: '{}', value: %d}]\n",
			namespace, alert, int(end.Minutes())+1, int(end.Minutes()), want)
	}
	for name, trouble := range troubles {
		for _, alert := range trouble.alerts {
			fmt.Fprintf(&b, "  - expr: 'count(last_over_time(ALERTS{alertstate=\"firing\",namespace=\"%s\",alertname=\"%s\"}[%dm])) > bool 0'\n    eval_time: %dm\n    exp_samples: [{labels: '{}', value: 1}]\n",
				name, alert, int(end.Minutes())+1, int(end.Minutes()))
		}
	}
	fired("update", ".*", 0)
	path := filepath.Join(t.TempDir(), "recorded.yaml")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), promtool, "test", "rules", path).CombinedOutput()
	if err != nil {
		t.Errorf("promtool test rules: %v\n%.6000s", err, out)
	}
	t.Logf("promtool: %d recorded series over %v", len(recorded), end)
}

// selector writes a series as PromQL does.
func selector(labels map[string]string) string {
	var parts []string
	for name, value := range labels {
		if name != "__name__" && name != "instance" && (name != "job" || labels["__name__"] == "up") {
			parts = append(parts, name+"="+strconv.Quote(strings.ReplaceAll(value, "'", "")))
		}
	}
	slices.Sort(parts)
	return labels["__name__"] + "{" + strings.Join(parts, ",") + "}"
}

// values writes the samples, with stale where there are none any more.
func values(samples [][2]any, began time.Time, steps int) string {
	list := make([]string, steps)
	for i := range list {
		list[i] = "_"
	}
	start := float64(began.UnixMilli()) / 1000
	for _, sample := range samples {
		at, _ := sample[0].(float64)
		value, _ := sample[1].(string)
		if i := int((at-start)/step.Seconds() + 0.5); i >= 0 && i < steps {
			list[i] = value
		}
	}
	for i := 1; i < steps; i++ {
		if list[i] == "_" && list[i-1] != "_" && list[i-1] != "stale" {
			list[i] = "stale"
		}
	}
	return strings.Join(list, " ")
}
