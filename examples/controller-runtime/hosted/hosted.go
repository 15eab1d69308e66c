// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

// Package hosted runs controllers that were written for controller-runtime as one
// controller of Incumbent. Copy it: it is small, and depends on both.
//
//	Descriptor ─► build: a manager of controller-runtime for each run, its caches warm
//	              Run:   that manager, until the run is over
//
// Guarantees:
//   - The manager that Setup is given writes through the run's clients only: not before
//     this replica leads, and never once its term is over.
//   - Its own leader election, metrics server, health probes, profiling and signal
//     handling are off. Incumbent has them.
//   - Run returns when every reconcile has returned. What a reconcile writes until then
//     passes, as long as the term is valid. Its context has ended, as it has in
//     controller-runtime when a manager stops.
//   - An error that would end a manager of controller-runtime ends this run, and a new one
//     follows with backoff. Nothing else of the process notices.
//
// Not guaranteed: caches are controller-runtime's own, so they are not shared with other
// controllers of the process; webhooks are not served on standbys, so keep them apart; a
// panic outside of a reconcile ends the process; controller-runtime's metrics stay in its
// own registry.
package hosted

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/incumbent-io/incumbent/pkg/controllers"
)

// Controller says what to host. Name, Summary and Setup are required.
type Controller struct {
	// Name and Summary are those of controllers.Descriptor.
	Name, Summary string
	// Access is what the reconcilers need of the API server: what their RBAC markers say.
	Access []controllers.Access
	// Scheme knows the types that the reconcilers use. Default: client-go's.
	Scheme *runtime.Scheme
	// Warm are the types whose caches a standby fills, so that a take-over need not.
	// Without them a take-over takes as long as listing everything.
	Warm []client.Object
	// Setup adds the reconcilers, as it did before manager.Start. It is called once for
	// each run, so it must make new ones.
	Setup func(manager.Manager) error
}

// Descriptor registers the controller.
func (h Controller) Descriptor() controllers.Registration {
	return controllers.Descriptor[controllers.NoOptions]{
		Name:    h.Name,
		Summary: h.Summary,
		Access:  func(controllers.NoOptions) []controllers.Access { return h.Access },
		Init:    h.build,
	}
}

// run is one run of a manager of controller-runtime.
type run struct{ manager.Manager }

// Run implements controllers.Controller.
func (r run) Run(ctx context.Context) error { return r.Start(ctx) }

func (h Controller) build(ctx context.Context, c *controllers.Context, _ controllers.NoOptions) (controllers.Controller, error) {
	never, forever := "0", time.Duration(-1)
	mgr, err := manager.New(c.Clients.RESTConfig(), manager.Options{
		Scheme:                 h.Scheme,
		Logger:                 klog.FromContext(ctx),
		NewCache:               startedAlready(ctx),
		LeaderElection:         false,
		Metrics:                metricsserver.Options{BindAddress: never},
		HealthProbeBindAddress: never,
		PprofBindAddress:       never,
		// How long a stop may take is Incumbent's to judge (--drain-timeout).
		GracefulShutdownTimeout: &forever,
		// The names are unique in one run, and the next run has them again.
		Controller: config.Controller{SkipNameValidation: new(true)},
	})
	if err != nil {
		return nil, fmt.Errorf("manager of controller-runtime: %w", err)
	}
	if err := h.Setup(mgr); err != nil {
		return nil, fmt.Errorf("setup: %w", err)
	}
	if len(h.Warm) > 0 {
		c.WarmWhen(h.warm(ctx, mgr.GetCache()))
	}
	return run{mgr}, nil
}

// warm fills the caches, and returns what tells whether they are full.
func (h Controller) warm(ctx context.Context, caches cache.Cache) func() bool {
	var full atomic.Bool
	go func() {
		for _, object := range h.Warm {
			err := wait.PollUntilContextCancel(ctx, time.Second, true, func(ctx context.Context) (bool, error) {
				_, err := caches.GetInformer(ctx, object)
				if err != nil && ctx.Err() == nil {
					klog.FromContext(ctx).Error(err, "Cannot fill a cache, will retry", "type", fmt.Sprintf("%T", object))
				}
				return err == nil, nil
			})
			if err != nil {
				return // the build is discarded
			}
		}
		full.Store(true)
	}()
	return full.Load
}

// startedAlready makes caches that run from now on until ctx ends: on a standby, too.
func startedAlready(ctx context.Context) cache.NewCacheFunc {
	return func(config *rest.Config, options cache.Options) (cache.Cache, error) {
		caches, err := cache.New(config, options)
		if err != nil {
			return nil, err
		}
		go func() {
			if err := caches.Start(ctx); err != nil {
				klog.FromContext(ctx).Error(err, "The caches of controller-runtime have ended")
			}
		}()
		return running{caches}, nil
	}
}

// running are caches that need no start any more.
type running struct{ cache.Cache }

// Start implements manager.Runnable.
func (running) Start(ctx context.Context) error {
	<-ctx.Done()
	return nil
}
