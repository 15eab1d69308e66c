// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package faults

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/incumbent-io/incumbent/test/faults/candidate"
)

// TestZombie freezes a leader that writes every 20 ms for 25 s. Another leads; then
// the old one goes on where it was.
func TestZombie(t *testing.T) {
	t.Parallel()
	const scenario = "1. Leader frozen for 25 s while it writes"
	row := report.row(scenario, "its writes accepted after the successor's acquisition", "")
	t.Run("trials", func(t *testing.T) {
		for n := range times(2, 20) {
			t.Run(fmt.Sprintf("ours-%d", n), func(t *testing.T) { zombie(t, row, ours) })
		}
		for n := range times(1, 4) {
			t.Run(fmt.Sprintf("stock-%d", n), func(t *testing.T) { zombie(t, row, stock) })
		}
	})
	if control := row.of(stock); !t.Failed() && control.violations != control.trials {
		t.Errorf("the control wrote as a zombie in %d of %d trials only: the harness sees too little", control.violations, control.trials)
	}
}

func zombie(t *testing.T, row *row, k kind) {
	t.Parallel()
	f := newFleet(t, "zombie-"+string(k), 3)
	f.start(3, spec{kind: k, every: 20 * time.Millisecond})
	old, identity := f.leader()
	f.await(20*time.Second, "the leader's writes", func(v view) bool { return len(v.writes) > 10 })

	frozen := f.signal(old, syscall.SIGSTOP)
	thaw := time.After(25 * time.Second)
	acquired, _ := f.successor(24*time.Second, frozen, identity)
	<-thaw
	resumed := f.signal(old, syscall.SIGCONT)
	f.await(30*time.Second, "the end of the old leader's work", func(v view) bool {
		end, ok := v.last(old.name, candidate.End)
		return ok && end.At > resumed
	})
	if k == ours {
		f.standing(old, f.settled()) // it stands by, in the same process
	}
	v := f.settled()
	// What was on its way to the API server when the process froze was sent in time.
	onTheWire := func(w writeEvent, _ string) bool {
		for _, try := range v.tries {
			if try.Who == w.writer && try.Seq == w.seq {
				return try.Call < frozen
			}
		}
		return false
	}
	found := v.verify(f.kindOf, onTheWire)
	late := 0
	for _, w := range found.stale {
		if w.writer == identity && w.rv > acquired.rv {
			late++
		}
	}
	t.Logf("%d writes were accepted after the acquisition", late)
	row.add(k, float64(late), late > 0)
	f.clean(k, found)
}
