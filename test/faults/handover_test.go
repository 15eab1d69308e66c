// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package faults

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/incumbent-io/incumbent/test/faults/candidate"
	"github.com/incumbent-io/incumbent/test/faults/mono"
)

// TestHandOver stops the leader of three gracefully, again and again, and replaces it
// each time. Nothing else runs meanwhile.
func TestHandOver(t *testing.T) {
	row := report.row("5. Graceful hand-over, nothing to drain", "SIGTERM to the work's begin elsewhere", "ms")
	acquired := report.row("5. Graceful hand-over, nothing to drain", "SIGTERM to the acquisition", "ms")
	bare := report.row("5. Graceful hand-over, nothing to drain", "for comparison: a bare write and its watch event", "ms")
	handOvers(t, times(10, 50), spec{kind: ours}, func(h handOver) {
		bare.add(ours, millis(h.bare), false)
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
	bare               int64
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
		h.bare = f.bareWrite()
		each(h)
		f.remove(old)
		f.joined(f.add(s))
	}
	f.clean(s.kind, f.settled().verify(f.kindOf, nil))
}

// bareWrite returns how long the cluster takes at this moment for what every
// hand-over needs twice: a write, and the watch that tells of it.
func (f *fleet) bareWrite() int64 {
	f.t.Helper()
	began := mono.Now()
	patch := []byte(fmt.Sprintf(`{"metadata":{"annotations":{"at":"%d"}}}`, began))
	lease, err := f.c.Client.CoordinationV1().Leases(f.namespace).Patch(f.t.Context(), barrier, types.MergePatchType, patch, metav1.PatchOptions{})
	f.must(lease, err)
	<-f.c.watcher.passing("leases", f.namespace, lease.ResourceVersion)
	return mono.Now() - began
}
