// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

// Command controller-runtime hosts a controller that was written for controller-runtime,
// unchanged, in a manager of Incumbent.
package main

import (
	"os"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/incumbent-io/incumbent/pkg/controllers"
	"github.com/incumbent-io/incumbent/pkg/manager"

	"example.com/welcome-manager/hosted"
	"example.com/welcome-manager/welcome"
)

// newWelcome registers the welcome controller.
func newWelcome() controllers.Registration {
	core := schema.GroupVersion{Version: "v1"}
	return hosted.Controller{
		Name:    "welcome",
		Summary: "Keeps a ConfigMap with a text in every namespace that asks for one by " + welcome.Annotation + ".",
		Access: []controllers.Access{
			{Resource: core.WithResource("namespaces"), Verbs: []string{"list", "watch"}},
			{Resource: core.WithResource("configmaps"), Verbs: []string{"list", "watch", "create", "update"}},
			// An owner reference that blocks the owner's deletion.
			{Resource: core.WithResource("namespaces/finalizers"), Verbs: []string{"update"}},
		},
		Warm: []client.Object{&corev1.Namespace{}, &corev1.ConfigMap{}},
		Setup: func(mgr ctrl.Manager) error {
			return (&welcome.Reconciler{Client: mgr.GetClient()}).SetupWithManager(mgr)
		},
	}.Descriptor()
}

func main() {
	ctrl.SetLogger(klog.Background())
	os.Exit(manager.Main("welcome-manager", controllers.NewRegistry(newWelcome())))
}
