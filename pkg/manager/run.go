// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package manager

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	clientgo "k8s.io/client-go/tools/leaderelection"
	"k8s.io/component-base/metrics"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/incumbent-io/incumbent/pkg/clients"
	"github.com/incumbent-io/incumbent/pkg/controllers"
	"github.com/incumbent-io/incumbent/pkg/controllers/runner"
	"github.com/incumbent-io/incumbent/pkg/leaderelection"
	"github.com/incumbent-io/incumbent/pkg/options"
	"github.com/incumbent-io/incumbent/pkg/serving"
)

// host is one running manager.
type host struct {
	config   *options.Config
	identity *leaderelection.Identity
	elector  *leaderelection.Elector
	metrics  metrics.KubeRegistry
	pool     *clients.Pool
	events   *eventSource
	led      *runner.Runner // the controllers that run only while leading
	every    *runner.Runner // the controllers that run on every replica
	health   *health
}

// Run runs the manager until ctx ends and everything has stopped, or until it cannot
// go on. It returns nil after a complete stop: every controller has returned and the
// lease, if it was held, is released. Otherwise the error says what was not complete.
func Run(ctx context.Context, config *options.Config) error {
	ctx = klog.NewContext(ctx, klog.LoggerWithName(klog.FromContext(ctx), config.Name))
	h, err := newHost(ctx, config)
	if err != nil {
		return err
	}
	return h.run(ctx)
}

// newHost wires the parts. The identity comes first: it tells at once whether this
// process may take its own lease over.
func newHost(ctx context.Context, config *options.Config) (*host, error) {
	h := &host{config: config, metrics: metrics.NewKubeRegistry()}
	logger := klog.FromContext(ctx)
	logger.Info("Starting", "version", options.Version(), "apiServer", config.REST.Host, "pod", klog.KRef(config.Pod.Namespace, config.Pod.Name))
	for _, decision := range config.Decisions {
		logger.Info("Controller gate", "controller", decision.Name, "enabled", decision.Enabled, "reason", decision.Reason)
	}
	var err error
	if h.identity, err = leaderelection.OpenIdentity(leaderelection.IdentityConfig{
		PodName: config.Pod.Name, PodUID: config.Pod.UID, Dir: config.Election.IdentityDir, Logger: logger,
	}); err != nil {
		return nil, err
	}
	if h.events, err = newEventSource(config.REST); err != nil {
		return nil, err
	}
	if h.pool, err = clients.NewPool(clients.PoolConfig{REST: config.REST}); err != nil {
		return nil, err
	}
	if h.elector, err = h.newElector(); err != nil {
		return nil, err
	}
	var led, every []*controllers.Configured
	for _, controller := range config.Enabled {
		if controller.EveryReplica {
			every = append(every, controller)
		} else {
			led = append(led, controller)
		}
	}
	h.led = runner.New(runner.Config{Controllers: led, NewRun: h.newLedRun})
	h.every = runner.New(runner.Config{Controllers: every, NewRun: h.newUnledRun})
	h.health = newHealth(ctx, h)
	return h, nil
}

func (h *host) newElector() (*leaderelection.Elector, error) {
	election := h.config.Election
	instruments := leaderelection.NewMetrics()
	if err := instruments.Register(h.metrics); err != nil {
		return nil, err
	}
	config := leaderelection.Config{
		Namespace:    election.Namespace,
		LeaseName:    election.LeaseName,
		Identity:     h.identity,
		REST:         h.config.REST,
		Timing:       election.Timing,
		DrainTimeout: election.DrainTimeout,
		OnLost:       election.OnLost,
		Callbacks: clientgo.LeaderCallbacks{OnStartedLeading: func(ctx context.Context) {
			h.led.Run(controllers.WithTerm(ctx, leaderelection.TermFrom(ctx)))
		}},
		Contact:     h.pool.Contact,
		ServerFence: election.Fencing,
		Events:      h.events.leaseRecorder(h.config.Name),
		Metrics:     instruments,
	}
	if !election.Enabled {
		return leaderelection.NewUnelected(config)
	}
	return leaderelection.New(config)
}

// newLedRun makes what one run of a controller that needs the lease works with.
func (h *host) newLedRun(name string) (runner.RunParts, error) {
	fence := h.elector.NewFence()
	parts, err := h.newRun(name, clients.SetConfig{REST: h.config.REST, UserAgent: h.userAgent(name), Wrap: fence.WrapTransport})
	parts.Fence = fence
	return parts, err
}

// newUnledRun makes what one run of a controller on every replica works with.
func (h *host) newUnledRun(name string) (runner.RunParts, error) {
	parts, err := h.newRun(name, clients.SetConfig{REST: h.config.REST, UserAgent: h.userAgent(name)})
	parts.Fence = noFence{}
	if err == nil {
		parts.Context.Instance.Lease, parts.Context.Instance.LeaseNamespace = "", ""
	}
	return parts, err
}

func (h *host) newRun(name string, config clients.SetConfig) (runner.RunParts, error) {
	set, err := clients.NewSet(config)
	if err != nil {
		return runner.RunParts{}, fmt.Errorf("clients of controller %q: %w", name, err)
	}
	instance := controllers.Instance{
		Manager:      h.config.Name,
		Identity:     h.identity.String(),
		PodName:      h.config.Pod.Name,
		PodNamespace: h.config.Pod.Namespace,
		PodUID:       h.config.Pod.UID,
	}
	if h.config.Election.Enabled {
		instance.Lease, instance.LeaseNamespace = h.config.Election.LeaseName, h.config.Election.Namespace
	}
	return runner.RunParts{Context: &controllers.Context{
		Name:      name,
		Instance:  instance,
		Clients:   set,
		Informers: h.pool.View(name),
		Clock:     clock.RealClock{},
		Events:    h.events.recorderFor(name),
	}}, nil
}

func (h *host) userAgent(controller string) string {
	return h.config.REST.UserAgent + " " + controller
}

// noFence is the fence of a controller that runs without leading: none.
type noFence struct{}

func (noFence) Open(context.Context) error { return nil }
func (noFence) Shut()                      {}

// run starts everything and stops it in order. ctx asks it to stop.
func (h *host) run(ctx context.Context) error {
	// Servers, events and informers go on until the lease is released; what ends
	// with ctx is the right to lead and to build controllers.
	background, stopBackground := context.WithCancel(context.WithoutCancel(ctx))
	var servants sync.WaitGroup
	defer servants.Wait()
	defer stopBackground()
	ctx, stop := context.WithCancel(ctx)
	defer stop()

	// The candidate starts first: what a hand-over waits for is the lease.
	elected := make(chan error, 1)
	go func() { elected <- h.elector.Run(ctx) }()
	if h.config.Abort != nil {
		servants.Go(func() {
			select {
			case <-h.config.Abort:
				h.elector.Abandon()
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

	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		var runners sync.WaitGroup
		runners.Go(func() { h.led.Live(ctx) })
		runners.Go(func() { h.every.Live(ctx) })
		runners.Go(func() { h.every.Run(ctx) })
		runners.Wait()
	}()

	served := make(chan error, 1)
	if h.config.Serving != nil {
		config := serving.Defaults(h.config.Name, h.config.Serving.BindPort)
		config.SecureServing, config.REST = h.config.Serving, h.config.REST
		server, err := serving.Listen(config)
		if err != nil {
			stop()
			return errors.Join(err, <-elected)
		}
		servants.Go(func() { served <- server.Serve(background, h.health.handler()) })
	}

	select {
	case err := <-elected:
		stop()
		return h.finish(err, stopped)
	case err := <-served:
		stop()
		return errors.Join(err, h.finish(<-elected, stopped))
	}
}

// finish waits for the controllers once the candidate has ended, and says what did
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
	if stragglers := append(h.led.Stragglers(), h.every.Stragglers()...); len(stragglers) > 0 {
		return fmt.Errorf("%w; still running: %s", err, strings.Join(stragglers, ", "))
	}
	return err
}
