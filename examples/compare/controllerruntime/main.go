// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

// Command controllerruntime labels every ConfigMap, on controller-runtime.
package main

import (
	"context"
	"os"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
)

const label, value = "example.com/seen", "true"

type labeler struct{ client.Client }

// Reconcile implements reconcile.Reconciler.
func (l *labeler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	var configMap corev1.ConfigMap
	if err := l.Get(ctx, request.NamespacedName, &configMap); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err) // deleted
	}
	if configMap.Labels[label] == value {
		return ctrl.Result{}, nil
	}
	patch := []byte(`{"metadata":{"labels":{"` + label + `":"` + value + `"}}}`)
	return ctrl.Result{}, l.Patch(ctx, &configMap, client.RawPatch(types.MergePatchType, patch))
}

func main() {
	ctrl.SetLogger(klog.Background())
	mgr, err := ctrl.NewManager(ctrl.GetConfigOrDie(), ctrl.Options{
		LeaderElection:                true,
		LeaderElectionID:              "labeler",
		LeaderElectionReleaseOnCancel: true,
		Metrics:                       metricsserver.Options{BindAddress: os.Getenv("POD_IP") + ":8080"},
	})
	if err != nil {
		klog.Fatal(err)
	}
	err = ctrl.NewControllerManagedBy(mgr).For(&corev1.ConfigMap{}).Complete(&labeler{mgr.GetClient()})
	if err != nil {
		klog.Fatal(err)
	}
	if err := mgr.Start(ctrl.SetupSignalHandler()); err != nil {
		klog.Fatal(err)
	}
}
