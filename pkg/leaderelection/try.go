// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package leaderelection

import (
	"errors"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// fault is what a failed lease write means.
type fault int

const (
	// conflict: the lease is not what it was thought to be. Read it.
	conflict fault = iota
	// refused: the server answered and has not done it.
	refused
	// unknown: it may have been done, or be done yet.
	unknown
)

// faultOf classifies the error of a lease write.
func faultOf(err error, create bool) fault {
	switch {
	case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err), apierrors.IsNotFound(err) && !create:
		return conflict
	case apierrors.IsTimeout(err), apierrors.IsServerTimeout(err), apierrors.IsInternalError(err):
		return unknown
	}
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		return refused
	}
	return unknown
}

// tracerName names this package to whoever collects spans.
const tracerName = "github.com/incumbent-io/incumbent/pkg/leaderelection"

// write sends a lease write of that kind. The present object, edited, is the
// body: its uid keeps a PUT from creating a lease that was deleted, its version
// makes the write the check whether it still is as it was seen.
func (e *engine) write(now Reading, kind writeKind) {
	v := &e.view
	transitions := v.transitions
	if kind == acquire || v.object == nil {
		transitions = after(transitions)
	}
	transitions = max(transitions, 0)
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: e.cfg.Namespace, Name: e.cfg.LeaseName}}
	base := ""
	if v.object != nil {
		lease, base = v.object.DeepCopy(), v.version
	}
	acquired := now.wallTime()
	if kind == renew {
		acquired = e.tenure.acquired
	}
	try := e.attempts.begin(kind, now, base, v.record.RenewTime.Time, transitions)
	try.reclaims = kind == acquire && e.cfg.Identity.isDead(v.record.HolderIdentity)
	try.fill(lease, e.me, e.timing.LeaseDuration, acquired)
	if kind != renew || e.claim.outlived(now) {
		delete(lease.Annotations, claimAnnotation)
	}
	do := e.api.update
	if base == "" {
		do = e.api.create
	} else if e.cfg.off.resourceVersion {
		lease.UID, lease.ResourceVersion = "", ""
	}
	e.writing = try
	e.helpers.Go(func() {
		ctx, cancel := withTimeout(e.base, e.cfg.Clock, e.timing.tryTimeout())
		defer cancel()
		ctx, span := e.cfg.Tracer.Tracer(tracerName).Start(ctx, "lease write", trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(
			attribute.String("lease", e.cfg.Namespace+"/"+e.cfg.LeaseName), attribute.String("write", kind.String()), attribute.String("identity", e.me)))
		answer, err := do(ctx, lease)
		if err != nil {
			span.SetStatus(codes.Error, err.Error())
		}
		span.End()
		offer(e.base, e.writes, writeResult{try, answer, err, e.cfg.Clock.Read()})
	})
}

// written takes the answer to a lease write into account.
func (e *engine) written(r writeResult) {
	e.writing = nil
	now := e.cfg.Clock.Read()
	result := renewOK
	if r.err != nil {
		result = renewFailed
	}
	e.cfg.Metrics.renewals.WithLabelValues(e.cfg.Name, result).Observe((r.at.Mono - r.try.sent.Mono).Seconds())
	if r.err == nil {
		e.sighted(sighting{source: fromWrite, lease: r.lease, version: r.lease.ResourceVersion, at: r.at})
		e.proven(now, r.try)
		return
	}
	if r.try.proven {
		return // its record was seen before its answer failed to arrive
	}
	switch faultOf(r.err, r.try.base == "") {
	case conflict:
		e.logger.V(2).Info("The lease has changed", "write", r.try.kind.String(), "err", r.err)
		e.retrying, e.retryAt = true, now.Mono
		if r.try.base != "" && e.view.version != r.try.base || r.try.base == "" && e.view.object != nil {
			return // what it has changed to is known by now
		}
		e.conflicted, e.want, e.getAt = true, wantConflict, now.Mono
		if e.state == StateObserving {
			e.getAt += minBackoff // the watch will most likely tell
		} else {
			e.cfg.Metrics.slowpath.WithLabelValues(e.cfg.Name).Inc()
		}
		return
	case unknown:
		e.unsettled = r.try.kind == acquire
	}
	e.failed("write", r.err)
	e.retrying = true
	e.retryAt = now.Mono + e.writePause.next(e.cfg.jitter())
}

// fetch sends a quorum GET when one is wanted and it is time.
func (e *engine) fetch(now Reading) {
	if e.want == "" || e.getting || now.Mono < e.getAt {
		return
	}
	if e.want == wantConflict && !e.conflicted {
		e.want = "" // the watch has told
		return
	}
	e.logger.V(4).Info("Reading the lease", "reason", e.want)
	e.getting = true
	asked := e.view.version
	e.helpers.Go(func() {
		ctx, cancel := withTimeout(e.base, e.cfg.Clock, e.timing.tryTimeout())
		defer cancel()
		r := getResult{sighting: sighting{source: fromGet, asked: asked}}
		lease, err := e.api.get(ctx)
		r.sighting.at = e.cfg.Clock.Read()
		switch {
		case err == nil:
			r.sighting.lease, r.sighting.version = lease, lease.ResourceVersion
		case !apierrors.IsNotFound(err):
			r.err = err
		}
		offer(e.base, e.gets, r)
	})
}

// got takes the answer to a GET into account.
func (e *engine) got(r getResult) {
	now := e.cfg.Clock.Read()
	e.getting = false
	why := e.want
	if r.err != nil {
		e.failed("get", r.err)
		e.getAt = now.Mono + e.getPause.next(e.cfg.jitter())
		if why == wantQuiet || e.stopping && e.state == StateObserving {
			e.want, e.conflicted = "", false
		}
		return
	}
	e.getPause.reset()
	e.want = ""
	out := e.sighted(r.sighting)
	e.unsettled = e.unsettled && out == ignored
	switch {
	case out == news:
		e.expecting(now, e.view.version, time.Second)
	case out == ignored && e.conflicted:
		// It was on its way for so long that more has become known. Look again.
		e.want, e.getAt = why, now.Mono+minBackoff
	case e.conflicted:
		// Something else than the version is in the way.
		e.conflicted, e.retrying = false, true
		e.retryAt = now.Mono + e.writePause.next(e.cfg.jitter())
	}
}
