// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package faults

import (
	"slices"
	"strings"
	"testing"

	"github.com/incumbent-io/incumbent/test/faults/candidate"
)

// TestVerifyFindsEachViolation breaks one rule at a time in a history that breaks
// none. A rule that never finds anything proves nothing.
func TestVerifyFindsEachViolation(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		spoil func(*view)
		want  string // in the only problem, or in each of them
	}{
		{"nothing", func(*view) {}, ""},
		{"write of the old leader after the acquisition", func(v *view) {
			v.writes = append(v.writes, writeEvent{rv: 60, writer: "b_1", epoch: 2, seq: 2}, writeEvent{rv: 61, writer: "a_1", epoch: 2, seq: 9})
		}, `while "b_1" held the Lease`},
		{"epoch that falls in the object", func(v *view) {
			v.writes = append(v.writes, writeEvent{rv: 60, writer: "b_1", epoch: 1, seq: 2})
		}, "has the epoch 1, after 2"},
		{"same epoch for another holder", func(v *view) {
			v.leases[3].epoch = 1
		}, `the epoch of holder "b_1" is 1`},
		{"release that nobody asked for", func(v *view) {
			delete(v.told, "a")
		}, "nobody asked"},
		{"release of the successor's Lease", func(v *view) {
			v.leases = append(v.leases, leaseEvent{rv: 70, seen: 700, epoch: 2})
		}, "held by b_1 was released, which nobody asked"},
		{"release before the end of the work", func(v *view) {
			v.notes[3].At = 320
		}, "before the work of a_1 had ended"},
		{"two permissions at once", func(v *view) {
			v.notes[2].Until = 420
		}, "were both permitted to write for 20ns"},
		{"write of an old epoch that was answered after one of the new", func(v *view) {
			v.tries = append(v.tries, attempt("a_1", 1, 9, 500, 510))
		}, "fenced register"},
	} {
		t.Run(test.name, func(t *testing.T) {
			v := goodHistory()
			test.spoil(&v)
			found := v.verify(func(string) kind { return ours }, nil)
			if test.want == "" && len(found.problems) > 0 {
				t.Errorf("got %q in a history without a violation", found.problems)
			}
			if test.want != "" && (len(found.problems) == 0 || slices.ContainsFunc(found.problems, func(p string) bool { return !strings.Contains(p, test.want) })) {
				t.Errorf("got %q, want %q", found.problems, test.want)
			}
		})
	}
}

// goodHistory is a hand-over from a to b.
func goodHistory() view {
	a, b := process{pod: "a"}, process{pod: "b"}
	return view{
		leases: []leaseEvent{
			{rv: 10, seen: 100, holder: "a_1", epoch: 1},
			{rv: 20, seen: 200, holder: "a_1", epoch: 1},
			{rv: 30, seen: 310, epoch: 1},
			{rv: 40, seen: 400, holder: "b_1", epoch: 2},
		},
		writes: []writeEvent{
			{rv: 15, writer: "a_1", epoch: 1, seq: 1},
			{rv: 50, writer: "b_1", epoch: 2, seq: 1},
		},
		notes: []note{
			{a, candidate.Record{What: candidate.Run, Who: "a_1", At: 105}},
			{a, candidate.Record{What: candidate.Permitted, Who: "a_1", At: 110}},
			{a, candidate.Record{What: candidate.Forbidden, Who: "a_1", At: 300, Until: 295}},
			{a, candidate.Record{What: candidate.End, Who: "a_1", At: 300}},
			{b, candidate.Record{What: candidate.Permitted, Who: "b_1", At: 400}},
			{b, candidate.Record{What: candidate.Forbidden, Who: "b_1", At: 900, Until: 900}},
		},
		tries:  []note{attempt("a_1", 1, 1, 150, 160), attempt("b_1", 2, 1, 450, 460)},
		told:   map[string]int64{"a": 290},
		killed: map[process]int64{},
	}
}

// attempt is a write that was accepted.
func attempt(who string, epoch, seq, call, at int64) note {
	return note{process{pod: podOf(who)}, candidate.Record{What: candidate.Wrote, Who: who, Epoch: epoch, Seq: seq, Call: call, At: at}}
}
