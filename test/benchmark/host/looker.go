// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package main

import (
	"context"
	"os"
	"strconv"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/incumbent-io/incumbent/pkg/controllers"
	"github.com/incumbent-io/incumbent/pkg/reconciler"
)

// looker reads every ConfigMap from the cache or, if EXPECTED says a number, does
// nothing and tells when it has done so first, and for that number of times. WORKERS is how many
// are reconciled at the same time.
func looker(name string) controllers.Registration {
	workers, _ := strconv.Atoi(os.Getenv("WORKERS"))
	expected, _ := strconv.ParseInt(os.Getenv("EXPECTED"), 10, 64)
	return controllers.Descriptor[controllers.NoOptions]{
		Name: name, Summary: "Looks at all ConfigMaps.",
		Access: func(controllers.NoOptions) []controllers.Access {
			return []controllers.Access{{Resource: configMaps, Verbs: []string{"list", "watch"}}}
		},
		Init: func(_ context.Context, c *controllers.Context, _ controllers.NoOptions) (controllers.Controller, error) {
			informer := c.Informers.Typed().Core().V1().ConfigMaps()
			reconcile := look(informer.Lister())
			if expected > 0 {
				reconcile = count(expected)
			}
			return reconciler.New(reconciler.Config[cache.ObjectName]{
				Name: c.Name, Metrics: c.Metrics, Tracer: c.Tracer, Clock: c.Clock, Workers: workers,
				Watches:   []reconciler.Watch[cache.ObjectName]{reconciler.Self[*corev1.ConfigMap](informer.Informer())},
				Reconcile: reconcile,
			})
		},
	}
}

type reconcile func(context.Context, cache.ObjectName) (reconciler.Result, error)

func look(lister corelisters.ConfigMapLister) reconcile {
	return func(_ context.Context, key cache.ObjectName) (reconciler.Result, error) {
		_, err := lister.ConfigMaps(key.Namespace).Get(key.Name)
		if apierrors.IsNotFound(err) {
			err = nil
		}
		return reconciler.Result{}, err
	}
}

func count(expected int64) reconcile {
	var done atomic.Int64
	return func(context.Context, cache.ObjectName) (reconciler.Result, error) {
		switch done.Add(1) {
		case 1:
			tell("first-of-all")
		case expected:
			tell("all-reconciled")
		}
		return reconciler.Result{}, nil
	}
}
