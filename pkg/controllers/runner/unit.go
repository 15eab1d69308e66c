// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package runner

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/incumbent-io/incumbent/pkg/clients"
	"github.com/incumbent-io/incumbent/pkg/controllers"
)

// State is where a controller stands in its life.
//
//	             Init says Skip
//	building ───────────────────────────────────────────────► skipped
//	 │  ▲ ▲
//	 │  │ └───────────── the pause is over ────────────┐
//	 │  └──────── term over, not stopping ──────┐      │
//	 │ built                                    │      │
//	 ▼                                          │      │
//	warm ── leads, needs settled, synced ──► running   │
//	                                          │ │ │    │
//	                  Run returns nil ◄───────┘ │ └──► backoff ◄── Init fails
//	                  completed           drain │   Run fails, panics;
//	                                            ▼   a handler of it panics
//	                                         draining ──► stopped
type State string

// The states of a controller.
const (
	Building  State = "building"  // Init is called
	Warm      State = "warm"      // built; runs when this replica leads and its caches are synced
	Running   State = "running"   // Run has been called and has not returned
	Backoff   State = "backoff"   // failed or panicked; is built anew after a pause
	Completed State = "completed" // Run returned nil although it was not asked to stop
	Skipped   State = "skipped"   // Init found nothing to do in this process
	Draining  State = "draining"  // told to stop, has not returned yet
	Stopped   State = "stopped"   // has returned, and nothing of it is left
)

// Status is a snapshot of one controller.
type Status struct {
	Name  string
	State State
	// Reason says why it is in that state; empty where that goes without saying.
	Reason string
	// Since is when it came into that state.
	Since time.Time
	// Restarts counts the runs that failed since the process started.
	Restarts int
}

// unit is one controller's life. Its goroutine, live, owns every field above mu.
type unit struct {
	name       string
	controller *controllers.Configured
	newRun     func(name string) (RunParts, error)
	clock      clock.WithTicker
	turns      chan *turn    // room for one
	exited     chan struct{} // closed when live has returned

	next     *build             // the build that the next run uses, or nil
	view     *clients.Informers // the caches of the last run, kept until the next build has its own
	failures int                // Invariant: 0 after a run that was healthy or asked to stop
	retryAt  time.Time          // no build before this
	skipped  bool

	mu      sync.Mutex
	status  Status
	checker controllers.HealthChecker // of the controller that runs now, if it is one
}

// build is one Controller value that has not run yet.
type build struct {
	RunParts
	controller controllers.Controller
	discard    context.CancelFunc // ends Init's context
}

func newUnit(controller *controllers.Configured, config Config) *unit {
	return &unit{
		name:       controller.Name,
		controller: controller,
		newRun:     config.NewRun,
		clock:      config.Clock,
		turns:      make(chan *turn, 1),
		exited:     make(chan struct{}),
		status:     Status{Name: controller.Name, State: Stopped, Since: config.Clock.Now()},
	}
}

func (u *unit) snapshot() Status {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.status
}

func (u *unit) checkHealth(ctx context.Context) (note string, err error) {
	u.mu.Lock()
	status, checker := u.status, u.checker
	u.mu.Unlock()
	note = string(status.State)
	if status.Reason != "" {
		note += ": " + status.Reason
	}
	if checker != nil {
		err = checker.CheckHealth(ctx)
	}
	return note, err
}

func (u *unit) setChecker(checker controllers.HealthChecker) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.checker = checker
}

func (u *unit) enter(state State, reason string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.status.State, u.status.Reason, u.status.Since = state, reason, u.clock.Now()
}

// live keeps the controller built and serves the turns that come, until stop ends.
func (u *unit) live(stop context.Context) {
	stop = klog.NewContext(stop, klog.LoggerWithValues(klog.FromContext(stop), "controller", u.name))
	defer close(u.exited)
	defer u.release()
	for {
		retry := u.prepare(stop)
		select {
		case <-stop.Done():
			return
		case t := <-u.turns:
			u.serve(stop, t)
		case <-retry:
		}
	}
}

// prepare builds the controller if that is due, and otherwise returns a channel that
// says when it is.
func (u *unit) prepare(stop context.Context) (retry <-chan time.Time) {
	if u.next != nil || u.skipped || stop.Err() != nil {
		return nil
	}
	if pause := u.retryAt.Sub(u.clock.Now()); pause > 0 {
		return u.clock.After(pause)
	}
	if u.construct(stop) || u.skipped {
		return nil
	}
	return u.clock.After(u.retryAt.Sub(u.clock.Now()))
}

// construct calls Init. When that fails, retryAt is set.
func (u *unit) construct(ctx context.Context) bool {
	u.enter(Building, "")
	next, err := u.init(ctx)
	if reason, skip := controllers.SkipReason(err); skip {
		u.skipped = true
		u.enter(Skipped, reason)
		klog.FromContext(ctx).Info("Controller is skipped", "reason", reason)
		return false
	}
	if err != nil {
		u.fail(ctx, "Controller cannot be built", err, 0)
		return false
	}
	u.replaceView(next.Context.Informers)
	u.next = next
	u.enter(Warm, "")
	return true
}

func (u *unit) init(ctx context.Context) (b *build, err error) {
	parts, err := u.newRun(u.name)
	if err != nil {
		return nil, err
	}
	ctx, discard := context.WithCancel(context.WithoutCancel(ctx))
	defer func() {
		if reason := recover(); reason != nil {
			err = newPanicError(reason)
		}
		if err != nil {
			discard()
			parts.Fence.Shut()
			parts.Context.Informers.Release()
		}
	}()
	controller, err := u.controller.Init(ctx, parts.Context)
	if err != nil {
		return nil, err
	}
	return &build{RunParts: parts, controller: controller, discard: discard}, nil
}

// replaceView releases the caches of the run before, now that the new build has
// asked for the same ones: in this order nothing is listed again.
func (u *unit) replaceView(view *clients.Informers) {
	if u.view != nil {
		u.view.Release()
	}
	u.view = view
}

// release lets go of everything that the unit holds.
func (u *unit) release() {
	if u.next != nil {
		u.next.Fence.Shut()
		u.next.discard()
		u.next = nil
	}
	u.replaceView(nil)
	if !u.skipped {
		u.enter(Stopped, "")
	}
}

// fail records a failure and when the next attempt is due.
func (u *unit) fail(ctx context.Context, message string, err error, lasted time.Duration) {
	u.failures = failuresAfter(u.failures, lasted)
	pause := backoff(u.failures, jitter())
	u.retryAt = u.clock.Now().Add(pause)
	u.mu.Lock()
	u.status.Restarts++
	u.mu.Unlock()
	u.enter(Backoff, err.Error())
	values := []any{"failures", u.failures, "pause", pause.Round(time.Millisecond)}
	var p *panicError
	if errors.As(err, &p) {
		values = append(values, "stack", p.stack)
	}
	klog.FromContext(ctx).Error(err, message, values...)
}

// serve runs the controller for one turn, again after each failure.
func (u *unit) serve(stop context.Context, t *turn) {
	s := t.stages[u.name]
	defer s.end()
	if u.skipped || !t.awaitNeeds(u) {
		return
	}
	for t.ctx.Err() == nil {
		if u.next == nil {
			if !u.await(t) {
				return
			}
			if !u.construct(stop) {
				s.settle()
				if u.skipped {
					return
				}
				continue
			}
		}
		if u.runOnce(stop, t, s) {
			s.end()
			<-t.ctx.Done()
		}
	}
}

// await waits out the backoff. It tells whether the turn still goes on.
func (u *unit) await(t *turn) bool {
	pause := u.retryAt.Sub(u.clock.Now())
	if pause <= 0 {
		return t.ctx.Err() == nil
	}
	timer := u.clock.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C():
		return true
	case <-t.ctx.Done():
		return false
	}
}

// runOnce runs the current build and tells whether the controller has completed.
func (u *unit) runOnce(stop context.Context, t *turn, s *stage) (completed bool) {
	informers := u.next.Context.Informers
	if err := informers.WaitForSync(t.ctx); err != nil {
		return false // the turn has ended; the build has not run and stays for the next
	}
	b := u.next
	u.next = nil
	started := u.clock.Now()
	err := u.supervise(t, s, b)
	s.settle()
	b.Fence.Shut()
	b.discard()
	u.detach(stop, informers)
	switch {
	case t.ctx.Err() != nil:
		u.failures = 0
		u.enter(Stopped, "")
		klog.FromContext(stop).V(2).Info("Controller stopped")
	case err != nil:
		u.fail(stop, "Controller failed; it is restarted alone", err, u.clock.Since(started))
	case u.controller.RestartCompleted:
		u.failures = 0
		u.retryAt = u.clock.Now().Add(backoffFirst)
		u.enter(Backoff, "completed; it is to be restarted")
	default:
		u.failures = 0
		u.enter(Completed, "")
		klog.FromContext(stop).Info("Controller completed")
		return true
	}
	return false
}

// detachTimeout bounds the wait for the last call of a run's event handlers.
const detachTimeout = 5 * time.Second

func (u *unit) detach(ctx context.Context, informers *clients.Informers) {
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), detachTimeout)
	defer cancel()
	if err := informers.Detach(bounded); err != nil {
		klog.FromContext(ctx).Error(err, "An event handler of the controller does not return")
	}
}

// supervise calls Run and returns what came of it. The run's context is its own, so
// that at a drain those that need it stop first; it carries the turn's values.
func (u *unit) supervise(t *turn, s *stage, b *build) error {
	if err := b.Fence.Open(t.ctx); err != nil {
		return err // the term is over; so is the turn
	}
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(t.ctx))
	defer cancel(nil)
	ctx = klog.NewContext(ctx, klog.LoggerWithValues(klog.FromContext(t.ctx), "controller", u.name))

	u.enter(Running, "") // before anything can make it draining
	if checker, ok := b.controller.(controllers.HealthChecker); ok {
		u.setChecker(checker)
		defer u.setChecker(nil)
	}
	over := make(chan struct{})
	var helpers sync.WaitGroup
	defer helpers.Wait()
	defer close(over)
	helpers.Go(func() {
		t.awaitStop(u, over)
		select {
		case <-over:
		default:
			u.enter(Draining, "")
			cancel(context.Cause(t.ctx))
		}
	})
	if readier, ok := b.controller.(controllers.Readier); ok {
		ready := readier.Ready()
		helpers.Go(func() {
			select {
			case <-ready:
				s.settle()
			case <-over:
			}
		})
	} else {
		s.settle()
	}

	klog.FromContext(ctx).V(2).Info("Controller running")
	if err := b.Context.Informers.Attach(); err != nil {
		return err
	}
	result := make(chan error, 1)
	go call(ctx, b.controller, result)
	select {
	case err := <-result:
		return err
	case fault := <-b.Context.Informers.Faults():
		cancel(fault)
		<-result
		return fault
	}
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

// panicError is a panic of Init or Run.
type panicError struct {
	reason any
	stack  string
}

func newPanicError(reason any) *panicError {
	return &panicError{reason: reason, stack: string(debug.Stack())}
}

func (p *panicError) Error() string { return fmt.Sprintf("panic: %v", p.reason) }
