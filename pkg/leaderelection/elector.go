// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package leaderelection

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/klog/v2"
)

// Elector competes for one lease and leads on it. Its methods are safe for
// concurrent use. The states of a running one are drawn at engine.
type Elector struct {
	cfg        Config
	api        leaseAPI
	unelected  bool
	pathPrefix string

	ran       atomic.Bool
	abandoned chan struct{}
	abandon   sync.Once
	// wake makes the engine look at its clocks.
	wake chan struct{}
	// running is the term whose callbacks have not all returned, or nil.
	running atomic.Pointer[Term]
	// snapshot is what the engine last published.
	snapshot atomic.Pointer[snapshot]
	turn     pulse // of the engine
	observe  pulse // of the observer
}

// snapshot is the engine's part of a Status.
type snapshot struct {
	Status
	term        *Term
	renewed     Reading // when the record was first seen
	known       bool
	lastContact Reading
}

// New returns an Elector for cfg, or an error that joins every mistake in it.
func New(cfg Config) (*Elector, error) {
	cfg, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	e := newElector(cfg)
	e.api = cfg.api
	if e.api == nil {
		e.api, err = newRESTAPI(cfg.REST, cfg.Namespace, cfg.LeaseName)
		if err != nil {
			return nil, err
		}
	}
	return e, nil
}

// NewUnelected returns an Elector that leads without a lease, for
// --leader-elect=false: Run calls OnStartedLeading at once (after Contact) and
// drains when asked to stop; the term's epoch is 0, its Check and the fences
// pass everything until the end of the drain, and nothing keeps a second process
// from doing the same. Of cfg only Name, Callbacks, Contact, DrainTimeout,
// Metrics and Clock are used.
func NewUnelected(cfg Config) (*Elector, error) {
	if cfg.Callbacks.OnStartedLeading == nil {
		return nil, errors.New("callbacks: OnStartedLeading is required")
	}
	if cfg.Name == "" {
		cfg.Name = cfg.LeaseName
	}
	if cfg.DrainTimeout == 0 {
		cfg.DrainTimeout = DefaultDrainTimeout
	}
	if cfg.Metrics == nil {
		cfg.Metrics = NewMetrics()
	}
	if cfg.Clock == nil {
		cfg.Clock = systemClock{}
	}
	cfg.Timing = cfg.Timing.WithDefaults()
	e := newElector(cfg)
	e.unelected = true
	return e, nil
}

func newElector(cfg Config) *Elector {
	e := &Elector{cfg: cfg, pathPrefix: hostPrefix(cfg.REST),
		abandoned: make(chan struct{}), wake: make(chan struct{}, 1)}
	e.snapshot.Store(&snapshot{Status: Status{State: StateStarting}})
	cfg.Metrics.use(cfg.Name, e.leaseAge)
	return e
}

// Run competes for the lease until ctx ends, which asks it to stop: then it
// drains and releases. It returns nil after a complete drain, even if the lease
// was lost meanwhile or could not be released because the API server did not
// answer, and when it never led; ErrDrainTimeout and ErrLost as described there.
// It may be called once.
func (e *Elector) Run(ctx context.Context) error {
	if e.ran.Swap(true) {
		return errors.New("an Elector runs only once")
	}
	if e.unelected {
		return e.runUnelected(ctx)
	}
	return newEngine(ctx, e).run(ctx)
}

// Abandon ends a term at once: the fence is shut, nothing is released, and Run
// returns ErrDrainTimeout without waiting for the callbacks. It is what a second
// signal asks for.
func (e *Elector) Abandon() {
	e.abandon.Do(func() {
		close(e.abandoned)
		// The fence does not wait for the engine's turn.
		if t := e.snapshot.Load().term; t != nil {
			t.sever()
		}
	})
}

// poke makes the engine look at its clocks.
func (e *Elector) poke() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// NewFence returns a fence for one run of one controller.
func (e *Elector) NewFence() *Fence { return newFence(e) }

// Watchdog returns the liveness check of this lease.
func (e *Elector) Watchdog() *Watchdog { return &Watchdog{elector: e} }

// Status returns a snapshot.
func (e *Elector) Status() Status {
	snap := e.snapshot.Load()
	s, now := snap.Status, e.cfg.Clock.Read()
	s.Name, s.Namespace, s.LeaseName = e.cfg.Name, e.cfg.Namespace, e.cfg.LeaseName
	if e.cfg.Identity != nil {
		s.Identity = e.cfg.Identity.String()
	}
	if s.Contacted {
		s.LastContact = ago(now, snap.lastContact)
	}
	s.LeaseAge = e.leaseAge()
	if t := snap.term; t != nil {
		s.Epoch = t.Epoch()
		s.TermSince = ago(now, t.opened)
		s.FenceOpen = t.Check() == nil
		s.InFlight = t.flying()
	}
	return s
}

// ago returns the wall time of a reading as the wall clock has it now.
func ago(now, then Reading) time.Time { return now.wallTime().Add(then.Boot - now.Boot) }

// leaseAge is Status.LeaseAge.
func (e *Elector) leaseAge() time.Duration {
	snap, now := e.snapshot.Load(), e.cfg.Clock.Read()
	switch {
	case snap.term != nil && !e.unelected:
		return now.Boot - snap.term.ackedAt().Boot
	case snap.known:
		return now.Boot - snap.renewed.Boot
	}
	return 0
}

// fenceCounter counts guarded writes.
type fenceCounter struct {
	metrics *Metrics
	name    string
}

func (e *Elector) fenceMetrics() fenceCounter { return fenceCounter{e.cfg.Metrics, e.cfg.Name} }

func (c fenceCounter) count(result string) {
	c.metrics.fence.WithLabelValues(c.name, result).Inc()
}

// openTerm makes the term that begins with a lease write sent at acked.
func (e *Elector) openTerm(base context.Context, acked Reading, epoch int64) *Term {
	t := newTerm(base, e.cfg.Clock, e.cfg.Timing, acked, epoch)
	t.owner, t.doubted = e, e.poke
	t.unbounded = e.unelected || e.cfg.off.cutoff
	t.serverFenced = e.cfg.ServerFence
	if e.cfg.REST != nil && e.cfg.REST.Transport == nil && !e.unelected {
		t.transport = sync.OnceValues(func() (http.RoundTripper, error) { return guardedTransport(e.cfg.REST, t) })
	}
	return t
}

// runUnelected leads without a lease.
func (e *Elector) runUnelected(ctx context.Context) error {
	logger := klog.FromContext(ctx).WithValues("lease", e.cfg.Name)
	logger.Info("Leader election is off: nothing keeps a second process from writing at the same time")
	t := e.openTerm(ctx, e.cfg.Clock.Read(), 0)
	defer t.sever()
	publish := func(s State, started bool) {
		e.snapshot.Store(&snapshot{Status: Status{State: s, Started: started}, term: t})
	}
	publish(StateUnelected, false)
	if e.cfg.Contact != nil {
		contact, cancel := withTimeout(ctx, e.cfg.Clock, contactTimeout)
		if err := e.cfg.Contact(contact); err != nil && ctx.Err() == nil {
			logger.Info("Starting before the informers have been in contact with the API server", "err", err)
		}
		cancel()
	}
	if ctx.Err() != nil {
		publish(StateStopped, false)
		return nil
	}
	publish(StateUnelected, true)
	e.cfg.Metrics.master.WithLabelValues(e.cfg.Name).Set(1)
	defer e.cfg.Metrics.master.WithLabelValues(e.cfg.Name).Set(0)
	returned := make(chan struct{})
	go func() {
		defer close(returned)
		e.cfg.Callbacks.OnStartedLeading(t.ctx)
	}()
	abandoned := e.abandoned
	select {
	case <-returned:
	case <-abandoned:
	case <-ctx.Done():
		publish(StateDraining, true)
		t.close(errAskedToStop)
		drain, cancel := withTimeout(context.WithoutCancel(ctx), e.cfg.Clock, e.cfg.DrainTimeout)
		defer cancel()
		select {
		case <-returned:
		case <-abandoned:
		case <-drain.Done():
		}
	}
	t.close(errAskedToStop)
	publish(StateStopped, true)
	select {
	case <-returned:
	default:
		return ErrDrainTimeout
	}
	if e.cfg.Callbacks.OnStoppedLeading != nil {
		e.cfg.Callbacks.OnStoppedLeading()
	}
	return nil
}
