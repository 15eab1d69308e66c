// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package faults

import (
	"syscall"
	"testing"
	"time"

	"github.com/incumbent-io/incumbent/test/faults/candidate"
)

// TestHandOver stops the leader of three gracefully, again and again, and replaces it
// each time. Nothing else runs meanwhile.
func TestHandOver(t *testing.T) {
	row := report.row("5. Graceful hand-over, nothing to drain", "SIGTERM to the work's begin elsewhere", "ms")
	acquired := report.row("5. Graceful hand-over, nothing to drain", "SIGTERM to the acquisition", "ms")
	handOvers(t, times(10, 50), spec{kind: ours}, func(h handOver) {
		row.add(ours, millis(h.begin.At-h.told), false)
		acquired.add(ours, millis(h.acquired.seen-h.told), false)
	})
	handOvers(t, times(4, 20), spec{kind: stock, release: true}, func(h handOver) {
		row.add(stock, millis(h.begin.At-h.told), false)
		acquired.add(stock, millis(h.acquired.seen-h.told), false)
	})
	row.atMost(t, 20, 100, 2000)
}

// TestHandOverAfterDrain does the same with a controller that writes for another 1.5 s
// when it is told to stop.
func TestHandOverAfterDrain(t *testing.T) {
	const drain = 1500 * time.Millisecond
	scenario := "5. Graceful hand-over, 1.5 s to drain"
	released := report.row(scenario, "end of the drain to the release", "ms")
	row := report.row(scenario, "end of the drain to the work's begin elsewhere", "ms")
	handOvers(t, times(3, 10), spec{kind: ours, every: 20 * time.Millisecond, drain: drain}, func(h handOver) {
		early := h.released.seen < h.end.At || h.end.At-h.told < int64(drain)
		if early {
			t.Errorf("released %.1f ms after the end of the drain, which took %.1f ms", millis(h.released.seen-h.end.At), millis(h.end.At-h.told))
		}
		released.add(ours, millis(h.released.seen-h.end.At), early)
		row.add(ours, millis(h.begin.At-h.end.At), early)
	})
	row.atMost(t, 20, 100, 2000)
}

// handOver is what one of them was.
type handOver struct {
	told               int64
	end                note // of the old leader's work
	released, acquired leaseEvent
	begin              note // of the new leader's work
}

func handOvers(t *testing.T, n int, s spec, each func(handOver)) {
	t.Helper()
	f := newFleet(t, "handover-"+string(s.kind), 3)
	f.start(3, s)
	for range n {
		old, identity := f.leader()
		h := handOver{told: f.signal(old, syscall.SIGTERM)}
		h.acquired, h.begin = f.successor(30*time.Second, h.told, identity)
		v := f.await(10*time.Second, "the end of the old leader's work", func(v view) bool {
			end, ok := v.last(old.name, candidate.End)
			return ok && end.At > h.told
		})
		h.end, _ = v.last(old.name, candidate.End)
		for _, e := range v.leases {
			if e.seen > h.told && e.holder == "" && !e.deleted {
				h.released = e
				break
			}
		}
		each(h)
		f.remove(old)
		f.joined(f.add(s))
	}
	f.clean(s.kind, f.settled().verify(f.kindOf, nil))
}
