// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package faults

import (
	"fmt"
	"syscall"
	"testing"
	"time"
)

// TestMixedFleet lets two candidates of each kind compete for one Lease through
// hand-overs and crashes, as during a migration from client-go.
func TestMixedFleet(t *testing.T) {
	t.Parallel()
	scenario := "10. Mixed fleet, two of each kind"
	m := mixed{
		overlap:  report.row(scenario, "overlap of the permission to write in a round of six", "s"),
		handOver: report.row(scenario, "hand-overs and crashes won by the other kind than expected", ""),
		graceful: report.row(scenario, "SIGTERM of ours to the work's begin elsewhere", "ms"),
	}
	t.Run("trials", func(t *testing.T) {
		for n := range times(1, 5) {
			t.Run(fmt.Sprint(n), func(t *testing.T) { m.round(t) })
		}
	})
	// A poll of stock's may by chance come first, so this is no matter of one trial.
	if s := m.handOver.of(ours); !t.Failed() && s.violations*5 > s.trials {
		t.Errorf("%d of %d hand-overs were won by the other kind than expected", s.violations, s.trials)
	}
}

type mixed struct{ overlap, handOver, graceful *row }

// round is six hand-overs.
func (m mixed) round(t *testing.T) {
	t.Parallel()
	f := newFleet(t, "mixed", 6)
	mine := spec{kind: ours, every: 100 * time.Millisecond}
	theirs := spec{kind: stock, every: 100 * time.Millisecond, release: true}
	f.start(2, mine)
	f.start(2, theirs)

	m.next(f, syscall.SIGTERM, ours)
	f.start(1, mine)
	m.next(f, syscall.SIGKILL, ours)
	// Nobody of ours is left: stock wins.
	m.next(f, syscall.SIGTERM, stock)
	m.next(f, syscall.SIGTERM, stock)
	f.start(1, theirs)
	// Ours are started last, beside a leader of stock's. It crashes, and ours give
	// stock's standby three seconds more than the lease.
	f.start(2, mine)
	m.next(f, syscall.SIGKILL, "")
	// Nobody of stock's is left: ours win.
	for _, member := range f.standbys(stock) {
		f.leave(member, syscall.SIGTERM)
	}
	m.next(f, syscall.SIGTERM, ours)

	// Stock's leader releases before its work has ended, which is known.
	released := func(w writeEvent, holder string) bool { return holder == "" && f.kindOf(podOf(w.writer)) == stock }
	found := f.settled().verify(f.kindOf, released)
	m.overlap.add(ours, found.overlap.Seconds(), found.overlap > 0)
	f.clean(ours, found)
}

// next makes the leader leave. Expected is the kind of candidate that follows, if
// that is no matter of chance.
func (m mixed) next(f *fleet, signal syscall.Signal, expected kind) {
	f.t.Helper()
	old, identity := f.leader()
	left := f.leave(old, signal)
	acquired, begin := f.successor(40*time.Second, left, identity)
	winner := f.kindOf(podOf(acquired.holder))
	f.t.Logf("%v of %s: %s leads after %.3f s", signal, old.name, begin.pod, secs(begin.At-left))
	if expected != "" {
		m.handOver.add(ours, map[bool]float64{true: 1}[winner != expected], winner != expected)
	}
	if signal == syscall.SIGTERM && old.kind == ours && winner == ours {
		m.graceful.add(ours, millis(begin.At-left), false)
	}
}

// leave ends a candidate's process and removes its Pod.
func (f *fleet) leave(m *member, signal syscall.Signal) (at int64) {
	f.t.Helper()
	at = f.signal(m, signal)
	f.exited(m)
	f.remove(m)
	return at
}

// standbys returns the members of a kind that live and do not lead.
func (f *fleet) standbys(k kind) (list []*member) {
	f.t.Helper()
	v := f.settled()
	for _, m := range f.list() {
		_, told := v.told[m.name]
		_, killed := v.killed[process{m.name, 0}]
		if m.kind == k && !told && !killed && m.name != podOf(v.lease().holder) {
			list = append(list, m)
		}
	}
	return list
}
