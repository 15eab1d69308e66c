// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package runner

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/incumbent-io/incumbent/pkg/controllers"
)

// Config says what a Runner runs.
type Config struct {
	// Controllers are the enabled controllers, each after all that it needs.
	Controllers []*controllers.Configured
	// NewRun makes what one run of a controller works with. It is called before each
	// Init, and what it returns is used for that run alone.
	NewRun func(name string) (RunParts, error)
	// Clock times the backoff. nil means the system's.
	Clock clock.WithTicker
}

// RunParts is what one run of a controller works with.
type RunParts struct {
	Context *controllers.Context
	// Fence guards the clients in Context.
	Fence Fence
}

// Fence lets the writes of one run through, once opened and while the term lasts.
// *leaderelection.Fence is one.
type Fence interface {
	// Open lets writes through for the term that ctx carries.
	Open(ctx context.Context) error
	// Shut refuses writes for ever.
	Shut()
}

// Runner runs the controllers of a lease group. Its methods are safe for concurrent
// use, except that Live and Run may each be active only once at a time.
type Runner struct {
	units []*unit // in order of start
}

// New returns a Runner that has not started anything.
func New(config Config) *Runner {
	if config.Clock == nil {
		config.Clock = clock.RealClock{}
	}
	r := &Runner{}
	for _, controller := range config.Controllers {
		r.units = append(r.units, newUnit(controller, config))
	}
	return r
}

// Live keeps every controller built while none of its runs is active, so that its
// caches are warm when Run is called. It returns when ctx has ended and no run is
// left.
func (r *Runner) Live(ctx context.Context) {
	var all sync.WaitGroup
	for _, u := range r.units {
		all.Go(func() { u.live(ctx) })
	}
	all.Wait()
}

// Run runs the controllers for one term and returns when ctx has ended and every
// one of them has returned. If ctx ended because the lease was lost
// (controllers.IsNotLeader tells by its cause), all are told to stop at once;
// otherwise each is told when those that need it have returned. Live must be active;
// a controller that Live has let go already is not run.
func (r *Runner) Run(ctx context.Context) {
	t := newTurn(ctx, r.units)
	if len(r.units) > 0 {
		klog.FromContext(ctx).Info("Running controllers", "controllers", len(r.units))
	}
	for _, u := range r.units {
		u.turns <- t // has room for one, and Run is active once
	}
	for _, u := range r.units {
		select {
		case <-t.stages[u.name].ended:
		case <-u.exited:
			// Live ended before it took the turn. It will not take it any more.
			select {
			case <-u.turns:
			default:
			}
		}
	}
	<-ctx.Done() // controllers that have all completed, or were skipped, end no term
}

// Snapshot returns the status of every controller, in order of start.
func (r *Runner) Snapshot() []Status {
	list := make([]Status, len(r.units))
	for i, u := range r.units {
		list[i] = u.snapshot()
	}
	return list
}

// CheckHealth asks the controller called name how it is: what its CheckHealth says
// while it runs, and the state that it is in as a note. A controller that the Runner
// does not run is an error.
func (r *Runner) CheckHealth(ctx context.Context, name string) (note string, err error) {
	for _, u := range r.units {
		if u.name == name {
			return u.checkHealth(ctx)
		}
	}
	return "", fmt.Errorf("controller %q is not run here", name)
}

// Stragglers names the controllers whose run has not returned, sorted.
func (r *Runner) Stragglers() (names []string) {
	for _, status := range r.Snapshot() {
		if status.State == Running || status.State == Draining {
			names = append(names, status.Name)
		}
	}
	slices.Sort(names)
	return names
}

// turn is one call of Runner.Run: a term, as the units share it.
type turn struct {
	ctx    context.Context
	stages map[string]*stage
	needed map[string][]string // name -> the names of those that need it
}

// stage is how far one unit has come in a turn. Both channels are closed by the
// unit alone, settled before ended.
type stage struct {
	settled chan struct{} // it is ready, or its first attempt has ended
	ended   chan struct{} // it is finished with the turn; nothing of it runs
	settle  func()
	end     func()
}

func newTurn(ctx context.Context, units []*unit) *turn {
	t := &turn{ctx: ctx, stages: map[string]*stage{}, needed: map[string][]string{}}
	for _, u := range units {
		s := &stage{settled: make(chan struct{}), ended: make(chan struct{})}
		s.settle = sync.OnceFunc(func() { close(s.settled) })
		s.end = sync.OnceFunc(func() { s.settle(); close(s.ended) })
		t.stages[u.name] = s
		for _, need := range u.controller.Needs {
			t.needed[need] = append(t.needed[need], u.name)
		}
	}
	return t
}

// awaitNeeds waits until all that u needs and that are in this turn have settled. It
// tells whether the turn still goes on.
func (t *turn) awaitNeeds(u *unit) bool {
	for _, need := range u.controller.Needs {
		if s := t.stages[need]; s != nil {
			select {
			case <-s.settled:
			case <-t.ctx.Done():
			}
		}
	}
	return t.ctx.Err() == nil
}

// awaitStop waits until u should stop: the turn has ended and, unless the lease was
// lost, so have those that need u. It returns early when the run is over.
func (t *turn) awaitStop(u *unit, over <-chan struct{}) {
	select {
	case <-t.ctx.Done():
	case <-over:
		return
	}
	if controllers.IsNotLeader(context.Cause(t.ctx)) {
		return
	}
	for _, name := range t.needed[u.name] {
		select {
		case <-t.stages[name].ended:
		case <-over:
			return
		}
	}
}
