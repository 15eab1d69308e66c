// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package manager_test

import (
	"context"
	"os"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/cache"

	"github.com/incumbent-io/incumbent/pkg/controllers"
	"github.com/incumbent-io/incumbent/pkg/manager"
	"github.com/incumbent-io/incumbent/pkg/reconciler"
)

// newGreeter builds a controller that welcomes every namespace with a ConfigMap. It may
// run on a standby; what it builds works only while this replica leads.
func newGreeter(_ context.Context, c *controllers.Context, _ controllers.NoOptions) (controllers.Controller, error) {
	client, namespaces := c.Clients.Kubernetes(), c.Informers.Typed().Core().V1().Namespaces().Informer()
	return reconciler.New(reconciler.Config[cache.ObjectName]{
		Name:    c.Name,
		Metrics: c.Metrics,
		Watches: []reconciler.Watch[cache.ObjectName]{reconciler.Self[*corev1.Namespace](namespaces)},
		Reconcile: func(ctx context.Context, key cache.ObjectName) (reconciler.Result, error) {
			welcome := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "welcome"}}
			_, err := client.CoreV1().ConfigMaps(key.Name).Create(ctx, welcome, metav1.CreateOptions{})
			if apierrors.IsAlreadyExists(err) || apierrors.IsNotFound(err) {
				return reconciler.Result{}, nil
			}
			return reconciler.Result{}, err
		},
	})
}

func Example() {
	core := schema.GroupVersion{Version: "v1"}
	os.Exit(manager.Main("fleet-manager", controllers.NewRegistry(
		controllers.Descriptor[controllers.NoOptions]{
			Name:    "greeter",
			Summary: "Welcomes every namespace with a ConfigMap.",
			Access: func(controllers.NoOptions) []controllers.Access {
				return []controllers.Access{
					{Resource: core.WithResource("namespaces"), Verbs: []string{"list", "watch"}},
					{Resource: core.WithResource("configmaps"), Verbs: []string{"create"}},
				}
			},
			Init: newGreeter,
		},
	)))
}
