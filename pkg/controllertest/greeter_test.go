// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package controllertest_test

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	clientscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/cache"

	"github.com/incumbent-io/incumbent/pkg/controllers"
	"github.com/incumbent-io/incumbent/pkg/reconciler"
)

// configMaps is what most controllers here work on.
var configMaps = corev1.SchemeGroupVersion.WithResource("configmaps")

// greeter is the small controller of these tests: it labels every ConfigMap.
func greeter() controllers.Descriptor[controllers.NoOptions] {
	return controllers.Descriptor[controllers.NoOptions]{
		Name:    "greeter",
		Summary: "Greets every ConfigMap with a label.",
		Access: func(controllers.NoOptions) []controllers.Access {
			return []controllers.Access{{Resource: configMaps, Verbs: []string{"list", "watch", "patch"}}}
		},
		Init: func(_ context.Context, c *controllers.Context, _ controllers.NoOptions) (controllers.Controller, error) {
			maps := c.Informers.Typed().Core().V1().ConfigMaps()
			recorder := c.Events(clientscheme.Scheme)
			return reconciler.New(reconciler.Config[cache.ObjectName]{
				Name:    c.Name,
				Metrics: c.Metrics,
				Clock:   c.Clock,
				Watches: []reconciler.Watch[cache.ObjectName]{reconciler.Self[*corev1.ConfigMap](maps.Informer())},
				Reconcile: func(ctx context.Context, key cache.ObjectName) (reconciler.Result, error) {
					found, err := maps.Lister().ConfigMaps(key.Namespace).Get(key.Name)
					switch {
					case apierrors.IsNotFound(err):
						return reconciler.Result{}, nil
					case err != nil || found.Labels["greeting"] == "hello":
						return reconciler.Result{RequeueAfter: time.Hour}, err
					}
					want := applycorev1.ConfigMap(key.Name, key.Namespace).WithLabels(map[string]string{"greeting": "hello"})
					if _, err := c.Clients.Kubernetes().CoreV1().ConfigMaps(key.Namespace).Apply(ctx, want, metav1.ApplyOptions{FieldManager: c.Name, Force: true}); err != nil {
						return reconciler.Result{}, fmt.Errorf("label: %w", err)
					}
					recorder.Eventf(found, nil, corev1.EventTypeNormal, "Greeted", "Label", "Hello, %s", key.Name)
					return reconciler.Result{}, nil
				},
			})
		},
	}
}

func configMap(namespace, name string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
}
