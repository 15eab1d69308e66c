// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package faults

import (
	"fmt"
	"slices"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/incumbent-io/incumbent/test/faults/candidate"
	"github.com/incumbent-io/incumbent/test/faults/mono"
)

// TestLeaseDeletedByHand deletes the Lease of a leader again and again.
func TestLeaseDeletedByHand(t *testing.T) {
	t.Parallel()
	scenario := "4. Lease deleted by hand while led"
	changes := report.row(scenario, "changes of leader", "")
	again := report.row(scenario, "deletion to the same leader's Lease", "ms")
	t.Run("trials", func(t *testing.T) {
		for n := range times(1, 5) {
			t.Run(fmt.Sprintf("ours-%d", n), func(t *testing.T) { deletions(t, changes, again, 10) })
		}
		for n := range times(1, 4) {
			t.Run(fmt.Sprintf("stock-%d", n), func(t *testing.T) { stockDeletions(t, changes, 4) })
		}
	})
}

// deletions deletes the Lease n times in one term.
func deletions(t *testing.T, changes, again *row, n int) {
	t.Parallel()
	f := newFleet(t, "deleted-ours", 3)
	f.start(3, spec{kind: ours, every: 100 * time.Millisecond})
	leader, identity := f.leader()
	for range n {
		deleted, created := f.deleteLease()
		changed := created.holder != identity
		if changed {
			t.Errorf("the Lease of %s was deleted, and %s holds the next", identity, created.holder)
		}
		changes.add(ours, map[bool]float64{true: 1}[changed], changed)
		again.add(ours, millis(created.seen-deleted.seen), changed)
		f.await(10*time.Second, "a renewal of the new Lease", func(v view) bool { return v.lease().rv > created.rv })
	}
	v := f.settled()
	if _, ended := v.last(leader.name, candidate.End); ended {
		t.Errorf("the work of %s ended", leader.name)
	}
	f.clean(ours, v.verify(f.kindOf, nil))
}

// stockDeletions deletes the Lease n times and replaces the old leader, which ends,
// whenever another one was faster.
func stockDeletions(t *testing.T, changes *row, n int) {
	t.Parallel()
	f := newFleet(t, "deleted-stock", 3)
	s := spec{kind: stock, every: 100 * time.Millisecond}
	f.start(3, s)
	for range n {
		old, identity := f.leader()
		began := mono.Now()
		_, created := f.deleteLease()
		changed := created.holder != identity
		changes.add(stock, map[bool]float64{true: 1}[changed], changed)
		if !changed {
			continue
		}
		f.await(30*time.Second, "the end of the old leader's work", func(v view) bool {
			end, ok := v.last(old.name, candidate.End)
			return ok && end.At > began
		})
		f.joined(f.add(s))
	}
	f.clean(stock, f.settled().verify(f.kindOf, nil))
}

// deleteLease deletes the Lease. It returns the deletion and the version that follows.
func (f *fleet) deleteLease() (deleted, created leaseEvent) {
	f.t.Helper()
	before := len(f.settled().leases)
	if err := f.c.Client.CoordinationV1().Leases(f.namespace).Delete(f.t.Context(), contested, metav1.DeleteOptions{}); err != nil {
		f.t.Fatal(err)
	}
	f.await(30*time.Second, "a new Lease", func(v view) bool {
		since := v.leases[before:]
		n := slices.IndexFunc(since, func(e leaseEvent) bool { return e.deleted })
		if n < 0 || n+1 == len(since) {
			return false
		}
		deleted, created = since[n], since[n+1]
		return true
	})
	return deleted, created
}
