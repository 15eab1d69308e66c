// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package leaderelection

import (
	"context"
	"errors"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
)

// observer keeps one watch of the lease and reports what it sees.
//
//	list --> watch --+--> closed: watch again from the last version
//	 ^               |
//	 +-- too old <---+
type observer struct {
	api     leaseAPI
	clock   Clock
	timeout time.Duration // of a list, and until a watch is answered
	jitter  func() float64
	sights  chan<- sighting
	failed  func(op string, err error)
	// restart asks for a new watch from the last version, because this one seems
	// to have stalled.
	restart <-chan struct{}
	pulse   *pulse
}

var errWatchClosed = errors.New("the watch was closed early")

// run observes until ctx ends.
func (o *observer) run(ctx context.Context) {
	var version string
	var pause backoff
	early := 0 // watches in a row that were closed early
	for ctx.Err() == nil {
		began := o.clock.Read()
		var err error
		if version == "" {
			version, err = o.list(ctx)
		}
		if err == nil {
			version, err = o.follow(ctx, version)
		}
		if o.clock.Read().Mono-began.Mono > maxBackoff {
			pause.reset()
		}
		if err == nil {
			early = 0
			continue
		}
		if err == errWatchClosed {
			early++
		}
		// A server that shuts down closes its watches; what follows tells why.
		if ctx.Err() == nil && (err != errWatchClosed || early > 2) {
			o.failed("watch", err)
		}
		d := pause.next(o.jitter())
		o.pulse.busy(o.clock.Read(), d)
		sleep(ctx, o.clock, d)
	}
}

// list reads the lease once and returns the version to watch from.
func (o *observer) list(ctx context.Context) (string, error) {
	o.pulse.busy(o.clock.Read(), o.timeout)
	listCtx, cancel := withTimeout(ctx, o.clock, o.timeout)
	defer cancel()
	lease, version, err := o.api.list(listCtx)
	if err != nil {
		return "", err
	}
	o.report(ctx, sighting{source: fromList, lease: lease, version: version})
	return version, nil
}

// follow watches from version until the watch ends, and returns the version to
// go on from: none if that is too old.
func (o *observer) follow(ctx context.Context, version string) (string, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	o.pulse.busy(o.clock.Read(), o.timeout)
	stop := o.clock.AfterFunc(o.timeout, cancel)
	lifetime := 300 + time.Duration(o.jitter()*300)
	w, err := o.api.watch(ctx, version, lifetime*time.Second)
	inTime := stop()
	if err != nil {
		if tooOld(err) {
			return "", nil
		}
		return version, err
	}
	defer w.Stop()
	if !inTime {
		return version, context.DeadlineExceeded
	}
	began := o.clock.Read()
	for {
		o.pulse.rest()
		select {
		case <-ctx.Done():
			return version, ctx.Err()
		case <-o.restart:
			return version, nil
		case event, ok := <-w.ResultChan():
			if !ok {
				if o.clock.Read().Mono-began.Mono < maxBackoff {
					return version, errWatchClosed
				}
				return version, nil
			}
			o.pulse.busy(o.clock.Read(), o.timeout)
			if event.Type == watch.Error {
				err := apierrors.FromObject(event.Object)
				if tooOld(err) {
					return "", nil
				}
				return version, err
			}
			lease, ok := event.Object.(*coordinationv1.Lease)
			if !ok {
				continue
			}
			version = lease.ResourceVersion
			o.report(ctx, sightingOf(event.Type, lease))
		}
	}
}

func sightingOf(event watch.EventType, lease *coordinationv1.Lease) sighting {
	s := sighting{source: fromWatch, version: lease.ResourceVersion}
	switch event {
	case watch.Bookmark:
		s.source = fromBookmark
	case watch.Deleted:
		s.uid = lease.UID
	default:
		s.lease = lease
	}
	return s
}

// report hands a sighting to the Elector, with the time of its arrival.
func (o *observer) report(ctx context.Context, s sighting) {
	s.at = o.clock.Read()
	select {
	case o.sights <- s:
	case <-ctx.Done():
	}
}

// tooOld reports whether a watch cannot begin at its version: it is no longer
// kept, or, once etcd was restored, not yet reached.
func tooOld(err error) bool {
	return apierrors.IsResourceExpired(err) || apierrors.IsGone(err) ||
		apierrors.HasStatusCause(err, metav1.CauseTypeResourceVersionTooLarge)
}

// backoff paces retries: 50 ms, doubling to 1 s, with some jitter.
type backoff struct{ last time.Duration }

func (b *backoff) next(jitter float64) time.Duration {
	b.last = min(max(2*b.last, minBackoff), maxBackoff)
	return b.last - time.Duration(jitter*float64(b.last)/4)
}

func (b *backoff) reset() { b.last = 0 }

// withTimeout is context.WithTimeout on a Clock.
func withTimeout(ctx context.Context, clock Clock, d time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := clock.AfterFunc(d, func() { cancel(context.DeadlineExceeded) })
	return ctx, func() {
		stop()
		cancel(nil)
	}
}

// sleep waits for d on a Clock, or until ctx ends.
func sleep(ctx context.Context, clock Clock, d time.Duration) {
	ctx, cancel := withTimeout(ctx, clock, d)
	defer cancel()
	<-ctx.Done()
}
