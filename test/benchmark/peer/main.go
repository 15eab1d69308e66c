// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

// Command peer is a manager of controller-runtime with one controller, which looks at
// every ConfigMap: what the benchmarks compare Incumbent with.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"

	corev1 "k8s.io/api/core/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
)

type looker struct{ client.Client }

// Reconcile implements reconcile.Reconciler.
func (l looker) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	var object corev1.ConfigMap
	return ctrl.Result{}, client.IgnoreNotFound(l.Get(ctx, request.NamespacedName, &object))
}

func main() {
	lease := flag.String("lease", "peer", "name of the lease")
	flag.Parse()
	if err := run(*lease); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(lease string) error {
	ctrl.SetLogger(zap.New())
	config, err := ctrl.GetConfig()
	if err != nil {
		return err
	}
	manager, err := ctrl.NewManager(config, ctrl.Options{
		LeaderElection: true, LeaderElectionID: lease, LeaderElectionNamespace: "default", LeaderElectionReleaseOnCancel: true,
		HealthProbeBindAddress: "127.0.0.1:0",
		Metrics:                metricsserver.Options{BindAddress: "127.0.0.1:0"},
	})
	if err != nil {
		return err
	}
	if err := ctrl.NewControllerManagedBy(manager).For(&corev1.ConfigMap{}).Complete(looker{manager.GetClient()}); err != nil {
		return err
	}
	return manager.Start(ctrl.SetupSignalHandler())
}
