// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package runner

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/incumbent-io/incumbent/pkg/controllers"
)

// DefaultStopTimeout is how long one controller may take to stop.
const DefaultStopTimeout = 30 * time.Second

// Config says what a Runner runs.
type Config struct {
	// Controllers are all the controllers of the lease group, enabled or not, each
	// after all that it needs. Apply says which are enabled.
	Controllers []Desired
	// NewRun makes what one run of a controller works with. It is called before each
	// Init, and what it returns is used for that run alone. refused is to be called
	// whenever the API server refuses a request of the run as forbidden or unknown;
	// it may be called from any goroutine at any time.
	NewRun func(name string, refused func()) (RunParts, error)
	// Check finds out about a controller's access. An error means that nothing was
	// found out. nil: everything is there.
	Check func(ctx context.Context, access []controllers.Access) (Verdict, error)
	// Cold builds nothing until Run is called, and keeps nothing afterwards.
	Cold bool
	// StopTimeout is how long one controller may take to stop while the others go
	// on, before it is stuck. Default: DefaultStopTimeout.
	StopTimeout time.Duration
	// OnChange, if not nil, is told of every change of a state, in order for each
	// controller. It must not block, nor call the Runner.
	OnChange func(before, after Status)
	// Clock times backoff and timeouts. nil means the system's.
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

// Runner runs the enabled controllers of a lease group. Its methods are safe for
// concurrent use, except that Live and Run may each be active only once at a time.
type Runner struct {
	config Config
	units  []*unit // in order of start
	byName map[string]*unit
	living atomic.Bool

	applying sync.Mutex
}

// New returns a Runner that has not started anything.
func New(config Config) *Runner {
	if config.Clock == nil {
		config.Clock = clock.RealClock{}
	}
	if config.StopTimeout == 0 {
		config.StopTimeout = DefaultStopTimeout
	}
	r := &Runner{config: config, byName: map[string]*unit{}}
	for _, desired := range config.Controllers {
		u := newUnit(desired, &r.config)
		r.units = append(r.units, u)
		r.byName[u.name] = u
	}
	for _, u := range r.units {
		for _, need := range u.needs {
			r.byName[need].neededBy = append(r.byName[need].neededBy, u.name)
		}
	}
	return r
}

// Live keeps every enabled controller built while none of its runs is active, so
// that its caches are warm when Run is called, and does what Apply asks for. It
// returns when ctx has ended and no run is left.
func (r *Runner) Live(ctx context.Context) {
	r.living.Store(true)
	var all sync.WaitGroup
	for _, u := range r.units {
		all.Go(func() { u.live(ctx) })
	}
	all.Wait()
	r.living.Store(false)
}

// Run runs the enabled controllers for one term and returns when ctx has ended and
// every one of them has returned. If ctx ended because the lease was lost
// (controllers.IsNotLeader tells by its cause), all are told to stop at once;
// otherwise each is told when those that need it have returned. Live must be active;
// a controller that Live has let go already is not run.
func (r *Runner) Run(ctx context.Context) {
	t := newTurn(ctx, r.units, r.config.Clock.Now())
	if n := r.enabled(); n > 0 {
		klog.FromContext(ctx).Info("Running controllers", "controllers", n)
	}
	for _, u := range r.units {
		u.join(t)
	}
	<-ctx.Done() // controllers that have all completed, or were skipped, end no term
	for _, u := range r.units {
		select {
		case <-t.left[u.name]:
		case <-u.exited:
		}
	}
}

func (r *Runner) enabled() (n int) {
	for _, u := range r.units {
		if u.wanted().enabled {
			n++
		}
	}
	return n
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
// while it runs, and the state that it is in as a note. Stuck is an error. So is a
// controller that the Runner does not know.
func (r *Runner) CheckHealth(ctx context.Context, name string) (note string, err error) {
	u := r.byName[name]
	if u == nil {
		return "", fmt.Errorf("controller %q is not run here", name)
	}
	return u.checkHealth(ctx)
}

// DebugHandler returns the debug handler of the controller called name, or nil while
// it does not run or has none.
func (r *Runner) DebugHandler(name string) http.Handler {
	if u := r.byName[name]; u != nil {
		if debuggable, ok := u.runningController().(controllers.Debuggable); ok {
			return debuggable.DebugHandler()
		}
	}
	return nil
}

// Stragglers names the controllers whose run has not returned, sorted.
func (r *Runner) Stragglers() (names []string) {
	for _, status := range r.Snapshot() {
		switch status.State {
		case Running, Draining, Stuck:
			names = append(names, status.Name)
		}
	}
	slices.Sort(names)
	return names
}

// Stuck names the controllers that have been stuck for at least that long, sorted.
func (r *Runner) Stuck(tolerance time.Duration) (names []string) {
	now := r.config.Clock.Now()
	for _, status := range r.Snapshot() {
		if status.State == Stuck && now.Sub(status.Since) >= tolerance {
			names = append(names, status.Name)
		}
	}
	slices.Sort(names)
	return names
}
