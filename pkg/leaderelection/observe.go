// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package leaderelection

import (
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// source is where a sighting of the lease comes from.
type source int

const (
	fromWatch source = iota
	fromBookmark
	fromList
	fromGet
	fromWrite
)

// sighting is one look at the lease. A nil lease says that there is none.
type sighting struct {
	source source
	lease  *coordinationv1.Lease
	// version is the lease's, or that of the absence: of the list, or of the
	// deletion. Empty for a GET that found nothing.
	version string
	uid     types.UID // of a deletion: what was deleted
	asked   string    // of a GET: the newest version known when it was sent
	at      Reading   // when it arrived
}

// view is what this candidate knows of the lease. It is a value that only
// see changes; every decision is a function of it.
type view struct {
	lease time.Duration // our own lease duration

	known   bool // the API server has told whether the lease exists
	object  *coordinationv1.Lease
	record  resourcelock.LeaderElectionRecord // of object
	version string                            // Invariant: the newest version known, own writes included
	// since is when the present record, or the absence, was first seen. Changes
	// of labels and annotations do not move it.
	since Reading
	// duration is how long the present record protects its holder.
	duration time.Duration
	longest  time.Duration // the longest duration ever seen
	// transitions is the highest number ever seen, -1 before.
	transitions int32
	// holder is the last holder seen that was not empty, and held the transitions
	// then.
	holder string
	held   int
}

func newView(lease time.Duration) view {
	return view{lease: lease, longest: lease, transitions: -1}
}

// outcome is what a sighting means.
type outcome int

const (
	ignored   outcome = iota // nothing new
	confirmed                // the version that is known
	wentBack                 // a list older than what is known: ask for a quorum GET
	news                     // a newer version, or the absence, or restored data
)

// older reports whether version a was written before b. Versions that cannot be
// compared are taken as newer: then the write decides.
func older(a, b string) bool {
	if b == "" {
		return false
	}
	order, err := resourceversion.CompareResourceVersion(a, b)
	return err == nil && order < 0
}

// accept decides whether a sighting counts.
func (v *view) accept(s sighting) outcome {
	present := v.known && v.object != nil
	switch s.source {
	case fromGet:
		// A quorum GET tells the truth of its time, and its time is later than
		// whatever was known when it was sent: even a lower version counts then,
		// for etcd was restored. If something was learnt meanwhile, a lower one is
		// merely late.
		unmoved := s.asked == v.version
		switch {
		case s.lease == nil && unmoved:
			if v.known && !present {
				return confirmed
			}
			return news
		case s.lease == nil:
			return ignored
		case older(s.version, v.version) && !unmoved:
			return ignored
		case present && s.version == v.version:
			return confirmed
		}
		return news
	case fromList:
		switch {
		case older(s.version, v.version):
			return wentBack
		case s.lease == nil && v.known && !present:
			return confirmed
		case s.lease != nil && older(s.lease.ResourceVersion, v.version):
			return wentBack
		case s.lease != nil && present && s.lease.ResourceVersion == v.version:
			return confirmed
		}
		return news
	default:
		switch {
		case s.source == fromBookmark, s.version != v.version && older(s.version, v.version):
			return ignored
		case s.lease == nil && (!present || v.object.UID != s.uid):
			return ignored
		case s.lease != nil && s.version == v.version:
			return confirmed
		}
		return news
	}
}

// see takes a sighting into account.
func (v *view) see(s sighting) outcome {
	out := v.accept(s)
	if out != news {
		return out
	}
	if s.lease == nil {
		v.known, v.object, v.record, v.since = true, nil, resourcelock.LeaderElectionRecord{}, s.at
		if s.version != "" {
			v.version = s.version
		}
		return out
	}
	previous, had := v.record, v.object != nil
	next := recordOf(s.lease)
	if !had || !sameRecord(previous, next) || v.object.UID != s.lease.UID {
		v.since = s.at
		v.duration = protection(next, previous, v.duration, v.lease)
		v.longest = max(v.longest, v.duration)
	}
	v.known, v.object, v.record, v.version = true, s.lease, next, s.lease.ResourceVersion
	v.transitions = max(v.transitions, int32(next.LeaderTransitions))
	if next.HolderIdentity != "" {
		v.holder, v.held = next.HolderIdentity, next.LeaderTransitions
	}
	return out
}

// protection returns how long a record protects its holder: for the duration it
// states, except that one which is absent, below a second or shortened under the
// same holder was edited, and counts as the larger of our own and the one before.
func protection(next, previous resourcelock.LeaderElectionRecord, before, own time.Duration) time.Duration {
	stated := time.Duration(next.LeaseDurationSeconds) * time.Second
	sameHolder := next.HolderIdentity == previous.HolderIdentity
	was := time.Duration(previous.LeaseDurationSeconds) * time.Second
	switch {
	case isRelease(next):
		return stated
	case next.HolderIdentity == "" || stated < time.Second:
		return max(own, before)
	case sameHolder && stated < was:
		return max(own, was)
	case sameHolder && stated == was && stated < own:
		// Unchanged, but perhaps shortened before.
		return max(stated, before)
	}
	return stated
}

// decision says when this candidate should try to take the lease, and why.
type decision struct {
	wait   time.Duration // due when it is not positive
	kind   writeKind
	reason string
}

// Reasons that are told apart.
const (
	reasonHeld = "held already"
	reasonDead = "holder proven dead"
)

// candidate is what a decision depends on besides the view.
type candidate struct {
	me   string
	idle bool              // no term of mine is left, and nothing of one is in flight
	dead func(string) bool // is that process proven dead?
	// loops reports whether the dead holder of this record was short-lived.
	loops func(resourcelock.LeaderElectionRecord) bool
}

// decide returns what to do about a lease that this candidate does not lead on.
// It must be known.
func (v *view) decide(now Reading, c candidate) decision {
	waited := now.waited(v.since)
	slack := func(d time.Duration) time.Duration {
		if v.holder != "" && !isOurs(v.holder) {
			return d + stockSlack
		}
		return d
	}
	r := v.record
	switch {
	case v.object == nil && v.transitions < 0:
		return decision{reason: "no lease"}
	case v.object == nil:
		return decision{wait: slack(v.longest) - waited, reason: "deleted"}
	case isRelease(r):
		if isStockRelease(r) || v.holder != "" && v.held == r.LeaderTransitions && !isOurs(v.holder) {
			return decision{wait: stockReleaseDelay - waited, reason: "released"}
		}
		return decision{reason: "released"}
	case r.HolderIdentity == c.me && c.idle:
		return decision{reason: reasonHeld}
	case r.HolderIdentity != "" && c.dead(r.HolderIdentity):
		if c.loops(r) {
			return decision{kind: certify, reason: "holder proven dead, short-lived"}
		}
		return decision{reason: reasonDead}
	default:
		return decision{wait: slack(v.duration) - waited, reason: "expired"}
	}
}
