// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package clients

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/ktesting"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var configMaps = schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}

// harness is a pool that runs against an API server, in a bubble.
type harness struct {
	*testing.T
	api  *apiServer
	pool *Pool
	logs *logs
}

// inBubble runs test in fake time, with a pool that runs and is stopped after it.
//
// Its watches last for ever, so that a test sees only those requests that it causes.
func inBubble(t *testing.T, test func(t *testing.T, h *harness)) {
	t.Helper()
	lasting := defaultTiming
	lasting.watchFor = 1000 * time.Hour
	inBubbleWith(t, lasting, test)
}

func inBubbleWith(t *testing.T, timing timing, test func(t *testing.T, h *harness)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		h := &harness{T: t, api: newAPIServer(t), logs: newLogs(t)}
		pool, err := newPool(PoolConfig{REST: h.api.config()}, timing)
		if err != nil {
			t.Fatal(err)
		}
		h.pool = pool
		ctx, cancel := context.WithCancel(klog.NewContext(t.Context(), h.logs.logger))
		ended := make(chan error, 1)
		go func() { ended <- pool.Run(ctx) }()
		synctest.Wait()
		defer func() {
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("Run returned %v, want nil", err)
			}
		}()
		test(t, h)
	})
}

// synced waits in fake time, because an API server may be slow.
func (h *harness) synced(view *Informers) {
	h.Helper()
	ctx, cancel := context.WithTimeout(h.Context(), time.Minute)
	defer cancel()
	if err := view.WaitForSync(ctx); err != nil {
		h.Fatal(err)
	}
	synctest.Wait()
}

// logs are what the pool has logged.
type logs struct {
	logger klog.Logger
	buffer ktesting.Buffer
}

func newLogs(t *testing.T) *logs {
	logger := ktesting.NewLogger(ktesting.NopTL{}, ktesting.NewConfig(ktesting.BufferLogs(true), ktesting.Verbosity(0)))
	return &logs{logger: logger, buffer: logger.GetSink().(ktesting.Underlier).GetBuffer()}
}

func (l *logs) lines(message string) int {
	n := 0
	for _, entry := range l.buffer.Data() {
		if entry.Message == message {
			n++
		}
	}
	return n
}

func TestViewsShareOneWatch(t *testing.T) {
	inBubble(t, func(t *testing.T, h *harness) {
		h.api.put("configmaps", "default", "a", nil)
		first, second := h.pool.View("first", nil), h.pool.View("second", nil)
		for _, view := range []*Informers{first, second} {
			lister := view.Typed().Core().V1().ConfigMaps().Lister()
			h.synced(view)
			if _, err := lister.ConfigMaps("default").Get("a"); err != nil {
				t.Error(err)
			}
		}
		if got := h.api.watches("configmaps"); got != 1 {
			t.Errorf("got %d watches, want 1", got)
		}
		first.Release()
		synctest.Wait()
		if got := h.api.watches("configmaps"); got != 1 {
			t.Errorf("after the first release: got %d watches, want 1", got)
		}
		second.Release()
		synctest.Wait()
		if got := h.api.watches("configmaps"); got != 0 {
			t.Errorf("after the last release: got %d watches, want 0", got)
		}
	})
}

func TestReleaseOfTheLastViewFreesTheMemory(t *testing.T) {
	inBubble(t, func(t *testing.T, h *harness) {
		h.api.put("configmaps", "default", "a", nil)
		view := h.pool.View("c", nil)
		lister := view.Typed().Core().V1().ConfigMaps().Lister()
		h.synced(view)
		cached, err := lister.ConfigMaps("default").Get("a")
		if err != nil {
			t.Fatal(err)
		}
		object := weak.Make(cached)
		view.Release()
		synctest.Wait()
		view, lister, cached = nil, nil, nil
		runtime.GC()
		runtime.GC()
		if object.Value() != nil {
			t.Error("an object of the cache is still in memory, want it collected")
		}
	})
}

// A crash loop builds the next run before it gives up the last one.
func TestCrashLoopListsNothingAgain(t *testing.T) {
	inBubble(t, func(t *testing.T, h *harness) {
		h.api.put("configmaps", "default", "a", nil)
		init := func() (*Informers, *recorder) {
			view := h.pool.View("c", nil)
			r := &recorder{}
			if _, err := view.Typed().Core().V1().ConfigMaps().Informer().AddEventHandler(r); err != nil {
				t.Fatal(err)
			}
			return view, r
		}
		view, _ := init()
		h.synced(view)
		h.api.take()
		for range 10 {
			old := view
			if err := old.Attach(); err != nil {
				t.Fatal(err)
			}
			if err := old.Detach(t.Context()); err != nil {
				t.Fatal(err)
			}
			var r *recorder
			view, r = init()
			old.Release()
			if err := view.Attach(); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if diff := cmp.Diff([]string{"add default/a"}, r.take()); diff != "" {
				t.Errorf("what the new run was told (-want +got):\n%s", diff)
			}
			if err := view.Detach(t.Context()); err != nil {
				t.Fatal(err)
			}
			next, _ := init()
			view.Release()
			view = next
		}
		if got := h.api.take(); len(got) != 0 {
			t.Errorf("ten restarts made the requests %v, want none", got)
		}
		view.Release()
	})
}

func TestCachesAreSeparateByScopeAndForm(t *testing.T) {
	inBubble(t, func(t *testing.T, h *harness) {
		h.api.put("configmaps", "one", "a", object{"labels": object{"app": "x", "tier": "y"}})
		h.api.put("configmaps", "two", "b", nil)
		view := h.pool.View("c", nil)
		defer view.Release()
		for _, tt := range []struct {
			name  string
			scope Scope
			want  []string
		}{
			{"everything", Scope{}, []string{"one/a", "two/b"}},
			{"a namespace", Scope{Namespace: "two"}, []string{"two/b"}},
			{"labels", Scope{LabelSelector: "app=x,tier=y"}, []string{"one/a"}},
			{"the same labels, written differently", Scope{LabelSelector: "tier==y, app = x"}, []string{"one/a"}},
			{"a namespace and labels", Scope{Namespace: "two", LabelSelector: "app=x"}, nil},
		} {
			narrowed := view.In(tt.scope)
			stores := map[string]cache.Store{
				"typed":    narrowed.Typed().Core().V1().ConfigMaps().Informer().GetStore(),
				"metadata": narrowed.Metadata(configMaps).Informer().GetStore(),
				"dynamic":  narrowed.Dynamic(configMaps).Informer().GetStore(),
			}
			h.synced(view)
			for form, store := range stores {
				got := store.ListKeys()
				slices.Sort(got)
				if diff := cmp.Diff(tt.want, got); diff != "" && len(tt.want)+len(got) > 0 {
					t.Errorf("%s, %s (-want +got):\n%s", tt.name, form, diff)
				}
			}
		}
		if got, want := h.api.watches("configmaps"), 4*3; got != want {
			t.Errorf("got %d watches, want %d: one per scope and form", got, want)
		}
	})
}

func TestObjectsAreTrimmedAndOfTheirForm(t *testing.T) {
	inBubble(t, func(t *testing.T, h *harness) {
		h.api.put("configmaps", "default", "a", object{"data": object{"k": "v"}})
		view := h.pool.View("c", nil)
		defer view.Release()
		typed := view.Typed().Core().V1().ConfigMaps()
		metadata, dynamic := view.Metadata(configMaps), view.Dynamic(configMaps)
		typed.Informer()
		h.synced(view)

		object, err := typed.Lister().ConfigMaps("default").Get("a")
		if err != nil || object.Data["k"] != "v" {
			t.Errorf("typed: got %v, %v, want the data", object, err)
		}
		partial, err := metadata.Lister().ByNamespace("default").Get("a")
		if _, ok := partial.(*metav1.PartialObjectMetadata); err != nil || !ok {
			t.Errorf("metadata: got %T, %v", partial, err)
		}
		whole, err := dynamic.Lister().ByNamespace("default").Get("a")
		if u, ok := whole.(*unstructured.Unstructured); err != nil || !ok || u.Object["data"] == nil {
			t.Errorf("dynamic: got %T, %v", whole, err)
		}
		for form, o := range map[string]any{"typed": object, "metadata": partial, "dynamic": whole} {
			if got := o.(metav1.Object).GetManagedFields(); len(got) != 0 {
				t.Errorf("%s: got managedFields %v, want none", form, got)
			}
		}
	})
}

func TestCachesAskForTheEncodingOfTheirForm(t *testing.T) {
	const protobuf = "application/vnd.kubernetes.protobuf"
	for _, tt := range []struct {
		name         string
		contentType  string
		ask          func(*Informers)
		wantProtobuf bool
	}{
		{"typed, when REST says protobuf", protobuf, func(i *Informers) { i.Typed().Core().V1().ConfigMaps().Informer() }, true},
		{"typed, when REST says JSON", "application/json", func(i *Informers) { i.Typed().Core().V1().ConfigMaps().Informer() }, false},
		{"metadata", protobuf, func(i *Informers) { i.Metadata(configMaps) }, true},
		{"dynamic", protobuf, func(i *Informers) { i.Dynamic(configMaps) }, false},
		{"generated code", protobuf, func(i *Informers) { i.For(configMaps, &corev1.ConfigMap{}, generated) }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				api := newAPIServer(t)
				config := api.config()
				config.ContentType = tt.contentType
				config.AcceptContentTypes = tt.contentType + ",application/json"
				pool, err := NewPool(PoolConfig{REST: config})
				if err != nil {
					t.Fatal(err)
				}
				view := pool.View("c", nil)
				tt.ask(view)
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error)
				go func() { ended <- pool.Run(ctx) }()
				if err := view.WaitForSync(t.Context()); err != nil {
					t.Fatal(err)
				}
				if got := api.accept("configmaps"); strings.Contains(got, protobuf) != tt.wantProtobuf {
					t.Errorf("asks for %q, want protobuf: %v", got, tt.wantProtobuf)
				}
				cancel()
				<-ended
				view.Release()
			})
		})
	}
}

// A missing CRD or permission is the matter of those that use it.
func TestARefusedResourceHarmsNoOtherAndFillsNoLog(t *testing.T) {
	for _, code := range []int{http.StatusNotFound, http.StatusForbidden, http.StatusInternalServerError} {
		t.Run(http.StatusText(code), func(t *testing.T) {
			inBubble(t, func(t *testing.T, h *harness) {
				h.api.setRefuse(func(r *http.Request) int {
					if strings.Contains(r.URL.Path, "widgets") {
						return code
					}
					return 0
				})
				good, bad := h.pool.View("good", nil), h.pool.View("bad", nil)
				defer good.Release()
				defer bad.Release()
				good.Metadata(configMaps)
				bad.Metadata(schema.GroupVersionResource{Group: "example.com", Version: "v1", Resource: "widgets"})
				h.synced(good)
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				err := bad.WaitForSync(ctx)
				if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "widgets.example.com/v1 (metadata): ") ||
					!strings.Contains(err.Error(), "refused by the test") {
					t.Errorf("got %v, want the cache, its last error and the deadline", err)
				}
				if bad.HasSynced() || bad.Err() == nil || good.Err() != nil {
					t.Errorf("got HasSynced %v, Err %v of bad and %v of good", bad.HasSynced(), bad.Err(), good.Err())
				}
				if got := h.logs.lines("Cannot list or watch, will retry"); got != 1 {
					t.Errorf("an hour made %d log lines, want 1", got)
				}
				if got := len(h.api.take()); got > 500 {
					t.Errorf("an hour made %d requests, want client-go's back-off", got)
				}
				h.api.setRefuse(nil)
				h.synced(bad)
				if err := bad.Err(); err != nil {
					t.Errorf("once it is served: got Err %v, want nil", err)
				}
			})
		})
	}
}

func TestServersThatDoNotStreamListsAreListed(t *testing.T) {
	inBubble(t, func(t *testing.T, h *harness) {
		h.api.noStream = true
		h.api.put("configmaps", "default", "a", nil)
		view := h.pool.View("c", nil)
		defer view.Release()
		lister := view.Metadata(configMaps).Lister()
		h.synced(view)
		if _, err := lister.ByNamespace("default").Get("a"); err != nil {
			t.Error(err)
		}
		if took, err := h.contact(time.Minute); err != nil || took != 0 {
			t.Errorf("Contact returned %v after %v, want nil at once", err, took)
		}
	})
}

func TestPoolLifecycle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := newAPIServer(t)
		pool, err := NewPool(PoolConfig{REST: api.config()})
		if err != nil {
			t.Fatal(err)
		}
		view := pool.View("c", nil)
		defer view.Release()
		view.Metadata(configMaps)
		synctest.Wait()
		if got := api.take(); len(got) != 0 {
			t.Errorf("before Run: got requests %v, want none", got)
		}
		if err := pool.Contact(t.Context()); err != nil {
			t.Errorf("before Run: Contact returned %v, want nil", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- pool.Run(ctx) }()
		if err := view.WaitForSync(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := pool.Run(ctx); err == nil {
			t.Error("a second Run returned nil, want an error")
		}
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run returned %v, want nil", err)
		}
		late := pool.View("late", nil)
		defer late.Release()
		late.Metadata(schema.GroupVersionResource{Version: "v1", Resource: "secrets"})
		if err := late.WaitForSync(t.Context()); !errors.Is(err, errStopped) {
			t.Errorf("after Run: WaitForSync returned %v, want %v", err, errStopped)
		}
		if err := pool.Contact(t.Context()); err != nil {
			t.Errorf("after Run: Contact returned %v, want nil", err)
		}
	})
}

func TestPoolSaysWhatDoesNotStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := newAPIServer(t)
		api.put("configmaps", "default", "a", nil)
		pool, err := NewPool(PoolConfig{REST: api.config()})
		if err != nil {
			t.Fatal(err)
		}
		view := pool.View("c", nil)
		let := make(chan struct{})
		_, err = view.Metadata(configMaps).Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc: func(any) { <-let },
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := view.Attach(); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- pool.Run(ctx) }()
		if err := view.WaitForSync(t.Context()); err != nil {
			t.Fatal(err)
		}
		cancel()
		if err := <-ended; err == nil || !strings.Contains(err.Error(), "configmaps/v1 (metadata)") {
			t.Errorf("Run returned %v, want an error that names the cache", err)
		}
		close(let)
		view.Release()
	})
}

func TestNamesOfInformersAreFreeAgain(t *testing.T) {
	inBubble(t, func(t *testing.T, h *harness) {
		view := h.pool.View("c", nil)
		view.Metadata(configMaps)
		name := h.pool.name + "/configmaps/v1 (metadata)"
		if taken, err := cache.NewInformerName(name); err == nil {
			taken.Release()
			t.Errorf("while the cache lives, %q is free", name)
		}
		view.Release()
		taken, err := cache.NewInformerName(name)
		if err != nil {
			t.Errorf("after the release: %v", err)
		}
		taken.Release()
	})
}

func TestListersSelectByLabel(t *testing.T) {
	inBubble(t, func(t *testing.T, h *harness) {
		h.api.put("configmaps", "one", "a", object{"labels": object{"app": "x"}})
		h.api.put("configmaps", "one", "b", nil)
		view := h.pool.View("c", nil)
		defer view.Release()
		lister := view.Typed().Core().V1().ConfigMaps().Lister()
		h.synced(view)
		got, err := lister.ConfigMaps("one").List(labels.SelectorFromSet(labels.Set{"app": "x"}))
		if err != nil || len(got) != 1 || got[0].Name != "a" {
			t.Errorf("got %v, %v, want a", got, err)
		}
	})
}

// What the runs of many controllers do at once, while the pool starts. It is in
// real time, for the sake of real concurrency.
func TestViewsAreSafeForConcurrentUse(t *testing.T) {
	api := newAPIServer(t)
	for i := range 20 {
		api.put("configmaps", "default", fmt.Sprint(i), nil)
	}
	pool, err := NewPool(PoolConfig{REST: api.config()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- pool.Run(ctx) }()
	var controllers sync.WaitGroup
	for i := range 20 {
		controllers.Go(func() {
			for range 10 {
				if err := oneRun(t, pool, fmt.Sprint("c", i)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	controllers.Wait()
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if got := len(pool.caches); got != 0 {
		t.Errorf("%d caches are left, want none", got)
	}
}

func oneRun(t *testing.T, pool *Pool, owner string) error {
	view := pool.View(owner, nil)
	defer view.Release()
	r := &recorder{}
	informer := view.Typed().Core().V1().ConfigMaps().Informer()
	view.Metadata(configMaps)
	registration, err := informer.AddEventHandler(r)
	if err != nil {
		return err
	}
	if err := informer.AddIndexers(cache.Indexers{"color": by("color")}); err != nil {
		return err
	}
	if err := errors.Join(view.WaitForSync(t.Context()), view.Attach(), pool.Contact(t.Context())); err != nil {
		return err
	}
	<-registration.HasSyncedChecker().Done()
	if got := len(r.take()); got != 20 {
		return fmt.Errorf("%s was told of %d objects, want 20", owner, got)
	}
	if _, err := informer.GetIndexer().ByIndex("color", ""); err != nil {
		return err
	}
	return view.Detach(t.Context())
}
