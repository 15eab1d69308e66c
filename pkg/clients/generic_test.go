// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package clients

import (
	"context"
	"errors"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/cache"
)

// generated is the informer of a code generator from before contexts: its
// requests cannot be told from the context of the reflector, nor end with it.
func generated(b Build) cache.SharedIndexInformer {
	client := kubernetes.NewForConfigOrDie(b.Config)
	return cache.NewSharedIndexInformer(&cache.ListWatch{
		//lint:ignore SA1019 generated code of that age has nothing else
		ListFunc: func(options metav1.ListOptions) (runtime.Object, error) {
			b.Tweak(&options)
			return client.CoreV1().ConfigMaps(b.Namespace).List(context.TODO(), options)
		},
		//lint:ignore SA1019 generated code of that age has nothing else
		WatchFunc: func(options metav1.ListOptions) (watch.Interface, error) {
			b.Tweak(&options)
			return client.CoreV1().ConfigMaps(b.Namespace).Watch(context.TODO(), options)
		},
	}, &corev1.ConfigMap{}, 0, b.Indexers)
}

func TestInformersOfGeneratedCode(t *testing.T) {
	inBubble(t, func(t *testing.T, h *harness) {
		h.api.put("configmaps", "one", "a", object{"labels": object{"app": "x"}})
		h.api.put("configmaps", "two", "b", object{"labels": object{"app": "x"}})
		h.api.put("configmaps", "two", "c", nil)
		view := h.pool.View("c", nil).In(Scope{Namespace: "two", LabelSelector: "app=x"})
		informer := view.For(configMaps, &corev1.ConfigMap{}, generated)
		again := view.For(configMaps, &corev1.ConfigMap{}, generated)
		h.synced(view)
		if diff := cmp.Diff([]string{"two/b"}, informer.GetStore().ListKeys()); diff != "" {
			t.Errorf("objects (-want +got):\n%s", diff)
		}
		if got := h.api.watches("configmaps"); got != 1 || informer != again {
			t.Errorf("got %d watches, want 1", got)
		}
		object, _, _ := informer.GetStore().GetByKey("two/b")
		if got := object.(metav1.Object).GetManagedFields(); len(got) != 0 {
			t.Errorf("got managedFields %v, want none", got)
		}
		if got, err := informer.GetIndexer().ByIndex(cache.NamespaceIndex, "two"); err != nil || len(got) != 1 {
			t.Errorf("by namespace: got %v, %v", got, err)
		}
		h.api.network.set(networkDropping)
		time.Sleep(time.Minute)
		h.api.put("configmaps", "two", "missed", map[string]any{"labels": map[string]any{"app": "x"}})
		h.api.network.set(networkUp)
		if took, err := h.contact(time.Minute); err != nil || took > 2*time.Second {
			t.Errorf("Contact returned %v after %v, want nil within 2s", err, took)
		}

		if got := h.api.network.dialed(); got > 5 {
			t.Errorf("dialed %d times, want one connection for all but what the outage took", got)
		}
		view.Release()
	})
}

// Requests that carry no context end with the cache all the same.
func TestReleaseEndsWhatTheAPIServerNeverAnswers(t *testing.T) {
	inBubble(t, func(t *testing.T, h *harness) {
		h.api.setRefuse(func(r *http.Request) int {
			if strings.Contains(r.URL.Path, "configmaps") {
				<-r.Context().Done()
			}
			return 0
		})
		view := h.pool.View("c", nil)
		view.For(configMaps, &corev1.ConfigMap{}, generated)
		view.Metadata(configMaps)
		time.Sleep(time.Minute)
		view.Release()
		synctest.Wait()
		h.pool.mu.Lock()
		defer h.pool.mu.Unlock()
		if got := len(h.pool.alive); got != 0 {
			t.Errorf("%d informers still run, want none", got)
		}
	})
}

func TestABuilderThatFailsIsReported(t *testing.T) {
	for _, tt := range []struct {
		name  string
		build func(Build) cache.SharedIndexInformer
		want  string
	}{
		{"nil", func(Build) cache.SharedIndexInformer { return nil }, "the builder returned nil"},
		{"panic", func(Build) cache.SharedIndexInformer { panic("boom") }, "the builder panicked: boom"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, h *harness) {
				view := h.pool.View("c", nil)
				defer view.Release()
				view.For(configMaps, &corev1.ConfigMap{}, tt.build)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				if err := view.WaitForSync(ctx); err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("WaitForSync returned %v, want %q", err, tt.want)
				}
			})
		})
	}
}

// Informers that go their own way, like fakes, cannot hold up a take-over.
func TestContactIgnoresWhatDoesNotUseThePool(t *testing.T) {
	inBubble(t, func(t *testing.T, h *harness) {
		view := h.pool.View("c", nil)
		defer view.Release()
		client := fake.NewClientset(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "a"}})
		informer := view.For(configMaps, &corev1.ConfigMap{}, func(b Build) cache.SharedIndexInformer {
			return coreinformers.NewFilteredConfigMapInformer(client, b.Namespace, 0, b.Indexers, b.Tweak)
		})
		h.synced(view)
		if took, err := h.contact(time.Minute); err != nil || took != 0 {
			t.Errorf("Contact returned %v after %v, want nil at once", err, took)
		}
		if got := informer.GetStore().ListKeys(); len(got) != 1 {
			t.Errorf("got %v, want a", got)
		}
	})
}

func TestThePoolsClientsOnlyRead(t *testing.T) {
	inBubble(t, func(t *testing.T, h *harness) {
		view := h.pool.View("c", nil)
		defer view.Release()
		var client kubernetes.Interface
		view.For(configMaps, &corev1.ConfigMap{}, func(b Build) cache.SharedIndexInformer {
			client = kubernetes.NewForConfigOrDie(b.Config)
			return generated(b)
		})
		h.synced(view)
		h.api.take()
		_, err := client.CoreV1().ConfigMaps("default").Create(t.Context(), &corev1.ConfigMap{}, metav1.CreateOptions{})
		if !errors.Is(err, errWrite) || len(h.api.take()) != 0 {
			t.Errorf("got %v, want %v and no request", err, errWrite)
		}
	})
}

// Each group of client-go's factory goes through the view.
func TestTypedIsAFactory(t *testing.T) {
	inBubble(t, func(t *testing.T, h *harness) {
		view := h.pool.View("c", nil)
		defer view.Release()
		factory := view.Typed()
		groups := 0
		value := reflect.ValueOf(factory)
		for i := range value.NumMethod() {
			method := value.Type().Method(i)
			if method.Type.NumIn() != 1 || method.Type.NumOut() != 1 || method.Type.Out(0).Kind() != reflect.Interface {
				continue
			}
			groups++
			if group := value.Method(i).Call(nil)[0]; group.IsNil() {
				t.Errorf("%s is nil", method.Name)
			}
		}
		if groups < 20 {
			t.Errorf("found %d groups, want all of client-go's", groups)
		}
		if _, err := factory.ForResource(configMaps); err == nil || !strings.Contains(err.Error(), "Informers.Metadata or Informers.Dynamic") {
			t.Errorf("ForResource returned %v, want an error that says what to use", err)
		}
		informer := factory.Core().V1().ConfigMaps().Informer()
		factory.Start(nil)
		factory.StartWithContext(t.Context())
		if err := factory.WaitForCacheSyncWithContext(t.Context()).AsError(); err != nil {
			t.Error(err)
		}
		want := map[reflect.Type]bool{reflect.TypeFor[*corev1.ConfigMap](): true}
		if got := factory.WaitForCacheSync(t.Context().Done()); !reflect.DeepEqual(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
		factory.Shutdown()
		if informer.IsStopped() || h.api.watches("configmaps") != 1 {
			t.Error("Shutdown stopped a shared cache")
		}
	})
}
