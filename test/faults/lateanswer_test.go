// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package faults

import (
	"fmt"
	"testing"
	"time"

	"github.com/incumbent-io/incumbent/test/faults/candidate"
)

// TestLateAnswer lets a renewal be committed at once and be answered late, and cuts
// the leader off meanwhile. Whoever counts from the answer leads for too long.
func TestLateAnswer(t *testing.T) {
	t.Parallel()
	type setting struct {
		delay    time.Duration
		standbys int
		timeout  time.Duration // of stock's client
	}
	var control []*row
	t.Run("trials", func(t *testing.T) {
		run := func(s setting, k kind, trials int) *row {
			if trials == 0 {
				return nil // not in the short campaign
			}
			scenario := fmt.Sprintf("2. Renewal answered %v late, then cut off; %d standbys", s.delay, s.standbys)
			if k == stock && s.timeout > 0 {
				scenario += fmt.Sprintf(" (stock: client timeout %v)", s.timeout)
			}
			row := report.row(scenario, "overlap of the permission to write", "s")
			for n := range trials {
				t.Run(fmt.Sprintf("%s-%v-%d-%v-%d", k, s.delay, s.standbys, s.timeout, n), func(t *testing.T) { lateAnswer(t, row, k, s.delay, s.standbys, s.timeout) })
			}
			return row
		}
		for _, delay := range []time.Duration{4800 * time.Millisecond, 9500 * time.Millisecond} {
			run(setting{delay, 2, 0}, ours, times(1, 10))
			run(setting{delay, 9, 0}, ours, times(1, 10))
		}
		control = append(control,
			run(setting{9500 * time.Millisecond, 2, 0}, stock, times(1, 4)),
			run(setting{9500 * time.Millisecond, 9, 0}, stock, times(0, 2)),
			run(setting{4800 * time.Millisecond, 9, 5 * time.Second}, stock, times(0, 4)))
	})
	violations := 0
	for _, row := range control {
		if row == nil {
			continue
		}
		violations += row.of(stock).violations
	}
	if !t.Failed() && violations == 0 {
		t.Error("the control never led twice: the harness sees too little")
	}
}

func lateAnswer(t *testing.T, row *row, k kind, delay time.Duration, standbys int, timeout time.Duration) {
	t.Parallel()
	f := newFleet(t, "late-"+string(k), standbys+1)
	s := spec{kind: k, every: 100 * time.Millisecond, timeout: timeout}
	if k == ours {
		// The controller clings to its work, so that only the fence ends it.
		s.drain = 30 * time.Second
	}
	f.start(standbys+1, s)
	old, identity := f.leader()
	f.renewal(identity)
	// The fault begins between two renewals, when the first has surely been answered.
	time.Sleep(time.Second)
	f.net(old, "delay-responses", delay)
	committed := f.renewal(identity)
	f.net(old, "drop-requests", 0)

	acquired, begin := f.successor(40*time.Second, committed.seen, identity)
	f.await(40*time.Second, "the end of the old leader's work", func(v view) bool {
		_, ended := v.last(old.name, candidate.End)
		return ended
	})
	v := f.settled()
	found := v.verify(f.kindOf, nil)
	last := int64(0)
	for _, i := range v.permissions() {
		if i.pod == old.name {
			last = max(last, i.end)
		}
	}
	t.Logf("from the renewal: the old leader's permission ended after %.3f s, the lease was taken after %.3f s, the new one's work began after %.3f s",
		secs(last-committed.seen), secs(acquired.seen-committed.seen), secs(begin.At-committed.seen))
	row.add(k, found.overlap.Seconds(), found.overlap > 0)
	f.clean(k, found)
}
