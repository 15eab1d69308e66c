// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package faults

import (
	"cmp"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// tables collects what was measured. Safe for concurrent use.
type tables struct {
	server, client string // versions of the API server and of client-go

	mu   sync.Mutex
	rows []*row
}

// row is one measure of one scenario, of both kinds of candidates.
type row struct {
	scenario, measure, unit string
	sides                   map[kind]*side
}

// side is what one kind of candidates did.
type side struct {
	trials, violations int
	values             []float64
}

// row returns the row with these names, a new one if there is none.
func (t *tables) row(scenario, measure, unit string) *row {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, r := range t.rows {
		if r.scenario == scenario && r.measure == measure {
			return r
		}
	}
	r := &row{scenario: scenario, measure: measure, unit: unit, sides: map[kind]*side{ours: {}, stock: {}}}
	t.rows = append(t.rows, r)
	return r
}

// campaign tells how long the campaign was.
func campaign() string {
	if trials == 0 {
		return ""
	}
	return fmt.Sprintf(" with TRIALS=%d", trials)
}

// number returns the number that a scenario's name begins with.
func (r *row) number() int {
	text, _, _ := strings.Cut(r.scenario, ".")
	n, err := strconv.Atoi(text)
	if err != nil {
		panic(fmt.Sprintf("the scenario %q has no number", r.scenario))
	}
	return n
}

// add notes a trial: what it measured, and whether it broke what is promised.
func (r *row) add(k kind, value float64, violated bool) {
	report.mu.Lock()
	defer report.mu.Unlock()
	s := r.sides[k]
	s.trials++
	s.values = append(s.values, value)
	if violated {
		s.violations++
	}
}

// of returns a copy of a side, with sorted values.
func (r *row) of(k kind) side {
	report.mu.Lock()
	defer report.mu.Unlock()
	s := *r.sides[k]
	s.values = slices.Sorted(slices.Values(s.values))
	return s
}

func (s side) median() float64 {
	if len(s.values) == 0 {
		return math.NaN()
	}
	return s.values[len(s.values)/2]
}

func (s side) max() float64 {
	if len(s.values) == 0 {
		return math.NaN()
	}
	return s.values[len(s.values)-1]
}

// atMost compares what ours did with what is promised: in the long campaign median
// and maximum, in the short one only whether the maximum is within sane.
func (r *row) atMost(t *testing.T, median, most, sane float64) {
	t.Helper()
	s := r.of(ours)
	switch {
	case len(s.values) == 0:
		t.Errorf("%s, %s: nothing was measured", r.scenario, r.measure)
	case trials > 0 && (s.median() > median || s.max() > most):
		t.Errorf("%s, %s: median %.4g, max %.4g %s in %d trials; promised are %.4g and %.4g", r.scenario, r.measure, s.median(), s.max(), r.unit, s.trials, median, most)
	case s.max() > sane:
		t.Errorf("%s, %s: max %.4g %s; even a busy machine does it in %.4g", r.scenario, r.measure, s.max(), r.unit, sane)
	}
}

// markdown returns all rows as one table.
func (t *tables) markdown() string {
	t.mu.Lock()
	rows := slices.Clone(t.rows)
	t.mu.Unlock()
	slices.SortStableFunc(rows, func(a, b *row) int {
		return cmp.Or(cmp.Compare(a.number(), b.number()), cmp.Compare(a.scenario, b.scenario))
	})
	var b strings.Builder
	fmt.Fprintf(&b, "\n# Fault campaign\n\nWritten by `go test ./test/faults`%s on %s UTC: %d CPU cores, %s, kube-apiserver %s, client-go %s; lease 15 s, renew deadline 10 s, retry period 2 s.\n\n",
		campaign(), time.Now().UTC().Format("2006-01-02 15:04"), runtime.NumCPU(), runtime.Version(), t.server, t.client)
	b.WriteString("A violation is a trial that broke what is promised. On the right is client-go's LeaderElector in the same harness; a scenario without it has no control.\n\n")
	b.WriteString("| scenario | measure | trials | violations | median | max | stock: trials | violations | median | max |\n")
	b.WriteString("|---|---|---|---|---|---|---|---|---|---|\n")
	for _, r := range rows {
		measure := r.measure
		if r.unit != "" {
			measure += ", " + r.unit
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", r.scenario, measure, r.of(ours), r.of(stock))
	}
	return b.String()
}

func (s side) String() string {
	if s.trials == 0 {
		return "- | - | - | -"
	}
	return fmt.Sprintf("%d | %d | %s | %s", s.trials, s.violations, figure(s.median()), figure(s.max()))
}

func figure(v float64) string {
	if v == math.Trunc(v) {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.4g", v)
}

// millis and secs make figures of durations in nanoseconds.
func millis(d int64) float64 { return math.Round(float64(d)/1e4) / 100 }
func secs(d int64) float64   { return math.Round(float64(d)/1e6) / 1000 }
