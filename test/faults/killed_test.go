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

const leaseDuration = 15 * time.Second

// TestKilledLeader kills leaders without warning: some for good, and some whose
// container is restarted. Nothing else runs meanwhile.
func TestKilledLeader(t *testing.T) {
	const (
		gone      = "6. SIGKILL, no restart"
		restarted = "6. SIGKILL, restarted in the same Pod"
		looping   = "6. SIGKILL again after the restart (crash loop)"
	)
	taken := report.row(gone, "last renewal to the new leader", "s")
	held := report.row(restarted, "begin of the process to the Lease held", "ms")
	again := report.row(restarted, "SIGKILL to the Lease held", "ms")
	works := report.row(restarted, "begin of the process to the work's begin", "ms")
	handed := report.row(looping, "begin of the process to a standby leading", "ms")
	spared := report.row(looping, "what was left of the lease by then", "s")
	// In waves, so that no candidate starts while the take-over of another is timed.
	for wave := range times(1, 5) {
		t.Run(fmt.Sprintf("wave-%d", wave), func(t *testing.T) {
			for n := range 4 {
				t.Run(fmt.Sprintf("ours-gone-%d", n), func(t *testing.T) { killedForGood(t, taken, ours) })
				t.Run(fmt.Sprintf("ours-restarted-%d", n), func(t *testing.T) {
					t.Parallel()
					f := newFleet(t, "restarted", 3)
					f.start(3, spec{kind: ours, restart: true})
					killedAndRestarted(f, held, again, works)
					killedInALoop(f, handed, spared)
					f.clean(ours, f.settled().verify(f.kindOf, nil))
				})
			}
			t.Run("stock-gone", func(t *testing.T) { killedForGood(t, taken, stock) })
		})
	}
	taken.atMost(t, 15.1, 15.1, 17)
	held.atMost(t, 200, 200, 5000)
}

func killedForGood(t *testing.T, row *row, k kind) {
	t.Parallel()
	f := newFleet(t, "killed-"+string(k), 3)
	f.start(3, spec{kind: k})
	old, identity := f.leader()
	// Who has just joined counts from what it has seen itself.
	f.renewal(identity)
	killed := f.signal(old, syscall.SIGKILL)
	acquired, _ := f.successor(30*time.Second, killed, identity)
	v := f.settled()
	last, _ := v.lastRenewal(identity)
	took := acquired.seen - last.seen
	// A candidate that did not wait as long as the record says is a violation.
	early := took < int64(leaseDuration-50*time.Millisecond)
	if early && k == ours {
		t.Errorf("taken %.3f s after the last renewal", secs(took))
	}
	row.add(k, secs(took), early)
	f.clean(k, v.verify(f.kindOf, nil))
}

// killedAndRestarted kills the leader once, after a term that was no crash loop. The
// next process of the same Pod takes the Lease over at once.
func killedAndRestarted(f *fleet, held, again, works *row) {
	f.t.Helper()
	old, identity := f.leader()
	f.await(30*time.Second, "a term as long as a lease", func(v view) bool {
		e := v.lease()
		return e.holder == identity && e.renewed-e.acquired > int64(leaseDuration)
	})
	killed := f.signal(old, syscall.SIGKILL)
	acquired, begin := f.successor(30*time.Second, killed, identity)
	elsewhere := podOf(acquired.holder) != old.name
	if elsewhere {
		f.t.Errorf("%s took over, and not the restarted %s", acquired.holder, old.name)
	}
	v := f.settled()
	began, _ := v.last(podOf(acquired.holder), candidate.Began)
	held.add(ours, millis(acquired.seen-began.At), elsewhere)
	again.add(ours, millis(acquired.seen-killed), elsewhere)
	works.add(ours, millis(begin.At-began.At), elsewhere)
}

// killedInALoop kills the same leader once more. The next process proves the death,
// and leaves the Lease to a standby before it expires.
func killedInALoop(f *fleet, handed, spared *row) {
	f.t.Helper()
	old, identity := f.leader()
	killed := f.signal(old, syscall.SIGKILL)
	acquired, _ := f.successor(30*time.Second, killed, identity)
	v := f.settled()
	last, _ := v.lastRenewal(identity)
	left := int64(leaseDuration) - (acquired.seen - last.seen)
	stayed := podOf(acquired.holder) == old.name
	if stayed {
		f.t.Errorf("%s leads again in a crash loop", old.name)
	}
	began, _ := v.last(old.name, candidate.Began)
	handed.add(ours, millis(acquired.seen-began.At), stayed)
	spared.add(ours, secs(left), stayed)
}
