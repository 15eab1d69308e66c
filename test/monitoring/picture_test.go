// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

//go:build picture

package monitoring

import (
	"fmt"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/incumbent-io/incumbent/test/cluster"
)

// TestDashboardPicture writes what the dashboard shows of an eventful minute to the file
// DASHBOARD, as a script for gnuplot. hack/dashboard.sh makes docs/images/dashboard.png
// of it.
func TestDashboardPicture(t *testing.T) {
	const namespace = "picture"
	p := startPrometheus(t)
	began := time.Now()
	liveThrough(t, p, namespace)
	expectDashboard(t, p, namespace)
	if err := os.WriteFile(os.Getenv("DASHBOARD"), []byte(picture(t, p, namespace, began)), 0o600); err != nil {
		t.Fatal(err)
	}
}

// liveThrough runs three replicas with controllers good and bad, replaces the leader,
// and freezes the next one until its lease has run out. Its pauses are what the picture
// shows: Prometheus scrapes real processes in real time.
func liveThrough(t *testing.T, p *prometheus, namespace string) {
	shared.Namespace(t, namespace)
	for n := range 100 {
		object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("object-", n)}}
		if _, err := shared.Client.CoreV1().ConfigMaps(namespace).Create(t.Context(), object, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	replicas := map[string]*cluster.Process{}
	add := func(name string) {
		replicas[name], _ = start(t, p, namespace, name, "faulty", "--controllers=lazy,error,needs-crd,outlives",
			"--leader-elect-lease-duration=5s", "--leader-elect-renew-deadline=3s", "--leader-elect-retry-period=1s")
		p.awaitScrape(t, namespace, name)
	}
	leader := func() *cluster.Process {
		found := p.query(t, fmt.Sprintf("leader_election_master_status{namespace=%q} == 1", namespace))
		if len(found) != 1 {
			t.Fatalf("leaders: got %v, want one", found)
		}
		return replicas[found[0].Metric["pod"]]
	}
	for _, name := range []string{"manager-a", "manager-b", "manager-c"} {
		add(name)
	}
	time.Sleep(12 * time.Second)
	leader().Terminate(t)
	add("manager-d")
	time.Sleep(10 * time.Second)
	frozen := leader()
	if err := frozen.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	time.Sleep(9 * time.Second)
	if err := frozen.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	time.Sleep(10 * time.Second)
}

var placeholder = regexp.MustCompile(`\{\{(\w+)\}\}`)

// picture draws every panel by gnuplot's language, two in a row.
func picture(t *testing.T, p *prometheus, namespace string, began time.Time) string {
	t.Helper()
	list := panels(t)
	var b strings.Builder
	fmt.Fprintf(&b, `set terminal pngcairo size 1400,%d font "DejaVu Sans,9"
set multiplot layout %d,2 margins 0.04,0.86,0.02,0.985 spacing 0.18,0.035
set key at graph 1.01,1 left top vertical Left reverse samplen 1 spacing 0.9 noenhanced
set grid lc rgb "#dddddd"
set yrange [0:*]
set xrange [0:%.0f]
set format x "%%gs"
`, 250*((len(list)+1)/2), (len(list)+1)/2, time.Since(began).Seconds())
	for i, panel := range list {
		var lines []string
		for _, target := range panel.Targets {
			found, err := p.get(t.Context(), "/api/v1/query_range", url.Values{
				"query": {filledIn(target.Expr, namespace)}, "step": {"0.5"},
				"start": {fmt.Sprint(began.Unix())}, "end": {fmt.Sprint(time.Now().Unix())},
			})
			if err != nil {
				t.Fatal(err)
			}
			for _, series := range slices.DeleteFunc(found, dull) {
				block := fmt.Sprintf("$data_%d_%d", i, len(lines))
				lines = append(lines, fmt.Sprintf("%s using 1:2 with lines lw 2 title %q", block, legend(target.LegendFormat, series.Metric)))
				fmt.Fprintf(&b, "%s << END\n%sEND\n", block, points(series.Values, began))
			}
		}
		scale := `set format y "%g"`
		if panel.FieldConfig.Defaults.Unit == "bytes" {
			scale = `set format y "%.0b %BB"`
		}
		fmt.Fprintf(&b, "set title %q offset 0,-0.6\n%s\nplot %s\n", panel.Title, scale, strings.Join(lines, ", "))
	}
	return b.String()
}

// dull tells whether a series is 0 all the time: there are too many of these for a
// picture.
func dull(s series) bool {
	return !slices.ContainsFunc(s.Values, func(v [2]any) bool { return v[1] != "0" && v[1] != "NaN" })
}

func legend(format string, labels map[string]string) string {
	text := placeholder.ReplaceAllStringFunc(format, func(s string) string { return labels[strings.Trim(s, "{}")] })
	return fmt.Sprintf("%.22s", strings.TrimSpace(text)) // as wide as the margin
}

// points are the samples, with a gap where some are missing.
func points(samples [][2]any, began time.Time) string {
	var b strings.Builder
	last := 0.0
	for _, sample := range samples {
		at, _ := sample[0].(float64)
		at -= float64(began.Unix())
		text, _ := sample[1].(string)
		value, err := strconv.ParseFloat(text, 64)
		if err != nil || text == "NaN" {
			continue
		}
		if at-last > 0.9 {
			b.WriteString("\n")
		}
		last = at
		fmt.Fprintf(&b, "%g %g\n", at, value)
	}
	return b.String()
}
