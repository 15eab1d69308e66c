// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package clients

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/cbor/direct"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

var widgets = schema.GroupVersionResource{Group: "example.com", Version: "v1", Resource: "widgets"}

// The answers are what kube-apiserver 1.36 sends, byte for byte but for the longer
// texts.
func TestASetTellsOfRefusals(t *testing.T) {
	const (
		inJSON     = "application/json"
		inProtobuf = "application/vnd.kubernetes.protobuf"
		noObject   = `{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"configmaps \"a\" not found","reason":"NotFound","details":{"name":"a","kind":"configmaps"},"code":404}`
		noResource = `{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"the server could not find the requested resource","reason":"NotFound","details":{},"code":404}`

		noObjectInProtobuf   = "k8s\x00\n\f\n\x02v1\x12\x06Status\x12U\n\x06\n\x00\x12\x00\x1a\x00\x12\aFailure\x1a\x1bconfigmaps \"nope\" not found\"\bNotFound*\x18\n\x04nope\x12\x00\x1a\nconfigmaps(\x002\x000\x94\x03\x1a\x00\"\x00"
		noResourceInProtobuf = "k8s\x00\n\f\n\x02v1\x12\x06Status\x12\\\n\x06\n\x00\x12\x00\x1a\x00\x12\aFailure\x1a0the server could not find the requested resource\"\bNotFound*\n\n\x00\x12\x00\x1a\x00(\x002\x000\x94\x03\x1a\x00\"\x00"
	)
	inCBOR := func(details *metav1.StatusDetails) string {
		encoded, err := direct.Marshal(metav1.Status{Status: "Failure", Reason: metav1.StatusReasonNotFound, Code: 404, Details: details})
		if err != nil {
			t.Fatal(err)
		}
		return string(encoded)
	}
	for _, tt := range []struct {
		name, contentType, body string
		code                    int
		want                    int32
	}{
		{"forbidden", inJSON, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","code":403}`, 403, 1},
		{"forbidden, body unreadable", inProtobuf, "", 403, 1},
		{"custom resource not served", "text/plain; charset=utf-8", "404 page not found\n", 404, 1},
		{"aggregated API not served", "", "", 404, 1},
		{"built-in resource not served, in JSON", inJSON, noResource, 404, 1},
		{"built-in resource not served, in protobuf", inProtobuf, noResourceInProtobuf, 404, 1},
		{"built-in resource not served, in CBOR", "application/cbor", inCBOR(&metav1.StatusDetails{}), 404, 1},
		{"object not found, in JSON", inJSON, noObject, 404, 0},
		{"object not found, in protobuf", inProtobuf, noObjectInProtobuf, 404, 0},
		{"object not found, in CBOR", "application/cbor", inCBOR(&metav1.StatusDetails{Name: "a", Kind: "configmaps"}), 404, 0},
		{"conflict", inJSON, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Conflict","code":409}`, 409, 0},
		{"unavailable", "text/plain", "no endpoints", 503, 0},
		{"found", inJSON, `{"kind":"ConfigMap","apiVersion":"v1"}`, 200, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var told, fenced atomic.Int32
			set, err := NewSet(SetConfig{
				REST: &rest.Config{Host: "https://apiserver.test", Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
					answer := httptest.NewRecorder()
					answer.Header()["Content-Type"] = []string{tt.contentType}
					answer.WriteHeader(tt.code)
					_, _ = answer.WriteString(tt.body)
					return answer.Result(), nil
				})},
				OnRefused: func() { told.Add(1) },
				Wrap: func(next http.RoundTripper) http.RoundTripper {
					return roundTripper(func(r *http.Request) (*http.Response, error) {
						if r.Method != http.MethodGet {
							fenced.Add(1)
							return nil, errFence
						}
						resp, err := next.RoundTrip(r)
						if err != nil {
							return resp, err
						}
						if body, err := io.ReadAll(resp.Body); err != nil || string(body) != tt.body {
							t.Errorf("got the body %q, %v, want %q", body, err, tt.body)
						}
						return resp, resp.Body.Close()
					})
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			_, _ = set.Kubernetes().CoreV1().ConfigMaps("d").Get(t.Context(), "a", metav1.GetOptions{})
			if got := told.Load(); got != tt.want {
				t.Errorf("OnRefused was called %d times, want %d", got, tt.want)
			}
			_, _ = set.Kubernetes().CoreV1().ConfigMaps("d").Create(t.Context(), &corev1.ConfigMap{}, metav1.CreateOptions{})
			if got := told.Load(); got != tt.want || fenced.Load() != 1 {
				t.Errorf("what the fence refused made it %d calls, want %d still", got, tt.want)
			}
		})
	}
}

func TestEveryClientOfASetTellsOfRefusals(t *testing.T) {
	api := httptest.NewServer(http.NotFoundHandler())
	defer api.Close()
	var told atomic.Int32
	set, err := NewSet(SetConfig{REST: &rest.Config{Host: api.URL}, OnRefused: func() { told.Add(1) }})
	if err != nil {
		t.Fatal(err)
	}
	fromConfig, err := rest.HTTPClientFor(set.RESTConfig())
	if err != nil {
		t.Fatal(err)
	}
	defer fromConfig.CloseIdleConnections()
	for name, ask := range map[string]func(){
		"Kubernetes": func() { _, _ = set.Kubernetes().CoreV1().Pods("d").Get(t.Context(), "a", metav1.GetOptions{}) },
		"Dynamic":    func() { _, _ = set.Dynamic().Resource(widgets).Get(t.Context(), "a", metav1.GetOptions{}) },
		"Metadata":   func() { _, _ = set.Metadata().Resource(widgets).Get(t.Context(), "a", metav1.GetOptions{}) },
		"RESTConfig": func() {
			if resp, err := fromConfig.Get(api.URL + "/apis/example.com/v1/widgets/a"); err == nil {
				_ = resp.Body.Close()
			}
		},
	} {
		before := told.Load()
		ask()
		if got := told.Load() - before; got != 1 {
			t.Errorf("%s: OnRefused was called %d times, want 1", name, got)
		}
	}
}

// A missing CRD or permission is told to those whose caches lack it, at each
// attempt, and never once it is served.
func TestAViewIsToldOfRefusals(t *testing.T) {
	for _, tt := range []struct {
		code int
		want bool
	}{
		{http.StatusForbidden, true}, {http.StatusNotFound, true},
		{http.StatusInternalServerError, false}, {http.StatusServiceUnavailable, false}, {http.StatusUnprocessableEntity, false},
	} {
		t.Run(http.StatusText(tt.code), func(t *testing.T) {
			inBubble(t, func(t *testing.T, h *harness) {
				var attempts, told, toldGood, toldLate atomic.Int32
				h.api.setRefuse(func(r *http.Request) int {
					if strings.Contains(r.URL.Path, "widgets") {
						attempts.Add(1)
						return tt.code
					}
					return 0
				})
				good := h.pool.View("good", func() { toldGood.Add(1) })
				var bad *Informers
				bad = h.pool.View("bad", func() {
					told.Add(1)
					// Whoever is told may ask the view and the pool: no lock is held.
					_ = bad.Err()
					bad.In(Scope{Namespace: "x"}).HasSynced()
					_ = h.pool.Contact(t.Context())
				})
				good.Metadata(configMaps)
				bad.Metadata(widgets)
				h.synced(good)
				time.Sleep(time.Hour)
				synctest.Wait()
				if got := told.Load(); tt.want && (got == 0 || got > attempts.Load()) || !tt.want && got != 0 {
					t.Errorf("told %d times of %d attempts, want once per attempt: %v", got, attempts.Load(), tt.want)
				}
				if got := toldGood.Load(); got != 0 {
					t.Errorf("another view was told %d times, want never", got)
				}

				late := h.pool.View("late", func() { toldLate.Add(1) })
				late.Metadata(widgets)
				if got := toldLate.Load(); (got == 1) != tt.want {
					t.Errorf("a view that asks for a cache which is refused already was told %d times at once, want once: %v", got, tt.want)
				}
				late.Metadata(widgets)
				if got := toldLate.Load(); tt.want && got != 1 {
					t.Errorf("asking once more made it %d times, want 1", got)
				}
				late.Release()
				time.Sleep(time.Hour)
				if got := toldLate.Load(); tt.want && got != 1 {
					t.Errorf("a released view was told, %d times in all, want 1", got)
				}

				h.api.setRefuse(nil)
				h.synced(bad)
				before := told.Load()
				time.Sleep(time.Hour)
				if got := told.Load() - before; got != 0 {
					t.Errorf("once it is served: told %d times, want never", got)
				}
				bad.Release()
				good.Release()
			})
		})
	}
}

// A CRD that is deleted ends its watches; the cache had synced before.
func TestAViewIsToldWhenASyncedCacheBecomesRefused(t *testing.T) {
	inBubble(t, func(t *testing.T, h *harness) {
		var told atomic.Int32
		view := h.pool.View("c", func() { told.Add(1) })
		defer view.Release()
		view.Metadata(widgets)
		h.synced(view)
		if got := told.Load(); got != 0 {
			t.Fatalf("told %d times of a resource that is served", got)
		}
		h.api.setRefuse(func(r *http.Request) int {
			if strings.Contains(r.URL.Path, "widgets") {
				return http.StatusNotFound
			}
			return 0
		})
		h.api.network.reset()
		// Refusals right after an outage are the API server's start until it settles.
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := told.Load(); got == 0 {
			t.Error("was not told, want at least once in a minute")
		}
	})
}

func TestRefusalsAreSafeForConcurrentUse(t *testing.T) {
	inBubble(t, func(t *testing.T, h *harness) {
		h.api.setRefuse(func(r *http.Request) int { return http.StatusForbidden })
		var told atomic.Int32
		var controllers sync.WaitGroup
		for i := range 10 {
			controllers.Go(func() {
				for range 20 {
					view := h.pool.View("c"+strconv.Itoa(i), func() { told.Add(1) })
					view.Metadata(widgets)
					time.Sleep(time.Duration(i) * 100 * time.Millisecond)
					view.Release()
				}
			})
		}
		controllers.Wait()
		if told.Load() == 0 {
			t.Error("nobody was told")
		}
	})
}

// The cache is freed whatever its users have hung on it, while the pool, another
// cache and other views of the same controllers live on.
func TestReleaseFreesACacheWithHandlersAndIndexes(t *testing.T) {
	const objects = 500
	inBubble(t, func(t *testing.T, h *harness) {
		for i := range objects {
			h.api.put("configmaps", "default", strconv.Itoa(i), object{"data": object{"color": "red"}})
		}
		h.api.put("pods", "default", "a", nil)
		stays := h.pool.View("stays", func() {})
		defer stays.Release()
		stays.Typed().Core().V1().Pods().Informer()

		cached, views := func() (cached []weak.Pointer[corev1.ConfigMap], views []weak.Pointer[view]) {
			users := []*Informers{h.pool.View("first", func() {}), h.pool.View("second", func() {})}
			for _, user := range users {
				informer := user.Typed().Core().V1().ConfigMaps().Informer()
				if _, err := informer.AddEventHandler(&recorder{}); err != nil {
					t.Fatal(err)
				}
				if err := informer.AddIndexers(cache.Indexers{"color": by("color")}); err != nil {
					t.Fatal(err)
				}
				h.synced(user)
				if err := user.Attach(); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				for _, obj := range informer.GetStore().List() {
					cached = append(cached, weak.Make(obj.(*corev1.ConfigMap)))
				}
			}
			for _, user := range users {
				views = append(views, weak.Make(user.view))
				if err := user.Detach(context.Background()); err != nil {
					t.Fatal(err)
				}
				user.Release()
			}
			return cached, views
		}()
		if len(cached) != 2*objects {
			t.Fatalf("saw %d objects, want %d", len(cached), 2*objects)
		}
		// Connections and timers may remember the last request for a moment.
		left := len(cached)
		for round := 0; left > 0 && round < 10; round++ {
			time.Sleep(time.Minute)
			synctest.Wait()
			runtime.GC()
			left = 0
			for _, object := range cached {
				if object.Value() != nil {
					left++
				}
			}
		}
		if left > 0 {
			t.Errorf("%d of %d references to objects are still in memory, want none", left, len(cached))
		}
		for i, v := range views {
			if v.Value() != nil {
				t.Errorf("view %d is still in memory", i)
			}
		}
		if !stays.HasSynced() || h.api.watches("pods") != 1 {
			t.Error("the cache of the other view has not lived on")
		}
	})
}
