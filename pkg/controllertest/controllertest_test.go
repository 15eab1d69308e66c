// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package controllertest_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"github.com/incumbent-io/incumbent/pkg/clients"
	"github.com/incumbent-io/incumbent/pkg/controllers"
	"github.com/incumbent-io/incumbent/pkg/controllertest"
	"github.com/incumbent-io/incumbent/pkg/reconciler"
)

func TestGreeter(t *testing.T) { testGreeter(t) }

// everywhere runs a test in a bubble and outside.
func everywhere(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	t.Run("bubble", func(t *testing.T) { synctest.Test(t, test) })
	t.Run("real time", test)
}

func TestSettleWaitsForAllThatFollows(t *testing.T) {
	everywhere(t, func(t *testing.T) {
		h := controllertest.Run(t, greeter(), controllertest.Config{Objects: []runtime.Object{configMap("a", "first")}})
		for i := range 200 {
			create(t, h, "b", fmt.Sprintf("m-%d", i))
		}
		h.Settle()
		list, err := h.Kubernetes.CoreV1().ConfigMaps("").List(t.Context(), metav1.ListOptions{LabelSelector: "greeting=hello"})
		if err != nil || len(list.Items) != 201 {
			t.Errorf("greeted: got %d, %v, want 201", len(list.Items), err)
		}
		if got := len(h.Writes()); got != 201 {
			t.Errorf("writes: got %d, want 201", got)
		}
		h.Settle()
		if got := h.Writes(); len(got) > 0 {
			t.Errorf("writes once settled: got %v, want none", got)
		}
	})
}

func TestAdvanceMovesTheClock(t *testing.T) {
	everywhere(t, func(t *testing.T) {
		ticks := make(chan time.Time, 100)
		d := greeter()
		d.Init = func(_ context.Context, c *controllers.Context, _ controllers.NoOptions) (controllers.Controller, error) {
			keys := make(chan string, 1)
			keys <- "key"
			return reconciler.New(reconciler.Config[string]{
				Name: c.Name, Metrics: c.Metrics, Clock: c.Clock, Watches: []reconciler.Watch[string]{reconciler.Channel(keys)},
				Reconcile: func(context.Context, string) (reconciler.Result, error) {
					ticks <- c.Clock.Now()
					return reconciler.Result{RequeueAfter: time.Hour}, nil
				},
			})
		}
		h := controllertest.Run(t, d, controllertest.Config{})
		h.Advance(59 * time.Minute)
		if got := len(ticks); got != 1 {
			t.Errorf("after 59 minutes: reconciled %d times, want 1", got)
		}
		h.Advance(2 * time.Minute)
		if got := len(ticks); got != 2 {
			t.Errorf("after 61 minutes: reconciled %d times, want 2", got)
		}
	})
}

func TestHandOver(t *testing.T) {
	everywhere(t, func(t *testing.T) {
		h := controllertest.Run(t, greeter(), controllertest.Config{})
		h.Stop()
		create(t, h, "a", "meanwhile")
		h.Settle()
		if got := h.Writes(); len(got) > 0 {
			t.Errorf("writes while it does not lead: got %v, want none", got)
		}
		h.Start()
		want := []controllertest.Request{{Verb: "patch", Resource: configMaps, Namespace: "a", Name: "meanwhile"}}
		if diff := cmp.Diff(want, h.Writes()); diff != "" {
			t.Errorf("writes of the next term (-want +got):\n%s", diff)
		}
	})
}

func TestOnWriteStandsInForTheAPIServer(t *testing.T) {
	everywhere(t, func(t *testing.T) {
		var once sync.Once
		h := controllertest.Run(t, greeter(), controllertest.Config{
			AllowErrors: []string{"the server is asleep"},
			OnWrite: func(controllertest.Request) (err error) {
				once.Do(func() { err = apierrors.NewInternalError(errors.New("the server is asleep")) })
				return err
			},
		})
		create(t, h, "a", "b")
		h.Settle()
		h.Advance(time.Second) // the retry
		if got := len(h.Events()); got != 1 {
			t.Errorf("events after the retry: got %d, want 1", got)
		}
	})
}

func TestAbsentResourceBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := controllertest.Run(t, greeter(), controllertest.Config{Absent: []schema.GroupVersionResource{configMaps}})
		if got := h.Status(); got.State != "blocked" {
			t.Errorf("state: got %s (%s), want blocked", got.State, got.Reason)
		}
	})
}

// faults are controllers that a test must not pass with.
func TestFaultsFailTheTest(t *testing.T) {
	run := func(f func(ctx context.Context, c *controllers.Context) error) controllers.Registration {
		d := greeter()
		d.Init = func(_ context.Context, c *controllers.Context, _ controllers.NoOptions) (controllers.Controller, error) {
			c.Informers.Typed().Core().V1().ConfigMaps().Informer()
			return runFunc(func(ctx context.Context) error {
				if err := f(ctx, c); err != nil {
					return err
				}
				<-ctx.Done()
				return nil
			}), nil
		}
		return d
	}
	release := make(chan struct{})
	defer close(release)
	tests := map[string]struct {
		registration controllers.Registration
		want         string
	}{
		"Run returns an error": {run(func(context.Context, *controllers.Context) error { return errors.New("no luck") }), "no luck"},
		"Run panics":           {run(func(context.Context, *controllers.Context) error { panic("no luck") }), "panic: no luck"},
		"an error is logged": {run(func(ctx context.Context, _ *controllers.Context) error {
			loggerOf(ctx).Error(errors.New("no luck"), "It went wrong")
			return nil
		}), "It went wrong err=no luck"},
		"a request that is not declared": {run(func(ctx context.Context, c *controllers.Context) error {
			_, err := c.Clients.Metadata().Resource(configMaps).Namespace("a").List(ctx, metav1.ListOptions{})
			if err == nil {
				err = c.Clients.Kubernetes().CoreV1().ConfigMaps("a").DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{})
			}
			return err
		}), `"deletecollection configmaps a/" is not covered`},
		"a goroutine is left": {run(func(context.Context, *controllers.Context) error {
			go func() { <-release }()
			return nil
		}), "has left goroutines behind"},
		"an Event without a reason": {run(func(_ context.Context, c *controllers.Context) error {
			c.Events(clientScheme).Eventf(configMap("a", "b"), nil, "Normal", "", "Do", "note")
			return nil
		}), "are both required"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := &record{TB: t}
			controllertest.Run(r, test.registration, controllertest.Config{})
			r.end()
			if !r.has(test.want) {
				t.Errorf("errors of the test: got %q, want one with %q", r.errors, test.want)
			}
			if len(r.errors) != 1 && name != "Run returns an error" && name != "Run panics" {
				t.Errorf("errors of the test: got %q, want one", r.errors)
			}
		})
	}
}

func TestInitAndEndedRunsCannotWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var kept *controllers.Context
		write := func(ctx context.Context) error {
			_, err := kept.Clients.Dynamic().Resource(configMaps).Namespace("a").Patch(ctx, "b", types.MergePatchType, []byte("{}"), metav1.PatchOptions{})
			return err
		}
		d := greeter()
		d.Init = func(ctx context.Context, c *controllers.Context, _ controllers.NoOptions) (controllers.Controller, error) {
			kept = c
			if err := write(ctx); !controllers.IsNotLeader(err) {
				t.Errorf("write in Init: got %v, want a refusal", err)
			}
			return runFunc(func(ctx context.Context) error {
				if err := write(ctx); err != nil {
					t.Errorf("write in Run: got %v, want none", err)
				}
				if err := controllers.TermFrom(ctx).Check(); err != nil {
					t.Errorf("term in Run: got %v, want a valid one", err)
				}
				<-ctx.Done()
				return nil
			}), nil
		}
		h := controllertest.Run(t, d, controllertest.Config{Objects: []runtime.Object{configMap("a", "b")}})
		h.Stop()
		if got := h.Writes(); len(got) != 1 {
			t.Errorf("writes: got %v, want the one of Run", got)
		}
	})
}

func TestInformersOfAllFormsShowTheSame(t *testing.T) {
	everywhere(t, func(t *testing.T) {
		var mu sync.Mutex
		seen := map[string]int{}
		count := func(form string) cache.ResourceEventHandlerFuncs {
			note := func(event string) func(any) {
				return func(object any) {
					m, err := meta.Accessor(object)
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					defer mu.Unlock()
					seen[form+" "+event+" "+m.GetName()]++
				}
			}
			update := note("update")
			return cache.ResourceEventHandlerFuncs{AddFunc: note("add"), UpdateFunc: func(_, after any) { update(after) }, DeleteFunc: note("delete")}
		}
		d := greeter()
		d.Init = func(_ context.Context, c *controllers.Context, _ controllers.NoOptions) (controllers.Controller, error) {
			for form, informer := range map[string]cache.SharedIndexInformer{
				"typed":    c.Informers.Typed().Core().V1().ConfigMaps().Informer(),
				"metadata": c.Informers.Metadata(configMaps).Informer(),
				"dynamic":  c.Informers.Dynamic(configMaps).Informer(),
				"labelled": c.Informers.In(clients.Scope{LabelSelector: "team=a"}).Typed().Core().V1().ConfigMaps().Informer(),
			} {
				if _, err := informer.AddEventHandler(count(form)); err != nil {
					return nil, err
				}
			}
			return runFunc(func(ctx context.Context) error { <-ctx.Done(); return nil }), nil
		}
		h := controllertest.Run(t, d, controllertest.Config{Objects: []runtime.Object{configMap("a", "old")}})
		create(t, h, "a", "new")
		maps := h.Kubernetes.CoreV1().ConfigMaps("a")
		h.Settle() // or the update would hide behind the addition
		for _, labels := range []string{`{"team":"a"}`, `{"team":null}`} {
			if _, err := maps.Patch(t.Context(), "new", types.MergePatchType, []byte(`{"metadata":{"labels":`+labels+`}}`), metav1.PatchOptions{}); err != nil {
				t.Fatal(err)
			}
			h.Settle()
		}
		if err := maps.Delete(t.Context(), "old", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		h.Settle()
		want := map[string]int{"labelled add new": 1, "labelled delete new": 1}
		for _, form := range []string{"typed", "metadata", "dynamic"} {
			want[form+" add old"], want[form+" add new"], want[form+" update new"], want[form+" delete old"] = 1, 1, 2, 1
		}
		mu.Lock()
		defer mu.Unlock()
		if diff := cmp.Diff(want, seen); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
	})
}

func create(t *testing.T, h *controllertest.Harness, namespace, name string) {
	t.Helper()
	if _, err := h.Kubernetes.CoreV1().ConfigMaps(namespace).Create(t.Context(), configMap(namespace, name), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}
