// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package clients

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/cache"
)

func TestTrackedTellsWhenHandlersKnowOfEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kubernetes := fake.NewClientset(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "b", ResourceVersion: "5"}})
		pool, err := NewPool(PoolConfig{Fakes: &Fakes{Kubernetes: kubernetes}, Name: t.Name()})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		stopped := make(chan error)
		go func() { stopped <- pool.Run(ctx) }()
		view := pool.View("tracker", nil)
		view.Track()
		hold := make(chan struct{})
		informer := view.Typed().Core().V1().ConfigMaps().Informer()
		for range 2 {
			if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{DeleteFunc: func(any) { <-hold }}); err != nil {
				t.Fatal(err)
			}
		}
		expect := func(when string, versions map[types.NamespacedName]string, told bool) {
			t.Helper()
			synctest.Wait()
			want := []Tracked{{Example: &corev1.ConfigMap{}, Versions: versions, Handlers: 2, Told: told}}
			if diff := cmp.Diff(want, view.Tracked()); diff != "" {
				t.Errorf("%s (-want +got):\n%s", when, diff)
			}
		}
		one := map[types.NamespacedName]string{{Namespace: "a", Name: "b"}: "5"}
		expect("before it is attached", one, false)
		if err := view.Attach(); err != nil {
			t.Fatal(err)
		}
		expect("attached", one, true)
		if err := kubernetes.CoreV1().ConfigMaps("a").Delete(ctx, "b", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		expect("while handlers are busy", map[types.NamespacedName]string{}, false)
		close(hold)
		expect("handlers are done", map[types.NamespacedName]string{}, true)
		if err := view.Detach(ctx); err != nil {
			t.Fatal(err)
		}
		view.Release()
		stop()
		if err := <-stopped; err != nil {
			t.Error(err)
		}
	})
}
