// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

// Command peer is a manager of controller-runtime with one controller, which looks at
// every ConfigMap: what the benchmarks compare Incumbent with. It has the flags that
// the benchmarks start every program with.
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// looker reads every object from the cache.
type looker struct{ client.Client }

// Reconcile implements reconcile.Reconciler.
func (l looker) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	var object corev1.ConfigMap
	return ctrl.Result{}, client.IgnoreNotFound(l.Get(ctx, request.NamespacedName, &object))
}

// counter does nothing, and tells when it has done so first, and for the expected number
// of times.
type counter struct {
	expected int64
	done     *atomic.Int64
}

// Reconcile implements reconcile.Reconciler.
func (c counter) Reconcile(context.Context, ctrl.Request) (ctrl.Result, error) {
	switch c.done.Add(1) {
	case 1:
		tell("first-of-all")
	case c.expected:
		tell("all-reconciled")
	}
	return ctrl.Result{}, nil
}

// tell prints what happened and when, in nanoseconds since 1970.
func tell(what string) { fmt.Printf("EVENT %s %d\n", what, time.Now().UnixNano()) }

type settings struct {
	lease, address, port string
	workers              int
	expected             int64
	warm                 bool
}

func main() {
	var s settings
	flag.StringVar(&s.lease, "leader-elect-resource-name", "peer", "name of the lease")
	flag.StringVar(&s.address, "bind-address", "127.0.0.1", "address of the metrics")
	flag.StringVar(&s.port, "secure-port", "0", "port of the metrics")
	flag.IntVar(&s.workers, "workers", 1, "reconciles at the same time")
	flag.Int64Var(&s.expected, "expected", 0, "do nothing, and tell after so many reconciles; 0: read every object")
	flag.BoolVar(&s.warm, "warm", false, "fill the caches before leading")
	flag.Parse()
	if err := run(s); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(s settings) error {
	ctrl.SetLogger(zap.New())
	config, err := ctrl.GetConfig()
	if err != nil {
		return err
	}
	manager, err := ctrl.NewManager(config, ctrl.Options{
		LeaderElection: true, LeaderElectionID: s.lease, LeaderElectionNamespace: "default", LeaderElectionReleaseOnCancel: true,
		HealthProbeBindAddress: net.JoinHostPort(s.address, "0"),
		Metrics:                metricsserver.Options{BindAddress: net.JoinHostPort(s.address, s.port)},
	})
	if err != nil {
		return err
	}
	go func() {
		<-manager.Elected()
		tell("elected")
	}()
	var reconciler reconcile.Reconciler = looker{manager.GetClient()}
	if s.expected > 0 {
		reconciler = counter{s.expected, new(atomic.Int64)}
	}
	options := controller.Options{MaxConcurrentReconciles: s.workers, EnableWarmup: &s.warm}
	if err := ctrl.NewControllerManagedBy(manager).For(&corev1.ConfigMap{}).WithOptions(options).Complete(reconciler); err != nil {
		return err
	}
	return manager.Start(ctrl.SetupSignalHandler())
}
