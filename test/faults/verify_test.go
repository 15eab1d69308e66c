// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package faults

import (
	"fmt"
	"math"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/incumbent-io/incumbent/test/faults/candidate"
	"github.com/incumbent-io/incumbent/test/faults/mono"
)

// finding is what verify finds in a view.
type finding struct {
	// problems are all violations, as text.
	problems []string
	// stale are the writes that were accepted although somebody else held the Lease,
	// or nobody after a release.
	stale []writeEvent
	// overlap is the longest time during which two candidates were permitted to
	// write; negative, it is the shortest time between two.
	overlap time.Duration
	pair    [2]interval
}

func (f *finding) add(format string, args ...any) {
	f.problems = append(f.problems, fmt.Sprintf(format, args...))
}

// verify checks the invariants that hold for every fleet, whatever is done to it.
// excuse, if not nil, excuses a stale write, given who held the Lease instead.
func (v view) verify(kindOf func(pod string) kind, excuse func(w writeEvent, holder string) bool) finding {
	f := finding{}
	v.checkLeases(&f, kindOf)
	v.checkWrites(&f, excuse)
	v.checkPermissions(&f)
	v.checkRegister(&f)
	return f
}

// checkLeases goes through the versions of the Lease: epochs rise with the holder and
// never fall, and only a holder that was told to stop, or that is dead, is replaced by
// nobody, once its work has ended.
func (v view) checkLeases(f *finding, kindOf func(string) kind) {
	epoch, owner, held := int64(0), "", ""
	for _, e := range v.leases {
		if e.deleted {
			held = ""
			continue
		}
		if e.epoch < epoch || e.holder != "" && e.holder != owner && owner != "" && e.epoch == epoch {
			f.add("at version %d the epoch of holder %q is %d, after %d of %q", e.rv, e.holder, e.epoch, epoch, owner)
		}
		epoch = max(epoch, e.epoch)
		if e.holder == "" && held != "" {
			v.checkRelease(f, kindOf, held, e)
		}
		held = e.holder
		if held != "" {
			owner = held
		}
	}
}

// checkRelease checks that a holder was rightly replaced by nobody.
func (v view) checkRelease(f *finding, kindOf func(string) kind, held string, e leaseEvent) {
	pod := podOf(held)
	for p, at := range v.killed {
		if p.pod == pod && at < e.seen {
			return // a later process of the same Pod has proved its death
		}
	}
	at, told := v.told[pod]
	if !told || at > e.seen {
		f.add("at version %d the Lease held by %s was released, which nobody asked that candidate for", e.rv, held)
	}
	if kindOf(pod) == stock {
		return // it releases before its work has ended, which is known
	}
	working := false
	for _, n := range v.notes {
		switch {
		case n.Who != held:
		case n.What == candidate.Run:
			working = true
		case n.What == candidate.End && n.At <= e.seen:
			working = false
		}
	}
	if working {
		f.add("at version %d the Lease was released before the work of %s had ended", e.rv, held)
	}
}

// checkWrites compares the versions of the written object with those of the Lease.
func (v view) checkWrites(f *finding, excuse func(writeEvent, string) bool) {
	next, holder, epoch := 0, "", int64(0)
	for _, w := range v.writes {
		for next < len(v.leases) && v.leases[next].rv < w.rv {
			// While the Lease does not exist, its holder still leads.
			if !v.leases[next].deleted {
				holder = v.leases[next].holder
			}
			next++
		}
		unknown := next < len(v.leases) && v.leases[next].gap
		if w.writer != holder && !unknown {
			f.stale = append(f.stale, w)
			if excuse == nil || !excuse(w, holder) {
				f.add("write %d of %s was accepted at version %d, while %q held the Lease", w.seq, w.writer, w.rv, holder)
			}
		}
		if w.epoch < epoch && (excuse == nil || !excuse(w, holder)) {
			f.add("write %d of %s at version %d has the epoch %d, after %d", w.seq, w.writer, w.rv, w.epoch, epoch)
		}
		epoch = max(epoch, w.epoch)
	}
}

// interval is a time in which a process was permitted to write.
type interval struct {
	process
	begin, end int64
}

// permissions returns when each process was permitted to write.
func (v view) permissions() (list []interval) {
	open := map[process]int64{}
	for _, n := range v.notes {
		switch n.What {
		case candidate.Permitted:
			open[n.process] = n.At
		case candidate.Forbidden:
			list = append(list, interval{n.process, open[n.process], n.Until})
			delete(open, n.process)
		}
	}
	for p, begin := range open {
		end, killed := v.killed[p]
		if !killed {
			end = mono.Now()
		}
		list = append(list, interval{p, begin, end})
	}
	return list
}

// checkPermissions finds the pair of intervals of two processes that overlap most.
func (v view) checkPermissions(f *finding) {
	f.overlap = math.MinInt64
	list := v.permissions()
	for i, a := range list {
		for _, b := range list[:i] {
			if a.process == b.process {
				continue
			}
			if both := time.Duration(min(a.end, b.end) - max(a.begin, b.begin)); both > f.overlap {
				f.overlap, f.pair = both, [2]interval{a, b}
			}
		}
	}
	if f.overlap > 0 {
		f.add("%s/%d and %s/%d were both permitted to write for %v", f.pair[0].pod, f.pair[0].attempt, f.pair[1].pod, f.pair[1].attempt, f.overlap)
	}
}

// fenced is the sequential specification of the written object: a register that takes
// a write only if its epoch is not below that of the last one.
var fenced = porcupine.Model{
	Init: func() any { return int64(0) },
	Step: func(state, input, _ any) (bool, any) {
		return input.(int64) >= state.(int64), input
	},
}

// checkRegister looks for an order of all accepted writes that the candidates could
// have seen, given when each of them began and was answered, and that a fenced
// register allows. It does not use the versions: where those come from one API server
// with one clock, this check stands beside that of checkWrites and knows less.
func (v view) checkRegister(f *finding) {
	type id struct {
		who string
		seq int64
	}
	accepted := map[id]bool{}
	for _, w := range v.writes {
		accepted[id{w.writer, w.seq}] = true
	}
	var history []porcupine.Operation
	for _, n := range v.tries {
		op := porcupine.Operation{Input: n.Epoch, Call: n.Call, Return: n.At}
		switch {
		case n.Epoch == 0 || n.What == candidate.Refused:
			continue
		case n.What == candidate.Failed:
			if !accepted[id{n.Who, n.Seq}] {
				continue
			}
			op.Return = math.MaxInt64 // its sender was not told
		}
		history = append(history, op)
	}
	if result := porcupine.CheckOperationsTimeout(fenced, history, time.Minute); result != porcupine.Ok {
		f.add("%d accepted writes: a fenced register could have had this history: %v", len(history), result)
	}
}
