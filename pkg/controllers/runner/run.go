// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package runner

import (
	"context"
	"errors"
	"time"

	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/incumbent-io/incumbent/pkg/controllers"
)

// Why a run is told to stop while its term goes on.
var (
	errReconfigured = errors.New("the controller's configuration has changed")
	errAccessLost   = errors.New("an API or a permission that the controller needs has gone")
	errAccessOther  = errors.New("an optional API or permission has appeared or gone")
)

// run is one run of a controller, as its unit sees it. Only the unit's goroutine
// uses it.
//
//	going ── told: cause is set ──► waiting ── those that need it have stopped ──► cancelled
//	                                                                                │
//	                                       after StopTimeout, unless lost: stuck ◄──┤
//	                                                                                ▼
//	                                                        Run has returned: result
type run struct {
	unit    *unit
	turn    *turn
	build   *build
	verdict *Verdict // what was known when it was built
	started time.Time

	cancel    context.CancelCauseFunc
	result    chan error
	ready     <-chan struct{}
	cause     error             // why it is told to stop; nil: it is not
	after     []<-chan struct{} // what is waited for before it is cancelled
	cancelled bool
	fault     error
	deadline  clock.Timer // until it is stuck; nil unless cancelled, and if the lease is lost
}

// detachTimeout bounds the wait for the last call of a run's event handlers.
const detachTimeout = 5 * time.Second

// runOnce runs the current build. When it returns, nothing of the run is left but,
// perhaps, goroutines that the controller has lost track of; their writes are
// refused.
func (u *unit) runOnce(stop context.Context, t *turn) {
	b := u.next
	if err := b.Fence.Open(t.ctx); err != nil {
		return // the term is over; so is the turn
	}
	u.next = nil
	r := &run{unit: u, turn: t, build: b, verdict: u.inquiry.verdict, started: u.now()}
	stop = klog.NewContext(stop, r.logger())
	err := r.supervise()
	t.stage(u.name).settle()
	b.drop()
	u.detach(stop, b)
	u.conclude(stop, r, err)
}

func (u *unit) detach(ctx context.Context, b *build) {
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), detachTimeout)
	defer cancel()
	if err := b.Context.Informers.Detach(bounded); err != nil {
		klog.FromContext(ctx).Error(err, "An event handler of the controller does not return")
	}
}

// conclude makes of a run's end what follows from it.
func (u *unit) conclude(ctx context.Context, r *run, err error) {
	var panicked *panicError
	switch {
	case r.cancelled && r.fault == nil && !errors.As(err, &panicked):
		u.failures = 0
		u.enter(Stopped, "")
		klog.FromContext(ctx).V(2).Info("Controller stopped", "why", r.cause)
	case r.fault != nil || err != nil:
		if r.fault != nil {
			err = r.fault
		}
		u.fail(ctx, "Controller failed; it is restarted alone", err, u.now().Sub(r.started))
	case u.w.controller.RestartCompleted:
		u.failures = 0
		u.retryAt = u.now().Add(backoffFirst)
		u.change(func(s *Status) {
			s.State, s.Reason, s.RetryAt = Backoff, "completed; it is to be restarted", u.retryAt
		})
	default:
		u.failures = 0
		u.completedIn = r.turn
		u.enter(Completed, "")
		klog.FromContext(ctx).Info("Controller completed")
	}
}

// supervise calls Run and returns what came of it. The run's context is its own, so
// that at a drain those that need it stop first; it carries the turn's values.
func (r *run) supervise() error {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(r.turn.ctx))
	defer cancel(nil)
	r.cancel = cancel
	ctx = klog.NewContext(ctx, r.logger())

	r.unit.enter(Running, "")
	r.unit.setRunning(r.build.controller)
	defer r.unit.setRunning(nil)
	if readier, ok := r.build.controller.(controllers.Readier); ok {
		r.ready = readier.Ready()
	} else {
		r.turn.stage(r.unit.name).settle()
	}
	klog.FromContext(ctx).V(2).Info("Controller running")
	if err := r.build.Context.Informers.Attach(); err != nil {
		return err
	}
	r.result = make(chan error, 1)
	go call(ctx, r.build.controller, r.result)
	for {
		r.decide()
		if err, over := r.await(); over {
			return err
		}
	}
}

// logger is that of the turn, so it names the lease and the term too.
func (r *run) logger() klog.Logger {
	return klog.LoggerWithValues(klog.FromContext(r.turn.ctx), "controller", r.unit.name)
}

// call calls Run and sends what came of it, a panic and a runtime.Goexit included.
func call(ctx context.Context, controller controllers.Controller, result chan<- error) {
	err := errors.New("Run ended its goroutine with runtime.Goexit")
	defer func() {
		if reason := recover(); reason != nil {
			err = newPanicError(reason)
		}
		result <- err
	}()
	err = controller.Run(ctx)
}

// decide tells the run to stop if there is a reason to.
func (r *run) decide() {
	u := r.unit
	u.checkDoubts()
	if !r.cancelled && r.cause == nil {
		u.inquiry.ask(u, u.w.controller, u.now())
		r.after, r.cause = r.reason()
	}
	if r.cause != nil && (r.fault != nil || r.turn.lost()) {
		r.after = nil // those that need it are told at the same time
	}
	for len(r.after) > 0 && closed(r.after[0]) {
		r.after = r.after[1:]
	}
	if r.cause == nil || r.cancelled || len(r.after) > 0 {
		return
	}
	r.cancelled = true
	u.enter(Draining, r.words())
	r.cancel(r.cause)
	if !r.turn.lost() { // then the elector knows how long it may take
		r.deadline = u.config.Clock.NewTimer(u.config.StopTimeout)
	}
}

// reason returns why the run is to stop, and what must have stopped before.
func (r *run) reason() (after []<-chan struct{}, cause error) {
	u := r.unit
	switch w := u.wanted(); {
	case r.fault != nil:
		return nil, r.fault
	case r.turn.ctx.Err() != nil:
		for _, name := range u.neededBy {
			after = append(after, r.turn.left[name])
		}
		return after, context.Cause(r.turn.ctx)
	case w != u.w:
		return w.after, errReconfigured
	case u.inquiry.missing() != "":
		return nil, errAccessLost
	case u.inquiry.verdict != nil && r.verdict != nil && !u.inquiry.verdict.equal(*r.verdict):
		return nil, errAccessOther
	}
	return nil, nil
}

// words says why it drains, where that does not go without saying.
func (r *run) words() string {
	if r.turn.ctx.Err() != nil {
		return ""
	}
	return firstLine(r.cause.Error())
}

// await waits for whatever comes next, and tells whether Run has returned.
func (r *run) await() (err error, over bool) {
	u := r.unit
	var faults <-chan error
	if r.fault == nil {
		faults = r.build.Context.Informers.Faults()
	}
	var ended, before <-chan struct{}
	if r.turn.ctx.Err() == nil { // otherwise decide has seen it
		ended = r.turn.ctx.Done()
	}
	if len(r.after) > 0 {
		before = r.after[0]
	}
	var deadline, due <-chan time.Time
	if r.deadline != nil {
		deadline = r.deadline.C()
	}
	if at := u.inquiry.due; !at.IsZero() && r.cause == nil {
		timer := u.config.Clock.NewTimer(max(at.Sub(u.now()), 0))
		defer timer.Stop()
		due = timer.C()
	}
	select {
	case err := <-r.result:
		if r.deadline != nil {
			r.deadline.Stop()
		}
		return err, true
	case fault := <-faults:
		r.fault = faultError{fault}
		if !r.cancelled {
			r.cause = r.fault
		}
	case <-r.ready:
		r.turn.stage(u.name).settle()
		r.ready = nil
	case <-ended:
	case <-before:
	case <-u.signal:
	case <-due:
	case a := <-u.inquiry.answers:
		u.inquiry.take(a, u.now())
	case <-deadline:
		r.deadline = nil
		r.build.Fence.Shut()
		u.enter(Stuck, "told to stop "+u.config.StopTimeout.String()+" ago: "+firstLine(r.cause.Error()))
		r.logger().Error(r.cause, "Controller does not stop; its writes are refused from now on, and only a restart of the process ends it")
	}
	return nil, false
}
