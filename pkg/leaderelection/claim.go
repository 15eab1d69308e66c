// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package leaderelection

import (
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// standing is how long a candidate lets others go first for one free lease.
type standing struct {
	since time.Duration // which record it is about: when it was first seen
	until time.Duration
}

// standBack returns until when others go first, now that the lease is free. What is
// this candidate's own, or was that of its dead process, it takes at once.
func (e *engine) standBack(now Reading, d decision) time.Duration {
	if d.reason == reasonHeld || d.reason == reasonDead || d.kind == certify {
		return 0
	}
	if e.back.since != e.view.since.Mono || e.back.until == 0 {
		e.back = standing{since: e.view.since.Mono, until: now.Mono + e.cfg.Share.standBack()}
	}
	return e.back.until
}

// claim is the claim that stands on the lease.
type claim struct {
	by   string
	seen time.Duration // when it was first seen
}

func (c claim) outlived(now Reading) bool { return c.by != "" && now.Mono-c.seen > claimLife }

// claimResult is the answer to the write of a claim.
type claimResult struct {
	lease *coordinationv1.Lease
	err   error
	at    Reading
}

// yields decides whether to give the lease to whoever claims it.
func (e *engine) yields(now Reading) bool {
	by := ""
	if e.view.object != nil {
		by = e.view.object.Annotations[claimAnnotation]
	}
	if by != e.claim.by {
		e.claim = claim{by: by, seen: now.Mono}
	}
	return by != "" && by != e.me && !e.claim.outlived(now) && e.cfg.Share.yields(e.Elector, by)
}

// ask claims the lease if its holder leads enough more than this process. The write
// changes nothing but the annotation, so it moves nobody's observation time; if it
// meets a newer version, it is tried again. ask returns when to look again, or 0.
func (e *engine) ask(now Reading) (wait time.Duration) {
	if e.claiming || e.view.object == nil {
		return 0
	}
	yes, wait := e.cfg.Share.claims(e.Elector, e.me, now.Mono, e.cfg.jitter())
	if !yes {
		return wait
	}
	e.logger.Info("Asking for the lease, for its holder leads more than this process", "holder", e.view.record.HolderIdentity)
	lease := e.view.object.DeepCopy()
	if lease.Annotations == nil {
		lease.Annotations = map[string]string{}
	}
	lease.Annotations[claimAnnotation] = e.me
	e.claiming = true
	e.helpers.Go(func() {
		ctx, cancel := withTimeout(e.base, e.cfg.Clock, e.timing.tryTimeout())
		defer cancel()
		answer, err := e.api.update(ctx, lease)
		offer(e.base, e.claims, claimResult{answer, err, e.cfg.Clock.Read()})
	})
	return 0
}

// claimed takes the answer to a claim into account.
func (e *engine) claimed(r claimResult) {
	e.claiming = false
	if r.err != nil {
		e.logger.V(2).Info("The claim was not written", "err", r.err)
		if apierrors.IsConflict(r.err) {
			e.cfg.Share.missed(r.at.Mono)
		}
		return
	}
	e.sighted(sighting{source: fromWrite, lease: r.lease, version: r.lease.ResourceVersion, at: r.at})
}
