// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package controllertest

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"go.opentelemetry.io/otel/trace/noop"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	clientscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/events"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/incumbent-io/incumbent/pkg/clients"
	"github.com/incumbent-io/incumbent/pkg/controllers"
	"github.com/incumbent-io/incumbent/pkg/controllers/runner"
)

// DefaultTimeout is how long Settle waits, in real time, and how long a controller may
// take to stop.
const DefaultTimeout = 30 * time.Second

// Config says what a controller is tested in. Its zero value is an empty fake API
// server and the controller's default options.
type Config struct {
	// Objects are there before the controller is built. They are kept as they are, with
	// a UID, a creationTimestamp and a resourceVersion where they have none.
	// Not together with REST.
	Objects []runtime.Object
	// REST reaches a real API server, with permissions for whatever the test does. Nil:
	// a fake one.
	REST *rest.Config
	// Scheme has the types of Objects, and of what typed fakes list. Default:
	// client-go's.
	Scheme *runtime.Scheme
	// Options changes the controller's default options; the type is that of its
	// Descriptor.
	Options func(controllers.Options)
	// Absent are resources that Context.Served denies, and that the fake API server
	// does not serve. A controller that declares one as not optional is blocked.
	Absent []schema.GroupVersionResource
	// OnWrite is called before each write of the controller; an error takes the place of
	// the API server's answer. It may be called by many goroutines, and it may use the
	// clients of the test, as somebody who comes in between would.
	OnWrite func(Request) error
	// AllowErrors are parts of the errors, as they are logged, that do not fail the
	// test.
	AllowErrors []string
	// Instance is what the controller is told about its process. Default: the manager
	// "controllertest" in a Pod of that name in the namespace controllertest-system.
	Instance controllers.Instance
	// Timeout bounds, in real time, each wait for the controller. Default:
	// DefaultTimeout.
	Timeout time.Duration
}

// Harness is a controller that runs in a test. Its methods are for the goroutine of
// the test.
type Harness struct {
	// Kubernetes, Dynamic and Metadata are the test's own clients, without a fence.
	// Those of the fakes show the same objects.
	Kubernetes kubernetes.Interface
	Dynamic    dynamic.Interface
	Metadata   metadata.Interface

	t          testing.TB
	config     Config
	configured *controllers.Configured
	bubble     bool                    // in a bubble of testing/synctest
	clock      *clocktesting.FakeClock // nil in a bubble
	server     *server                 // nil with REST
	traffic    *traffic
	book       *book
	queues     *queues
	brand      brand
	pool       *clients.Pool
	runner     *runner.Runner
	epoch      int64
	begin      func() (stop func()) // begins a term
	stop       func()               // ends the term and waits; nil while there is none

	mu   sync.Mutex
	view *clients.Informers // of the newest build
}

// Run builds the controller, has it lead, and returns once it has settled. It stops
// when the test ends. The test fails if the controller returns an error, panics, logs
// an error, makes a request that its Access does not declare, records an Event that the
// API server would refuse, or leaves a goroutine behind.
//
// In a bubble of testing/synctest, time is the bubble's, and Settle is exact.
func Run(t testing.TB, registration controllers.Registration, config Config) *Harness {
	t.Helper()
	h := &Harness{
		t: t, config: config, configured: registration.Configure(), bubble: inBubble(), brand: newBrand(t.Name()),
		book: &book{t: t}, queues: &queues{held: map[string]int{}},
	}
	h.prepare()
	ctx := klog.NewContext(context.WithoutCancel(t.Context()), logr.New(journal{t: t, allowed: config.AllowErrors}))
	h.start(ctx)
	h.Start()
	return h
}

// prepare completes the configuration and connects the clients.
func (h *Harness) prepare() {
	h.t.Helper()
	if h.config.Scheme == nil {
		h.config.Scheme = clientscheme.Scheme
	}
	if h.config.Timeout == 0 {
		h.config.Timeout = DefaultTimeout
	}
	if h.config.Instance == (controllers.Instance{}) {
		h.config.Instance = controllers.Instance{
			Manager: "controllertest", Namespace: "controllertest-system", Lease: "controllertest", LeaseNamespace: "controllertest-system", Identity: "controllertest_1",
			PodName: "controllertest", PodNamespace: "controllertest-system", PodUID: "00000000-0000-0000-0000-000000000001",
		}
	}
	if !h.bubble {
		h.clock = clocktesting.NewFakeClock(time.Now())
	}
	if h.config.Options != nil {
		h.config.Options(h.configured.Options)
	}
	if errs := h.configured.Options.Validate(field.NewPath("controllers", h.configured.Name)); len(errs) > 0 {
		h.t.Fatalf("controllertest: options: %v", errs.ToAggregate())
	}
	h.traffic = &traffic{
		access: h.configured.Access(), own: h.config.Instance.PodNamespace, absent: h.config.Absent, onWrite: h.config.OnWrite, told: map[string]bool{},
		undeclared: func(r Request) {
			h.t.Errorf("request %q is not covered by the controller's Access; add the verb %s on %s, or RBAC will refuse it", r, r.Verb, r.Resource.GroupResource())
		},
	}
	if h.config.REST != nil {
		h.connect()
		return
	}
	h.server = newServer(h.config.Scheme, func() time.Time { return h.Clock().Now() })
	h.server.mu.Lock()
	defer h.server.mu.Unlock()
	for _, object := range h.config.Objects {
		if err := h.server.Add(object); err != nil {
			h.t.Fatalf("controllertest: Config.Objects: %v", err)
		}
	}
	own := h.fakes(func(Request) (func(), error) { return func() {}, nil })
	h.Kubernetes, h.Dynamic, h.Metadata = own.Kubernetes, own.Dynamic, own.Metadata
}

// connect makes the test's clients of a real API server.
func (h *Harness) connect() {
	h.t.Helper()
	switch {
	case h.bubble:
		h.t.Fatal("controllertest: a real API server cannot be reached from a bubble of testing/synctest; call Run outside of it")
	case len(h.config.Objects) > 0:
		h.t.Fatal("controllertest: Config.Objects is for the fake API server; create them with a client of your own")
	}
	set, err := clients.NewSet(clients.SetConfig{REST: h.config.REST})
	if err != nil {
		h.t.Fatalf("controllertest: %v", err)
	}
	h.Kubernetes, h.Dynamic, h.Metadata = set.Kubernetes(), set.Dynamic(), set.Metadata()
}

func (h *Harness) fakes(admit admission) *clients.Fakes {
	var resources []schema.GroupVersionResource
	for _, access := range h.configured.Access() {
		resources = append(resources, access.Resource)
	}
	return h.server.fakes(admit, resources)
}

// start starts the informers and the runner, and has the end of the test stop them.
func (h *Harness) start(ctx context.Context) {
	h.t.Helper()
	var err error
	if h.pool, err = clients.NewPool(h.poolConfig()); err != nil {
		h.t.Fatalf("controllertest: %v", err)
	}
	h.runner = runner.New(runner.Config{
		Controllers: []runner.Desired{{Controller: h.configured, Enabled: true, Reason: "it is tested"}},
		NewRun:      h.newRun,
		Check:       h.check,
		StopTimeout: h.config.Timeout,
	})
	background, cancel := context.WithCancel(ctx)
	living, letGo := context.WithCancel(background)
	pooled, lived := make(chan error, 1), make(chan struct{})
	h.brand.run(func() { pooled <- h.pool.Run(background) })
	h.brand.run(func() { defer close(lived); h.runner.Live(living) })
	h.stop = nil
	h.t.Cleanup(func() {
		h.t.Helper()
		h.Stop()
		letGo()
		h.await("the controller is let go", lived)
		cancel()
		if err := <-pooled; err != nil {
			h.t.Errorf("controllertest: %v", err)
		}
		h.checkLeaks()
	})
	h.lead(background)
}

// lead keeps ctx for the terms to come.
func (h *Harness) lead(ctx context.Context) {
	h.begin = func() func() {
		h.epoch++
		term, cancel := context.WithCancel(ctx)
		over := make(chan struct{})
		h.brand.run(func() {
			defer close(over)
			h.runner.Run(controllers.WithTerm(term, &office{epoch: h.epoch, ctx: term}))
		})
		return func() {
			h.t.Helper()
			cancel()
			h.await("the controller stops", over)
			h.queues.forget()
		}
	}
}

// await fails the test if c is not closed in time. What time the bubble's is passes at
// once.
func (h *Harness) await(what string, c <-chan struct{}) {
	h.t.Helper()
	timeout := time.NewTimer(h.config.Timeout)
	defer timeout.Stop()
	select {
	case <-c:
	case <-timeout.C:
		h.t.Fatalf("controllertest: %s: not within %v; goroutines of the controller:\n%s", what, h.config.Timeout, strings.Join(h.brand.alive(), "\n\n"))
	}
}

func (h *Harness) poolConfig() clients.PoolConfig {
	config := clients.PoolConfig{Name: "controllertest"}
	if h.server != nil {
		config.Fakes = h.fakes(h.traffic.admit)
		return config
	}
	config.REST = rest.CopyConfig(h.config.REST)
	config.REST.Wrap(through(h.traffic.admit))
	return config
}

// newRun makes what one run of the controller works with.
func (h *Harness) newRun(name string, refused func()) (runner.RunParts, error) {
	f := &fence{}
	admit := func(r Request) (func(), error) {
		if err := f.check(r); err != nil {
			return nil, err
		}
		return h.traffic.admit(r)
	}
	config := clients.SetConfig{UserAgent: "controllertest " + name, OnRefused: refused}
	if h.server != nil {
		config.Fakes = h.fakes(admit)
	} else {
		config.REST, config.Wrap = h.config.REST, through(admit)
	}
	set, err := clients.NewSet(config)
	if err != nil {
		return runner.RunParts{}, err
	}
	view := h.pool.View(name, refused)
	view.Track()
	h.mu.Lock()
	h.view = view
	h.mu.Unlock()
	return runner.RunParts{Fence: gate{f}, Context: &controllers.Context{
		Name: name, Instance: h.config.Instance, Clients: set, Informers: view, Clock: h.Clock(),
		Metrics: h.queues, Tracer: noop.NewTracerProvider(),
		Events: func(scheme *runtime.Scheme) events.EventRecorder { return recorder{scheme: scheme, book: h.book} },
	}}, nil
}

// check says which of the resources that the controller declares are there: all but
// the absent ones.
func (h *Harness) check(_ context.Context, access []controllers.Access) (runner.Verdict, error) {
	verdict := runner.Verdict{Served: map[schema.GroupVersionResource]bool{}}
	for _, a := range access {
		gone := false
		for _, absent := range h.config.Absent {
			gone = gone || absent == a.Resource
		}
		verdict.Served[a.Resource] = !gone
		if gone && !a.Optional {
			verdict.Missing = a.Resource.GroupResource().String() + " is not served"
		}
	}
	return verdict, nil
}

// Clock is the clock that the controller goes by.
func (h *Harness) Clock() clock.WithTicker {
	if h.bubble {
		return clock.RealClock{}
	}
	return h.clock
}

// Advance moves the clock and waits until the controller has settled. In a bubble,
// time passes bit by bit; outside, in one leap.
func (h *Harness) Advance(d time.Duration) {
	h.t.Helper()
	if h.bubble {
		time.Sleep(d)
	} else {
		h.clock.Step(d)
	}
	h.Settle()
}

// Start has the controller lead again after Stop, and waits until it has settled.
func (h *Harness) Start() {
	h.t.Helper()
	if h.stop == nil {
		h.stop = h.begin()
	}
	h.Settle()
}

// Stop ends the controller's term as a hand-over does, and waits until Run has
// returned. Its informers stay.
func (h *Harness) Stop() {
	h.t.Helper()
	if h.stop != nil {
		h.stop()
		h.stop = nil
	}
}

// Events returns what the controller has recorded since it was last asked for.
func (h *Harness) Events() []Event { return h.book.take() }

// Writes returns the writes that the controller has sent since it was last asked for,
// those that failed included.
func (h *Harness) Writes() []Request { return h.traffic.take() }

// Status returns the state that the controller is in, as in the manager.
func (h *Harness) Status() runner.Status { return h.runner.Snapshot()[0] }

// DebugHandler returns the controller's debug handler; nil if it has none or does not
// run.
func (h *Harness) DebugHandler() http.Handler { return h.runner.DebugHandler(h.configured.Name) }

// CheckHealth asks the controller how it is.
func (h *Harness) CheckHealth() error {
	_, err := h.runner.CheckHealth(h.t.Context(), h.configured.Name)
	return err
}

// checkLeaks fails the test if goroutines of the controller are left.
func (h *Harness) checkLeaks() {
	h.t.Helper()
	var left []string
	for range 200 {
		if left = h.brand.alive(); len(left) == 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	h.t.Errorf("controllertest: the controller has left goroutines behind:\n%s", strings.Join(left, "\n\n"))
}

// office is one term.
type office struct {
	epoch int64
	ctx   context.Context
}

var _ controllers.Term = (*office)(nil)

// Epoch implements controllers.Term.
func (o *office) Epoch() int64 { return o.epoch }

// Check implements controllers.Term.
func (o *office) Check() error {
	if o.ctx.Err() != nil {
		return &notLeader{"the term is over"}
	}
	return nil
}

// gate is the fence as the runner uses it.
type gate struct{ *fence }

var _ runner.Fence = gate{}

// Open implements runner.Fence.
func (g gate) Open(context.Context) error { g.set(fenceOpen); return nil }

// Shut implements runner.Fence.
func (g gate) Shut() { g.set(fenceShut) }
