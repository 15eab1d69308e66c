// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package leaderelection

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
	"k8s.io/apimachinery/pkg/api/validate/content"
	"k8s.io/client-go/rest"
	clientgo "k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// OnLost says what Run does once every callback of a lost term has returned.
type OnLost string

const (
	// Rejoin goes back to observing, with whatever is warm kept warm.
	Rejoin OnLost = "rejoin"
	// Exit makes Run return ErrLost.
	Exit OnLost = "exit"
)

// Config configures an Elector for one lease.
type Config struct {
	// Name is the lease group's name in logs and metrics. Default: LeaseName.
	Name string
	// Namespace and LeaseName name the Lease. Both are required.
	Namespace, LeaseName string
	// Identity is who this candidate is, shared by all electors of a process.
	// Default: a fresh identity from the host's name, without reclaim.
	Identity *Identity
	// REST is how to reach the API server. The Elector builds its own lease
	// clients from it, with their own connections and rate limit, and the
	// transport for guarded writes. A config with a Transport of its own (tests
	// have one) is used as it is, without those properties. Required.
	REST *rest.Config
	// Timing holds the durations of the lease. Default: 15 s, 10 s, 2 s, 1 s.
	Timing Timing
	// DrainTimeout is how long a drain may take when asked to stop. Default:
	// 30 s. It should be well below the Pod's termination grace period.
	DrainTimeout time.Duration
	// StopTimeout is how long the callbacks of a lost term may take to return.
	// Default: 10 s.
	StopTimeout time.Duration
	// OnLost says what to do after a lost term has stopped. Default: Rejoin.
	OnLost OnLost
	// Callbacks are client-go's, with these rules: OnStartedLeading blocks for
	// the term, and its return is the end of the drain; its context carries the
	// Term. OnStoppedLeading is called exactly once for each term whose
	// OnStartedLeading was called: at once when the lease is lost, after the
	// release otherwise. OnNewLeader is called in order, from one goroutine, for
	// each holder that differs from the one before. Only OnStartedLeading is
	// required.
	Callbacks clientgo.LeaderCallbacks
	// Contact returns when informers have heard from the API server since it was
	// called. OnStartedLeading is called after it, or after 10 s. Nil: no wait.
	Contact func(ctx context.Context) error
	// Events records events on the Lease; a record.EventRecorder fits. Nil:
	// none.
	Events resourcelock.EventRecorder
	// Share, from NewShare, is given to all electors of a process that compete for
	// several leases, to share them out between the processes. Nil: each takes what it
	// can get.
	Share *Share
	// Metrics, from NewMetrics, may be shared by several electors. Nil: none.
	Metrics *Metrics
	// ServerFence says that the fencing policy of manifests/components/fencing
	// guards the writes, too: the first writes of a term ride out its lag.
	ServerFence bool
	// Tracer makes a span for each lease write. Default: none.
	Tracer trace.TracerProvider
	// Clock is for tests. Nil: the machine's.
	Clock Clock

	// api replaces the lease clients in simulations.
	api leaseAPI
	// jitter returns a number in [0,1); simulations seed it.
	jitter func() float64
	// off switches safeguards off, to prove that the tests notice.
	off switches
}

// switches turn safeguards off. They exist for the tests of the tests: a
// simulation that does not fail without a safeguard proves nothing about it.
type switches struct {
	startOfRequest  bool // time a renewal from its answer
	cutoff          bool // let writes pass until the loss is noticed
	releaseCheck    bool // release whatever record is found
	resourceVersion bool // write without uid and version
}

// complete fills in the defaults and checks the rest.
func (c Config) complete() (Config, error) {
	var errs []error
	if c.Namespace == "" || c.LeaseName == "" {
		errs = append(errs, fmt.Errorf("lease %q in namespace %q: both names are required", c.LeaseName, c.Namespace))
	}
	for _, problem := range content.IsDNS1123Subdomain(c.LeaseName) {
		if c.LeaseName != "" {
			errs = append(errs, fmt.Errorf("lease name %q: %s", c.LeaseName, problem))
		}
	}
	if c.Name == "" {
		c.Name = c.LeaseName
	}
	if c.REST == nil && c.api == nil {
		errs = append(errs, errors.New("REST: a rest.Config is required to reach the API server"))
	}
	if c.Callbacks.OnStartedLeading == nil {
		errs = append(errs, errors.New("callbacks: OnStartedLeading is required"))
	}
	errs = append(errs, c.Timing.Validate()...)
	c.Timing = c.Timing.WithDefaults()
	if c.DrainTimeout == 0 {
		c.DrainTimeout = DefaultDrainTimeout
	}
	if c.StopTimeout == 0 {
		c.StopTimeout = DefaultStopTimeout
	}
	if c.DrainTimeout < 0 || c.StopTimeout < 0 {
		errs = append(errs, fmt.Errorf("DrainTimeout %v and StopTimeout %v: must be positive", c.DrainTimeout, c.StopTimeout))
	}
	switch c.OnLost {
	case "":
		c.OnLost = Rejoin
	case Rejoin, Exit:
	default:
		errs = append(errs, fmt.Errorf("OnLost %q: must be %q or %q", c.OnLost, Rejoin, Exit))
	}
	if c.Tracer == nil {
		c.Tracer = noop.NewTracerProvider()
	}
	if c.Clock == nil {
		c.Clock = systemClock{}
	}
	if c.jitter == nil {
		c.jitter = rand.Float64
	}
	if c.Metrics == nil {
		c.Metrics = NewMetrics()
	}
	if c.Identity == nil && len(errs) == 0 {
		identity, err := OpenIdentity(IdentityConfig{})
		if err != nil {
			errs = append(errs, err)
		}
		c.Identity = identity
	}
	return c, errors.Join(errs...)
}
