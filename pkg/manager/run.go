// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package manager

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/component-base/metrics"
	"k8s.io/component-base/tracing"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/incumbent-io/incumbent/pkg/clients"
	"github.com/incumbent-io/incumbent/pkg/controllers"
	"github.com/incumbent-io/incumbent/pkg/controllers/runner"
	"github.com/incumbent-io/incumbent/pkg/leaderelection"
	"github.com/incumbent-io/incumbent/pkg/options"
	"github.com/incumbent-io/incumbent/pkg/preflight"
	"github.com/incumbent-io/incumbent/pkg/serving"
)

// host is one running manager.
type host struct {
	config          *options.Config
	started         time.Time
	identity        *leaderelection.Identity
	share           *leaderelection.Share
	metrics         metrics.KubeRegistry
	electionMetrics *leaderelection.Metrics
	queueMetrics    *queueMetrics
	pool            *clients.Pool
	events          *eventSource
	tracer          tracing.TracerProvider
	checker         *preflight.Checker
	groups          []*group       // the default group first
	every           *runner.Runner // the controllers that run on every replica
	file            *configFile    // nil without --config
	health          *health
}

// Run runs the manager until ctx ends and everything has stopped, or until it cannot
// go on. It returns nil after a complete stop: every controller has returned and each
// lease that was held is released. Otherwise the error says what was not complete.
func Run(ctx context.Context, config *options.Config) error {
	ctx = klog.NewContext(ctx, klog.LoggerWithName(klog.FromContext(ctx), config.Name))
	h, err := newHost(ctx, config)
	if err != nil {
		return err
	}
	return h.run(ctx)
}

// newHost wires the parts. The identity comes first: it tells at once whether this
// process may take its own leases over.
func newHost(ctx context.Context, config *options.Config) (*host, error) {
	h := &host{config: config, started: time.Now(), metrics: metrics.NewKubeRegistry(), share: leaderelection.NewShare()}
	logger := klog.FromContext(ctx)
	logger.Info("Starting", "version", options.Version(), "apiServer", config.REST.Host, "pod", klog.KRef(config.Pod.Namespace, config.Pod.Name))
	for _, c := range config.Controllers {
		logger.Info("Controller gate", "controller", c.Name, "enabled", c.Decision.Enabled, "reason", c.Decision.Reason)
	}
	var err error
	if h.identity, err = leaderelection.OpenIdentity(leaderelection.IdentityConfig{
		PodName: config.Pod.Name, PodUID: config.Pod.UID, Dir: config.Election.IdentityDir, Logger: logger,
	}); err != nil {
		return nil, err
	}
	h.electionMetrics = leaderelection.NewMetrics()
	if err := h.electionMetrics.Register(h.metrics); err != nil {
		return nil, err
	}
	if h.tracer, err = newTracer(ctx, config); err != nil {
		return nil, err
	}
	h.queueMetrics = newQueueMetrics(h.metrics)
	for _, c := range config.Controllers {
		h.queueMetrics.use(c.Name)
	}
	if h.events, err = newEventSource(config.Name, config.REST); err != nil {
		return nil, err
	}
	if h.pool, err = clients.NewPool(clients.PoolConfig{REST: config.REST}); err != nil {
		return nil, err
	}
	if h.checker, err = preflight.New(preflight.Config{REST: config.REST, OwnNamespace: config.Namespace}); err != nil {
		return nil, err
	}
	for _, lease := range config.Groups {
		g, err := newGroup(h, lease)
		if err != nil {
			return nil, fmt.Errorf("lease group %q: %w", lease.Name, err)
		}
		g.runner = h.newRunner(g.Name, g.newRun, g.noticed)
		h.groups = append(h.groups, g)
	}
	h.every = h.newRunner("", h.newUnledRun, h.noticed)
	for _, collector := range []metrics.StableCollector{newGroupMetrics(func() []*group { return h.groups }), newControllerMetrics(h.statuses), newInformerMetrics(h.pool.Snapshot)} {
		if err := h.metrics.CustomRegister(collector); err != nil {
			return nil, err
		}
	}
	if config.File != nil {
		h.file = newConfigFile(h)
	}
	h.health = newHealth(ctx, h)
	return h, nil
}

// newRunner makes the runner of one lease group, or of the controllers on every
// replica, whose group is empty.
func (h *host) newRunner(group string, newRun func(string, func()) (runner.RunParts, error), onChange func(before, after runner.Status)) *runner.Runner {
	return runner.New(runner.Config{
		Controllers: desired(h.config.Controllers, group),
		NewRun:      newRun,
		Check:       h.check,
		Cold:        h.config.Standby == options.StandbyCold && group != "",
		StopTimeout: h.config.Election.DrainTimeout,
		OnChange:    onChange,
	})
}

// desired returns what is wanted of the controllers of one lease group.
func desired(all []options.Controller, group string) (list []runner.Desired) {
	for _, c := range all {
		if c.LeaseGroup == group {
			list = append(list, runner.Desired{Controller: c.Configured, Enabled: c.Decision.Enabled, Reason: c.Decision.Reason})
		}
	}
	return list
}

func anyEnabled(list []runner.Desired) bool {
	for _, d := range list {
		if d.Enabled {
			return true
		}
	}
	return false
}

// statuses returns the status of every controller.
func (h *host) statuses() (list []runner.Status) {
	for _, r := range h.runners() {
		list = append(list, r.Snapshot()...)
	}
	return list
}

// runners yields every runner with its lease group, "" for that of every replica.
func (h *host) runners() iter.Seq2[string, *runner.Runner] {
	return func(yield func(string, *runner.Runner) bool) {
		for _, g := range h.groups {
			if !yield(g.Name, g.runner) {
				return
			}
		}
		yield("", h.every)
	}
}

// runner returns the runner of a lease group, "" for that of every replica.
func (h *host) runner(group string) *runner.Runner {
	for name, r := range h.runners() {
		if name == group {
			return r
		}
	}
	return nil
}

// check finds out about a controller's access.
func (h *host) check(ctx context.Context, access []controllers.Access) (runner.Verdict, error) {
	report, err := h.checker.Check(ctx, access)
	return h.verdict(access, report), err
}

// verdict says what a report means for a run.
func (h *host) verdict(access []controllers.Access, report preflight.Report) runner.Verdict {
	missing, _ := report.Blocked()
	v := runner.Verdict{Missing: missing, Served: map[schema.GroupVersionResource]bool{}}
	complete := true
	for _, a := range access {
		v.Served[a.Resource] = report.Has(a.Resource)
		complete = complete && v.Served[a.Resource]
	}
	if !complete {
		v.Recheck = func(ctx context.Context) (runner.Verdict, error) {
			report, err := h.checker.Recheck(ctx, access, report)
			return h.verdict(access, report), err
		}
	}
	return v
}

// newUnledRun makes what one run of a controller on every replica works with.
func (h *host) newUnledRun(name string, refused func()) (runner.RunParts, error) {
	parts, err := h.newRun(name, refused, clients.SetConfig{})
	parts.Fence = noFence{}
	return parts, err
}

func (h *host) newRun(name string, refused func(), config clients.SetConfig) (runner.RunParts, error) {
	config.REST, config.UserAgent, config.OnRefused = h.config.REST, h.config.REST.UserAgent+" "+name, refused
	config.Wrap = h.traced(config.Wrap)
	set, err := clients.NewSet(config)
	if err != nil {
		return runner.RunParts{}, fmt.Errorf("clients of controller %q: %w", name, err)
	}
	return runner.RunParts{Context: &controllers.Context{
		Name: name,
		Instance: controllers.Instance{
			Manager:      h.config.Name,
			Namespace:    h.config.Namespace,
			Identity:     h.identity.String(),
			PodName:      h.config.Pod.Name,
			PodNamespace: h.config.Pod.Namespace,
			PodUID:       h.config.Pod.UID,
		},
		Clients:   set,
		Informers: h.pool.View(name, refused),
		Clock:     clock.RealClock{},
		Metrics:   h.queueMetrics,
		Tracer:    h.tracer,
		Events:    h.events.recorderFor(name),
	}}, nil
}

// noFence is the fence of a controller that runs without leading: none.
type noFence struct{}

func (noFence) Open(context.Context) error { return nil }
func (noFence) Shut()                      {}

// run starts everything and stops it in order. ctx asks it to stop.
func (h *host) run(ctx context.Context) error {
	// Servers, events and informers go on until the leases are released; what ends
	// with ctx is the right to lead and to build controllers.
	background, stopBackground := context.WithCancel(context.WithoutCancel(ctx))
	var servants sync.WaitGroup
	defer servants.Wait()
	defer h.stopTracing(ctx)
	defer stopBackground()
	ctx, stop := context.WithCancel(ctx)
	defer stop()

	// The candidates start first: what a hand-over waits for is the lease.
	ended := h.startGroups(ctx)
	if h.config.Abort != nil {
		servants.Go(func() {
			select {
			case <-h.config.Abort:
				h.abandon()
			case <-background.Done():
			}
		})
	}
	h.events.start(background)
	servants.Go(func() {
		if err := h.pool.Run(background); err != nil {
			klog.FromContext(ctx).Error(err, "Informers have not stopped")
		}
	})
	stopped := h.startRunners(ctx)
	served := make(chan error, 1)
	if h.config.Serving != nil {
		server, err := serving.Listen(*h.config.Serving)
		if err != nil {
			stop()
			return errors.Join(err, h.await(ended, stop))
		}
		servants.Go(func() {
			err := server.Serve(background, h.handler())
			served <- err
			if err != nil {
				stop()
			}
		})
	}
	if h.file != nil {
		servants.Go(func() { h.file.follow(ctx) })
	}

	err := h.await(ended, stop)
	stop()
	err = h.finish(err, stopped)
	select {
	case fault := <-served: // it ends by itself only if it cannot serve
		err = errors.Join(fault, err)
	default:
	}
	return err
}

// startGroups has every lease group compete. What it returns gets one value from each
// group once it has ended.
func (h *host) startGroups(ctx context.Context) <-chan error {
	ended := make(chan error, len(h.groups))
	for _, g := range h.groups {
		g.wanted = anyEnabled(desired(h.config.Controllers, g.Name))
		go func() { ended <- g.run(ctx) }()
	}
	return ended
}

// startRunners builds the controllers, and runs those that do not wait for a lease.
// What it returns is closed when nothing of them is left.
func (h *host) startRunners(ctx context.Context) <-chan struct{} {
	var runners sync.WaitGroup
	for _, g := range h.groups {
		grouped := ctx
		if h.config.Election.Enabled {
			grouped = klog.NewContext(ctx, klog.LoggerWithValues(klog.FromContext(ctx), "lease", klog.KRef(g.LeaseNamespace, g.LeaseName)))
		}
		runners.Go(func() { g.runner.Live(grouped) })
	}
	runners.Go(func() { h.every.Live(ctx) })
	runners.Go(func() { h.every.Run(ctx) })
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		runners.Wait()
	}()
	return stopped
}

// await waits until every group has ended. The first that cannot go on ends all, for
// only a restart of the process helps it.
func (h *host) await(ended <-chan error, stop func()) error {
	var errs []error
	for range h.groups {
		if err := <-ended; err != nil {
			errs = append(errs, err)
			stop()
		}
	}
	return errors.Join(errs...)
}

// abandon ends all terms at once. Nothing is released.
func (h *host) abandon() {
	for _, g := range h.groups {
		g.current().Abandon()
	}
}

// finish waits for the controllers once the candidates have ended, and says what did
// not stop. A drained term leaves nothing to wait for but the controllers that run
// on every replica.
func (h *host) finish(err error, stopped <-chan struct{}) error {
	if err == nil {
		timeout := time.NewTimer(h.config.Election.DrainTimeout)
		defer timeout.Stop()
		select {
		case <-stopped:
			return nil
		case <-timeout.C:
			err = errors.New("the controllers did not stop in time")
		}
	}
	var stragglers []string
	for _, r := range h.runners() {
		stragglers = append(stragglers, r.Stragglers()...)
	}
	if len(stragglers) > 0 {
		return fmt.Errorf("%w; still running: %s", err, strings.Join(stragglers, ", "))
	}
	return err
}
