// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package leaderelection

import (
	"math"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// recordOf returns the election record in a lease, in client-go's form.
func recordOf(lease *coordinationv1.Lease) resourcelock.LeaderElectionRecord {
	return *resourcelock.LeaseSpecToLeaderElectionRecord(&lease.Spec)
}

// sameRecord reports whether nothing that bears on the lease's validity
// differs. Labels and annotations must not keep a dead lease alive.
func sameRecord(a, b resourcelock.LeaderElectionRecord) bool {
	return a.HolderIdentity == b.HolderIdentity && a.RenewTime.Equal(&b.RenewTime) &&
		a.LeaderTransitions == b.LeaderTransitions && a.LeaseDurationSeconds == b.LeaseDurationSeconds
}

// isRelease reports whether r is what a leader leaves behind on purpose. A
// holder that was blanked by hand keeps its duration.
func isRelease(r resourcelock.LeaderElectionRecord) bool {
	return r.HolderIdentity == "" && r.LeaseDurationSeconds == 1
}

// isStockRelease reports whether a release was written by client-go, which sets
// both times to now; ours keep the time of acquisition.
func isStockRelease(r resourcelock.LeaderElectionRecord) bool {
	return isRelease(r) && r.AcquireTime.Equal(&r.RenewTime)
}

// epochOf returns the fencing token for a lease and its transitions. The
// creation time keeps it rising when the lease is deleted and created again.
func epochOf(lease *coordinationv1.Lease) int64 {
	var transitions int64
	if n := lease.Spec.LeaseTransitions; n != nil {
		transitions = int64(*n)
	}
	return lease.CreationTimestamp.Unix()<<20 + transitions
}

// after returns the number of transitions that follows highest.
func after(highest int32) int32 { return min(highest, math.MaxInt32-1) + 1 }

// attempt is one lease write that was sent. Its renewTime is nobody else's, so
// that a record which carries it proves that this very attempt was committed.
type attempt struct {
	kind        writeKind
	renewTime   time.Time
	sent        Reading // just before it was sent
	base        string  // the version it replaces, "" for a create
	transitions int32
	reclaims    bool // it takes over from a process proven dead
	// reason is why the lease is free to be acquired, and previous who held it last,
	// "" if nobody is known to have.
	reason, previous string
	proven           bool // it was committed, and that was acted on
}

// writeKind is the purpose of a lease write.
type writeKind int

const (
	acquire writeKind = iota // take the lease over, or create it
	renew                    // keep it, or create it again
	release                  // give it up
	certify                  // release in the name of a dead process
)

func (k writeKind) String() string {
	return [...]string{"acquire", "renew", "release", "certify"}[k]
}

// attempts are the writes of this process that may have been committed without
// an answer, the newest last.
type attempts struct {
	list   []*attempt
	issued time.Time // the highest renewTime used
}

// maxAttempts bounds the list. A write that is older than so many others does
// not prove anything of use.
const maxAttempts = 128

// begin notes a new attempt.
func (a *attempts) begin(kind writeKind, now Reading, base string, committed time.Time, transitions int32) *attempt {
	var previous string
	if n := len(a.list); n > 0 {
		previous = a.list[n-1].base
	}
	try := &attempt{kind: kind, sent: now, base: base, transitions: transitions,
		renewTime: renewTimeFor(now.wallTime(), committed, a.issued, len(a.list) > 0 && previous == base)}
	a.issued = try.renewTime
	a.list = append(last(a.list, maxAttempts-1), try)
	return try
}

// find returns the attempt whose record r is, or nil.
func (a *attempts) find(r resourcelock.LeaderElectionRecord, me string) *attempt {
	for i := len(a.list) - 1; i >= 0; i-- {
		try := a.list[i]
		if !try.renewTime.Equal(r.RenewTime.Time) {
			continue
		}
		gone := try.kind == release || try.kind == certify
		if (gone && r.HolderIdentity == "") || (!gone && r.HolderIdentity == me) {
			return try
		}
	}
	return nil
}

// renewTimeFor chooses the renewTime of an attempt: the wall clock's, but at
// least a second above the last committed one, since client-go's candidates
// compare whole seconds; and a microsecond above the attempt before it when that
// one may yet turn out to have been committed.
func renewTimeFor(wall, committed, issued time.Time, again bool) time.Time {
	least := committed.Add(time.Second)
	t := wall
	if t.Before(least) {
		t = least
	}
	if again || !t.After(issued) {
		t = issued.Add(time.Microsecond)
	}
	if t.Before(least) {
		t = least
	}
	return t.Truncate(time.Microsecond)
}

// fill writes an attempt into a lease: everything that is not the election's
// stays as it was seen.
func (a *attempt) fill(lease *coordinationv1.Lease, me string, duration time.Duration, acquired time.Time) {
	holder, seconds, transitions := me, int32(duration/time.Second), a.transitions
	if a.kind == release || a.kind == certify {
		holder, seconds = "", 1
	}
	if a.kind == acquire || lease.Spec.AcquireTime == nil {
		lease.Spec.AcquireTime = &metav1.MicroTime{Time: acquired.Truncate(time.Microsecond)}
	}
	lease.Spec.HolderIdentity = &holder
	lease.Spec.LeaseDurationSeconds = &seconds
	lease.Spec.RenewTime = &metav1.MicroTime{Time: a.renewTime}
	lease.Spec.LeaseTransitions = &transitions
}
