// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

// Command incumbent labels every ConfigMap, on Incumbent.
package main

import (
	"context"
	"os"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"github.com/incumbent-io/incumbent/pkg/controllers"
	"github.com/incumbent-io/incumbent/pkg/manager"
	"github.com/incumbent-io/incumbent/pkg/reconciler"
)

const label, value = "example.com/seen", "true"

// newLabeler may be called before this replica leads: what it makes is kept warm.
func newLabeler(_ context.Context, c *controllers.Context, _ controllers.NoOptions) (controllers.Controller, error) {
	configMaps, core := c.Informers.Typed().Core().V1().ConfigMaps(), c.Clients.Kubernetes().CoreV1()
	return reconciler.New(reconciler.Config[cache.ObjectName]{
		Name:    c.Name,
		Metrics: c.Metrics,
		Watches: []reconciler.Watch[cache.ObjectName]{reconciler.Self[*corev1.ConfigMap](configMaps.Informer())},
		Reconcile: func(ctx context.Context, key cache.ObjectName) (reconciler.Result, error) {
			configMap, err := configMaps.Lister().ConfigMaps(key.Namespace).Get(key.Name)
			if apierrors.IsNotFound(err) {
				return reconciler.Result{}, nil // deleted
			}
			if err != nil || configMap.Labels[label] == value {
				return reconciler.Result{}, err
			}
			patch := []byte(`{"metadata":{"labels":{"` + label + `":"` + value + `"}}}`)
			_, err = core.ConfigMaps(key.Namespace).Patch(ctx, key.Name, types.MergePatchType, patch, metav1.PatchOptions{})
			return reconciler.Result{}, err
		},
	})
}

func main() {
	configMaps := corev1.SchemeGroupVersion.WithResource("configmaps")
	os.Exit(manager.Main("labeler", controllers.NewRegistry(controllers.Descriptor[controllers.NoOptions]{
		Name:    "labeler",
		Summary: "Labels every ConfigMap.",
		Access: func(controllers.NoOptions) []controllers.Access {
			return []controllers.Access{{Resource: configMaps, Verbs: []string{"list", "watch", "patch"}}}
		},
		Init: newLabeler,
	})))
}
