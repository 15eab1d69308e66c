// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package manager

import (
	"context"
	"fmt"
	"sync"

	clientgo "k8s.io/client-go/tools/leaderelection"

	"github.com/incumbent-io/incumbent/pkg/clients"
	"github.com/incumbent-io/incumbent/pkg/controllers"
	"github.com/incumbent-io/incumbent/pkg/controllers/runner"
	"github.com/incumbent-io/incumbent/pkg/leaderelection"
	"github.com/incumbent-io/incumbent/pkg/options"
)

// group is one lease group: a lease, and the controllers that share it.
//
//	idle ── Apply enables a controller ──► competing ── none is enabled any more,
//	  ▲                                                 and all have stopped
//	  └───────────── lease released ─────── leaving ◄──────┘
//
// A group without enabled controllers does not compete: whoever led it would keep it
// from another manager that has something to run.
type group struct {
	options.Group
	host   *host
	runner *runner.Runner

	mu      sync.Mutex
	elector *leaderelection.Elector // of the current or the next time that it competes
	wanted  bool                    // a controller is enabled
	leaving bool
	left    chan struct{} // closed when it competes no longer; nil while it is idle
	changed chan struct{} // closed and replaced when wanted, or a controller's state, changes
}

func newGroup(h *host, lease options.Group) (*group, error) {
	g := &group{Group: lease, host: h, changed: make(chan struct{})}
	var err error
	g.elector, err = g.newElector()
	return g, err
}

func (g *group) newElector() (*leaderelection.Elector, error) {
	h, election := g.host, g.host.config.Election
	config := leaderelection.Config{
		Namespace:    g.LeaseNamespace,
		LeaseName:    g.LeaseName,
		Identity:     h.identity,
		REST:         h.config.REST,
		Timing:       election.Timing,
		DrainTimeout: election.DrainTimeout,
		OnLost:       election.OnLost,
		Tracer:       h.tracer,
		Callbacks: clientgo.LeaderCallbacks{OnStartedLeading: func(ctx context.Context) {
			for _, status := range g.runner.Snapshot() { // standbys do not announce
				h.announce(runner.Status{}, status)
			}
			g.runner.Run(controllers.WithTerm(ctx, leaderelection.TermFrom(ctx)))
		}},
		Contact:     h.pool.Contact,
		ServerFence: election.Fencing,
		Events:      h.events.leaseRecorder(),
		Metrics:     h.electionMetrics,
		Share:       h.share,
	}
	if !election.Enabled {
		return leaderelection.NewUnelected(config)
	}
	return leaderelection.New(config)
}

func (g *group) current() *leaderelection.Elector {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.elector
}

// noticed is told of every change of a controller's state.
func (g *group) noticed(before, after runner.Status) {
	g.host.health.follow(after)
	if !g.isWanted() {
		g.touch()
	}
	if g.current().Status().Leading() {
		g.host.announce(before, after)
	}
}

func (g *group) isWanted() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.wanted
}

// competing tells whether it competes for its lease at present.
func (g *group) competing() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.left != nil
}

// touch has the group look again whether it should compete.
func (g *group) touch() {
	g.mu.Lock()
	defer g.mu.Unlock()
	close(g.changed)
	g.changed = make(chan struct{})
}

// want says whether a controller of the group is enabled. When one is again, it first
// waits until the lease is released that is being left: the builds that follow need
// the next elector's fence.
func (g *group) want(ctx context.Context, wanted bool) error {
	for {
		g.mu.Lock()
		left := g.left
		if !wanted || !g.leaving {
			g.wanted = wanted
			g.mu.Unlock()
			g.touch()
			return nil
		}
		g.mu.Unlock()
		select {
		case <-left:
		case <-ctx.Done():
			return fmt.Errorf("lease group %q is still being left: %w", g.Name, context.Cause(ctx))
		}
	}
}

// run competes for the lease whenever a controller is enabled, until ctx ends or a
// term ends so that the process must end.
func (g *group) run(ctx context.Context) error {
	for {
		g.mu.Lock()
		wanted, changed := g.wanted, g.changed
		if wanted && ctx.Err() == nil {
			g.left = make(chan struct{})
		}
		g.mu.Unlock()
		if ctx.Err() != nil {
			return nil
		}
		if !wanted {
			select {
			case <-changed:
			case <-ctx.Done():
			}
			continue
		}
		if err := g.compete(ctx); err != nil {
			return err
		}
	}
}

func (g *group) compete(ctx context.Context) error {
	competing, leave := context.WithCancel(ctx)
	defer leave()
	ended := make(chan struct{})
	var watcher sync.WaitGroup
	watcher.Go(func() { g.leaveWhenDone(ended, leave) })
	err := g.elector.Run(competing)
	close(ended)
	watcher.Wait()
	if err != nil || ctx.Err() != nil {
		return err
	}
	next, err := g.newElector()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.elector, g.leaving = next, false
	close(g.left)
	g.left = nil
	return err
}

// leaveWhenDone calls leave once no controller is enabled and none runs any more.
func (g *group) leaveWhenDone(ended <-chan struct{}, leave func()) {
	for {
		g.mu.Lock()
		wanted, changed := g.wanted, g.changed
		if !wanted && len(g.runner.Stragglers()) == 0 {
			g.leaving = true
			g.mu.Unlock()
			leave()
			return
		}
		g.mu.Unlock()
		select {
		case <-changed:
		case <-ended:
			return
		}
	}
}

// newRun makes what one run of a controller of the group works with.
func (g *group) newRun(name string, refused func()) (runner.RunParts, error) {
	fence := g.current().NewFence()
	parts, err := g.host.newRun(name, refused, clients.SetConfig{Wrap: fence.WrapTransport})
	if err == nil && g.host.config.Election.Enabled {
		parts.Context.Instance.Lease, parts.Context.Instance.LeaseNamespace = g.LeaseName, g.LeaseNamespace
	}
	parts.Fence = fence
	return parts, err
}
