// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

// Command faulty is a manager with four healthy controllers and one for each way in
// which a controller can go wrong. It works in the namespace FAULTY_NAMESPACE.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/incumbent-io/incumbent/pkg/clients"
	"github.com/incumbent-io/incumbent/pkg/controllers"
	"github.com/incumbent-io/incumbent/pkg/manager"
	"github.com/incumbent-io/incumbent/pkg/reconciler"
)

// poison is the name of the ConfigMap that handlers and index functions choke on.
const poison = "poison"

var (
	namespace  = os.Getenv("FAULTY_NAMESPACE")
	configMaps = schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}
	secrets    = schema.GroupVersionResource{Version: "v1", Resource: "secrets"}
	gadgets    = schema.GroupVersionResource{Group: "faulty.example.com", Version: "v1", Resource: "gadgets"}
	widgets    = schema.GroupVersionResource{Group: "faulty.example.com", Version: "v1", Resource: "widgets"}
)

// run makes a Controller of a function.
type run func(ctx context.Context) error

func (r run) Run(ctx context.Context) error { return r(ctx) }

func wait(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

func main() {
	registry := controllers.NewRegistry(
		healthy("healthy-1"), healthy("healthy-2"), healthy("healthy-3"), healthy("healthy-4"),
		faulty("error", nil, func(*controllers.Context) run {
			return func(context.Context) error { return errors.New("out of luck") }
		}),
		faulty("panics", nil, func(*controllers.Context) run {
			return func(context.Context) error { panic("out of my mind") }
		}),
		faulty("handler-panics", reads(configMaps), func(c *controllers.Context) run {
			_, err := informer(c).AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: func(object any) {
				if object.(*corev1.ConfigMap).Name == poison {
					panic("cannot stomach this")
				}
			}})
			return func(ctx context.Context) error { return errors.Join(err, wait(ctx)) }
		}),
		faulty("index-fails", reads(configMaps), func(c *controllers.Context) run {
			err := informer(c).AddIndexers(cache.Indexers{"taste": func(object any) ([]string, error) {
				if object.(*corev1.ConfigMap).Name == poison {
					return nil, errors.New("no index for this")
				}
				return nil, nil
			}})
			return func(ctx context.Context) error { return errors.Join(err, wait(ctx)) }
		}),
		faulty("returns-early", nil, func(*controllers.Context) run {
			return func(context.Context) error { return nil }
		}),
		faulty("hangs-on-stop", nil, func(*controllers.Context) run {
			return func(context.Context) error { select {} }
		}),
		faulty("needs-crd", reads(widgets), func(c *controllers.Context) run {
			c.Informers.In(clients.Scope{Namespace: namespace}).Dynamic(widgets).Informer()
			return wait
		}),
		faulty("lacks-permission", reads(secrets), func(c *controllers.Context) run {
			c.Informers.In(clients.Scope{Namespace: namespace}).Metadata(secrets).Informer()
			return wait
		}),
		controllers.Descriptor[controllers.NoOptions]{
			Name: "lazy", Summary: "Takes a second for each ConfigMap.", DisabledByDefault: true,
			Access: func(controllers.NoOptions) []controllers.Access { return reads(configMaps) },
			Init: func(_ context.Context, c *controllers.Context, _ controllers.NoOptions) (controllers.Controller, error) {
				return reconciler.New(reconciler.Config[cache.ObjectName]{
					Name: c.Name, Clock: c.Clock, Metrics: c.Metrics, Tracer: c.Tracer,
					Watches: []reconciler.Watch[cache.ObjectName]{reconciler.Self[*corev1.ConfigMap](informer(c))},
					Reconcile: func(ctx context.Context, _ cache.ObjectName) (reconciler.Result, error) {
						select {
						case <-time.After(time.Second):
						case <-ctx.Done():
						}
						return reconciler.Result{}, nil
					},
				})
			},
		},
		controllers.Descriptor[controllers.NoOptions]{
			Name: "never-warm", Summary: "Waits for a cache that is never filled.", DisabledByDefault: true,
			Init: func(_ context.Context, c *controllers.Context, _ controllers.NoOptions) (controllers.Controller, error) {
				c.WarmWhen(func() bool { return false })
				return run(wait), nil
			},
		},
		controllers.Descriptor[controllers.NoOptions]{
			Name: "outlives", Summary: "Forgets a goroutine, which writes on for seconds.", DisabledByDefault: true,
			Access: func(controllers.NoOptions) []controllers.Access {
				return []controllers.Access{{Resource: configMaps, Namespace: namespace, Verbs: []string{"create"}}}
			},
			Init: func(_ context.Context, c *controllers.Context, _ controllers.NoOptions) (controllers.Controller, error) {
				return run(func(ctx context.Context) error {
					go writeOn(ctx, c)
					return wait(ctx)
				}), nil
			},
		},
		controllers.Descriptor[controllers.NoOptions]{
			Name: "reads-gadgets", Summary: "Watches gadgets.", DisabledByDefault: true,
			Access: func(controllers.NoOptions) []controllers.Access { return reads(gadgets) },
			Init: func(_ context.Context, c *controllers.Context, _ controllers.NoOptions) (controllers.Controller, error) {
				c.Informers.In(clients.Scope{Namespace: namespace}).Dynamic(gadgets).Informer()
				return run(wait), nil
			},
		},
		controllers.Descriptor[controllers.NoOptions]{
			Name: "reads-secrets", Summary: "Reads every Secret, and tells nobody.", DisabledByDefault: true,
			Access: func(controllers.NoOptions) []controllers.Access {
				return []controllers.Access{{Resource: secrets, Namespace: namespace, Verbs: []string{"list", "watch"}}}
			},
			Init: func(_ context.Context, c *controllers.Context, _ controllers.NoOptions) (controllers.Controller, error) {
				c.Informers.In(clients.Scope{Namespace: namespace}).Typed().Core().V1().Secrets().Informer()
				return run(func(ctx context.Context) error {
					_, err := c.Clients.Kubernetes().CoreV1().Secrets(namespace).List(ctx, metav1.ListOptions{})
					return errors.Join(err, wait(ctx))
				}), nil
			},
		},
		controllers.Descriptor[controllers.NoOptions]{
			Name: "goroutine-panics", Summary: "Panics in a goroutine of its own making.", DisabledByDefault: true,
			Init: func(context.Context, *controllers.Context, controllers.NoOptions) (controllers.Controller, error) {
				return run(func(ctx context.Context) error {
					time.AfterFunc(6*time.Second, goroutinePanics) // a term that was not short-lived
					return wait(ctx)
				}), nil
			},
		},
	)
	os.Exit(manager.Main("faulty", registry))
}

func goroutinePanics() { panic("out of reach") }

// writeOn writes until 3 s after ctx has ended.
func writeOn(ctx context.Context, c *controllers.Context) {
	deaf, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	context.AfterFunc(ctx, func() { time.AfterFunc(3*time.Second, cancel) })
	for deaf.Err() == nil {
		object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "outlived"}}
		_, _ = c.Clients.Kubernetes().CoreV1().ConfigMaps(namespace).Create(deaf, object, metav1.CreateOptions{}) // it is there, or refused
		time.Sleep(50 * time.Millisecond)
	}
}

func reads(resource schema.GroupVersionResource) []controllers.Access {
	return []controllers.Access{{Resource: resource, Namespace: namespace, Verbs: []string{"list", "watch"}}}
}

func informer(c *controllers.Context) cache.SharedIndexInformer {
	return c.Informers.In(clients.Scope{Namespace: namespace}).Typed().Core().V1().ConfigMaps().Informer()
}

func faulty(name string, access []controllers.Access, build func(*controllers.Context) run) controllers.Registration {
	return controllers.Descriptor[controllers.NoOptions]{
		Name: name, Summary: "Goes wrong in the way that its name says.",
		Access: func(controllers.NoOptions) []controllers.Access { return access },
		Init: func(_ context.Context, c *controllers.Context, _ controllers.NoOptions) (controllers.Controller, error) {
			return build(c), nil
		},
	}
}

// healthy writes a ConfigMap of its name every 50 ms: who it is, and how often it has.
func healthy(name string) controllers.Registration {
	return controllers.Descriptor[controllers.NoOptions]{
		Name: name, Summary: "Counts in a ConfigMap.",
		Access: func(controllers.NoOptions) []controllers.Access {
			return []controllers.Access{{Resource: configMaps, Namespace: namespace, Verbs: []string{"create", "update"}}}
		},
		Init: func(_ context.Context, c *controllers.Context, _ controllers.NoOptions) (controllers.Controller, error) {
			return run(func(ctx context.Context) error {
				object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"progress": "true"}}}
				maps := c.Clients.Kubernetes().CoreV1().ConfigMaps(namespace)
				if _, err := maps.Create(ctx, object, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
					return err
				}
				for n := 0; ; n++ {
					object.Data = map[string]string{"by": c.Instance.Identity, "n": fmt.Sprint(n)}
					if _, err := maps.Update(ctx, object, metav1.UpdateOptions{}); err != nil && ctx.Err() == nil {
						klog.FromContext(ctx).Info("Cannot count", "err", err)
					}
					select {
					case <-time.After(50 * time.Millisecond):
					case <-ctx.Done():
						return nil
					}
				}
			}), nil
		},
	}
}
