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
// the old one goes on where it was. With the fencing component even stock's writes,
// which nothing in its process holds back, are not accepted.
func TestZombie(t *testing.T) {
	t.Parallel()
	const measure = "its writes accepted after the successor's acquisition"
	row := report.row("1. Leader frozen for 25 s while it writes", measure, "")
	fenced := report.row("1. Leader frozen for 25 s while it writes, fencing component", measure, "")
	t.Run("trials", func(t *testing.T) {
		for n := range times(2, 20) {
			t.Run(fmt.Sprintf("ours-%d", n), func(t *testing.T) { zombie(t, row, spec{kind: ours}) })
			t.Run(fmt.Sprintf("ours-fenced-%d", n), func(t *testing.T) { zombie(t, fenced, spec{kind: ours, fencing: true}) })
		}
		for n := range times(1, 4) {
			t.Run(fmt.Sprintf("stock-%d", n), func(t *testing.T) { zombie(t, row, spec{kind: stock}) })
			t.Run(fmt.Sprintf("stock-fenced-%d", n), func(t *testing.T) { zombie(t, fenced, spec{kind: stock, fencing: true}) })
		}
	})
	if control := fenced.of(stock); control.violations > 0 {
		t.Errorf("the fencing component let a zombie write in %d of %d trials", control.violations, control.trials)
	}
	if control := row.of(stock); !t.Failed() && control.violations != control.trials {
		t.Errorf("the control wrote as a zombie in %d of %d trials only: the harness sees too little", control.violations, control.trials)
	}
}

func zombie(t *testing.T, row *row, s spec) {
	t.Parallel()
	k := s.kind
	room := 6 // it writes much
	if trials > 0 {
		room = 12
	}
	f := newFleet(t, "zombie-"+string(k), room)
	s.every = 20 * time.Millisecond
	f.start(3, s)
	old, identity := f.leader()
	if s.fencing {
		f.fence()
	}
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
	// Only the fencing component refuses that, too.
	onTheWire := func(w writeEvent, _ string) bool {
		for _, try := range v.tries {
			if try.Who == w.writer && try.Seq == w.seq {
				return try.Call < frozen
			}
		}
		return false
	}
	if s.fencing {
		onTheWire = nil
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
