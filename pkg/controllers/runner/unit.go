// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package runner

import (
	"context"
	"errors"
	"maps"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/klog/v2"

	"github.com/incumbent-io/incumbent/pkg/clients"
	"github.com/incumbent-io/incumbent/pkg/controllers"
)

// unit is one controller's life. Its goroutine, live, owns the fields of the second
// block; the third is guarded by mu.
type unit struct {
	name     string
	needs    []string
	neededBy []string // Invariant: does not change once New has returned
	config   *Config
	signal   chan struct{} // room for one: something of the third block has changed
	exited   chan struct{} // closed when live has returned

	w           *want              // what was wanted when it last looked
	next        *build             // the build that the next run uses, or nil
	view        *clients.Informers // the caches of the newest build, kept until the next has its own
	inquiry     inquiry
	failures    int       // Invariant: 0 after a run that was healthy or asked to stop
	retryAt     time.Time // no build before this
	skipped     bool
	completedIn *turn // the turn in which it has completed, or nil

	mu      sync.Mutex
	want    *want
	turn    *turn // the one that Runner.Run has given, until the unit leaves it
	doubted bool  // the API server has refused something
	status  Status
	running controllers.Controller // what Run was called of, while it runs
}

func newUnit(d Desired, config *Config) *unit {
	w := newWant(d)
	close(w.adopted)
	state, reason := Stopped, ""
	if !d.Enabled {
		state, reason = Disabled, d.Reason
	}
	return &unit{
		name:   d.Controller.Name,
		needs:  d.Controller.Needs,
		config: config,
		signal: make(chan struct{}, 1),
		exited: make(chan struct{}),
		w:      w,
		want:   w,
		status: Status{
			Name: d.Controller.Name, Group: d.Controller.LeaseGroup,
			State: state, Reason: reason, Since: config.Clock.Now(), Restarts: map[Cause]int{},
		},
	}
}

func (u *unit) now() time.Time { return u.config.Clock.Now() }

func (u *unit) wake() {
	select {
	case u.signal <- struct{}{}:
	default:
	}
}

func (u *unit) wanted() *want {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.want
}

// give says what is wanted from now on.
func (u *unit) give(w *want) {
	u.mu.Lock()
	if before := u.want; before.next != nil || !closed(before.adopted) {
		before.abandon()
		w.overtaken = append(before.overtaken, before.adopted)
	}
	u.want = w
	u.mu.Unlock()
	u.wake()
}

func (u *unit) current() *turn {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.turn
}

func (u *unit) join(t *turn) {
	u.mu.Lock()
	u.turn = t
	u.mu.Unlock()
	u.wake()
}

// leave is called when the turn has ended and nothing of the unit runs in it.
func (u *unit) leave(t *turn) {
	u.mu.Lock()
	u.turn = nil
	u.mu.Unlock()
	u.completedIn = nil
	t.stage(u.name).settle()
	close(t.left[u.name])
}

// refused is called when the API server refuses a request of a run.
func (u *unit) refused() {
	u.mu.Lock()
	u.doubted = true
	u.mu.Unlock()
	u.wake()
}

// checkDoubts has the access checked again if something was refused.
func (u *unit) checkDoubts() {
	u.mu.Lock()
	doubted := u.doubted
	u.doubted = false
	u.mu.Unlock()
	if doubted && u.config.Check != nil {
		u.inquiry.doubt(u.now())
	}
}

func (u *unit) snapshot() Status {
	u.mu.Lock()
	defer u.mu.Unlock()
	status := u.status
	status.Restarts = maps.Clone(status.Restarts)
	return status
}

func (u *unit) runningController() controllers.Controller {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.running
}

func (u *unit) setRunning(controller controllers.Controller) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.running = controller
}

func (u *unit) checkHealth(ctx context.Context) (note string, err error) {
	status := u.snapshot()
	note = string(status.State)
	if status.Reason != "" {
		note += ": " + status.Reason
	}
	if status.State == Stuck {
		return "", errors.New(note)
	}
	if checker, ok := u.runningController().(controllers.HealthChecker); ok {
		err = checker.CheckHealth(ctx)
	}
	return note, err
}

func (u *unit) enter(state State, reason string) {
	u.change(func(s *Status) { s.State, s.Reason = state, reason })
}

// change changes the status and says so, if it then differs.
func (u *unit) change(edit func(*Status)) {
	before := u.snapshot()
	u.mu.Lock()
	edit(&u.status)
	if u.status.State != before.State {
		u.status.Since = u.now()
	}
	if u.status.State != Backoff {
		u.status.RetryAt = time.Time{}
	}
	changed := u.status.State != before.State || u.status.Reason != before.Reason
	u.mu.Unlock()
	if changed && u.config.OnChange != nil {
		u.config.OnChange(before, u.snapshot())
	}
}

// pause is what the unit waits for before it looks again. Its zero value waits for a
// signal, an answer or the end of the turn alone.
type pause struct {
	none  bool
	until time.Time
	event <-chan struct{}
}

// live does what is wanted of the controller, until stop ends.
func (u *unit) live(stop context.Context) {
	stop = klog.NewContext(stop, klog.LoggerWithValues(klog.FromContext(stop), "controller", u.name))
	defer close(u.exited)
	defer u.letGo(Stopped, "")
	for {
		p, goOn := u.step(stop)
		if !goOn {
			return
		}
		if !p.none {
			u.await(stop, p)
		}
	}
}

// step does what is due and tells what to wait for. It alone decides.
func (u *unit) step(stop context.Context) (p pause, goOn bool) {
	u.adopt(stop)
	u.checkDoubts()
	t := u.current()
	switch {
	case t != nil && t.ctx.Err() != nil:
		u.leave(t)
		return pause{none: true}, true
	case t == nil && stop.Err() != nil:
		return pause{}, false
	case !u.w.enabled:
		u.letGo(Disabled, u.w.reason)
		t.settle(u.name)
		return pause{}, true
	case t == nil && u.config.Cold:
		u.letGo(Stopped, "built when this replica leads")
		return pause{}, true
	}
	if u.config.Check != nil {
		u.inquiry.ask(u, u.w.controller, u.now())
		switch missing := u.inquiry.missing(); {
		case missing != "":
			u.block(stop, missing)
			t.settle(u.name)
			return pause{until: u.inquiry.due}, true
		case u.inquiry.verdict == nil && u.inquiry.err != nil:
			t.settle(u.name)
			u.enter(Building, "its access cannot be checked: "+firstLine(u.inquiry.err.Error()))
			return pause{until: u.inquiry.due}, true
		case u.inquiry.verdict == nil:
			u.enter(Building, "its access is checked")
			return pause{}, true
		}
	}
	if u.next == nil {
		p = u.construct(stop, t)
	} else {
		p = u.start(stop, t)
	}
	if due := u.inquiry.due; !due.IsZero() && (p.until.IsZero() || due.Before(p.until)) {
		p.until = due
	}
	return p, true
}

// await waits until there may be something to do.
func (u *unit) await(stop context.Context, p pause) {
	var timeout <-chan time.Time
	if !p.until.IsZero() {
		timer := u.config.Clock.NewTimer(max(p.until.Sub(u.now()), 0))
		defer timer.Stop()
		timeout = timer.C()
	}
	over := stop.Done()
	if t := u.current(); t != nil {
		over = t.ctx.Done()
	}
	select {
	case <-u.signal:
	case <-over:
	case <-timeout:
	case <-p.event:
	case a := <-u.inquiry.answers:
		if u.inquiry.take(a, u.now()) && u.next != nil {
			u.dropNext() // Served has other answers now
		}
	}
}

// adopt takes over what is wanted, once nothing runs of what was wanted before.
func (u *unit) adopt(ctx context.Context) {
	u.mu.Lock()
	w := u.want
	next := w.next
	w.next = nil
	u.mu.Unlock()
	if w == u.w {
		return
	}
	switch {
	case w.enabled && !u.w.enabled:
		klog.FromContext(ctx).Info("Controller is enabled", "reason", w.reason)
	case !w.enabled && u.w.enabled:
		klog.FromContext(ctx).Info("Controller is disabled", "reason", w.reason)
	case w.enabled:
		klog.FromContext(ctx).Info("Controller has new options")
	}
	u.w = w
	u.dropNext()
	u.failures, u.retryAt, u.skipped, u.completedIn = 0, time.Time{}, false, nil
	u.inquiry.forget()
	if w.verdict != nil {
		u.inquiry.take(answer{verdict: *w.verdict}, u.now())
	}
	if next != nil {
		u.replaceView(next.Context.Informers)
		u.next = next
	}
	for _, overtaken := range w.overtaken {
		close(overtaken)
	}
	close(w.adopted)
}

// block gives everything up until what is missing appears.
func (u *unit) block(ctx context.Context, missing string) {
	if status := u.snapshot(); status.State != Blocked || status.Reason != missing {
		klog.FromContext(ctx).Info("Controller is blocked; it starts by itself once this is there", "missing", missing)
	}
	u.failures, u.retryAt, u.skipped, u.completedIn = 0, time.Time{}, false, nil
	u.letGo(Blocked, missing)
}

// letGo gives up the build and the caches.
func (u *unit) letGo(state State, reason string) {
	u.dropNext()
	u.replaceView(nil)
	if state == Stopped && u.skipped {
		return // the reason for that is worth more
	}
	u.enter(state, reason)
}

func (u *unit) dropNext() {
	if u.next != nil {
		u.next.drop()
		u.next = nil
	}
}

// replaceView releases the caches of the build before, now that the new one has
// asked for the same ones: in this order nothing is listed again.
func (u *unit) replaceView(view *clients.Informers) {
	if u.view != nil && u.view != view {
		u.view.Release()
	}
	u.view = view
}

// construct calls Init if that is due.
func (u *unit) construct(ctx context.Context, t *turn) pause {
	switch {
	case u.skipped:
		t.settle(u.name)
		return pause{}
	case u.completedIn != nil:
		return pause{}
	case u.now().Before(u.retryAt):
		t.settle(u.name)
		return pause{until: u.retryAt}
	}
	if status := u.snapshot(); status.State == Blocked {
		klog.FromContext(ctx).Info("Controller is no longer blocked", "missed", status.Reason)
	}
	u.enter(Building, "")
	var verdict Verdict
	if u.inquiry.verdict != nil {
		verdict = *u.inquiry.verdict
	}
	next, err := u.init(ctx, u.w.controller, servedBy(verdict))
	if reason, skip := controllers.SkipReason(err); skip {
		u.skipped = true
		u.enter(Skipped, reason)
		klog.FromContext(ctx).Info("Controller is skipped", "reason", reason)
	} else if err != nil {
		u.fail(ctx, "Controller cannot be built", err, 0)
	} else {
		u.replaceView(next.Context.Informers)
		u.next = next
	}
	return pause{none: true}
}

func servedBy(verdict Verdict) func(schema.GroupVersionResource) bool {
	return func(resource schema.GroupVersionResource) bool { return verdict.Served[resource] }
}

// syncPoll is how often the author's own caches are asked whether they have synced.
const syncPoll = 20 * time.Millisecond

// start runs the current build if its caches are synced, this replica leads, and
// what it needs has settled.
func (u *unit) start(stop context.Context, t *turn) pause {
	if next, own := u.next.unsynced(); next != nil || own {
		u.enter(Building, "its caches are syncing")
		p := pause{event: next}
		if own {
			p.until = u.now().Add(syncPoll)
		}
		return p
	}
	if t == nil {
		u.enter(Warm, "")
		return pause{}
	}
	if need := t.unsettled(u.needs); need != nil {
		u.enter(Warm, "what it needs has not started yet")
		return pause{event: need}
	}
	if at := t.starts[u.name]; u.now().Before(at) {
		return pause{until: at}
	}
	u.runOnce(stop, t)
	return pause{none: true}
}

// fail records a failure and when the next attempt is due.
func (u *unit) fail(ctx context.Context, message string, err error, lasted time.Duration) {
	u.failures = failuresAfter(u.failures, lasted)
	wait := backoff(u.failures, jitter())
	u.retryAt = u.now().Add(wait)
	cause := causeOf(err)
	u.change(func(s *Status) {
		s.Restarts[cause]++
		s.State, s.Reason, s.RetryAt = Backoff, firstLine(err.Error()), u.retryAt
		s.LastError, s.LastErrorAt = s.Reason, u.now()
	})
	values := []any{"failures", u.failures, "pause", wait.Round(time.Millisecond)}
	var p *panicError
	var fault faultError
	switch {
	case errors.As(err, &p):
		values = append(values, "stack", p.stack)
	case errors.As(err, &fault):
		text, stack, panicked := strings.Cut(err.Error(), "\n")
		if panicked {
			err, values = errors.New(text), append(values, "stack", stack)
		}
	}
	klog.FromContext(ctx).Error(err, message, values...)
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
