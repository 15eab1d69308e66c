// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package clients

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
)

// recorder is a handler that keeps what it is told.
type recorder struct {
	mu    sync.Mutex
	calls []string
}

func (r *recorder) OnAdd(obj any, _ bool)  { r.note("add", obj) }
func (r *recorder) OnUpdate(_, newObj any) { r.note("update", newObj) }
func (r *recorder) OnDelete(obj any)       { r.note("delete", obj) }
func (r *recorder) note(kind string, o any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls = append(r.calls, kind+" "+cache.MetaObjectToName(o.(metav1.Object)).String())
}

// take returns the calls since the last take, sorted.
func (r *recorder) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	taken := r.calls
	r.calls = nil
	slices.Sort(taken)
	return taken
}

func TestHandlersAreCalledFromAttachToDetach(t *testing.T) {
	inBubble(t, func(t *testing.T, h *harness) {
		h.api.put("configmaps", "default", "a", nil)
		view := h.pool.View("c", nil)
		defer view.Release()
		informer := view.Typed().Core().V1().ConfigMaps().Informer()
		early, late := &recorder{}, &recorder{}
		registration, err := informer.AddEventHandler(early)
		if err != nil {
			t.Fatal(err)
		}
		check := func(when string, r *recorder, want ...string) {
			t.Helper()
			synctest.Wait()
			if diff := cmp.Diff(want, r.take()); diff != "" {
				t.Errorf("%s (-want +got):\n%s", when, diff)
			}
		}
		h.synced(view)
		h.api.put("configmaps", "default", "b", nil)
		h.api.put("configmaps", "default", "c", nil)
		h.api.remove("configmaps", "default", "c")
		check("before Attach", early)
		done := registration.HasSyncedChecker().Done()
		if registration.HasSynced() || isClosed(done) {
			t.Error("before Attach: the registration has synced")
		}

		if err := view.Attach(); err != nil {
			t.Fatal(err)
		}
		check("at Attach", early, "add default/a", "add default/b")
		if !registration.HasSynced() || !isClosed(done) || !isClosed(registration.HasSyncedChecker().Done()) {
			t.Error("after the replay: the registration has not synced")
		}
		h.api.put("configmaps", "default", "a", nil)
		h.api.remove("configmaps", "default", "b")
		check("while attached", early, "delete default/b", "update default/a")
		if _, err := informer.AddEventHandlerWithResyncPeriod(late, time.Second); err != nil {
			t.Fatal(err)
		}
		check("a handler of the run", late, "add default/a")

		if err := informer.RemoveEventHandler(registration); err != nil {
			t.Error(err)
		}
		h.api.put("configmaps", "default", "a", nil)
		check("a removed handler", early)
		check("one that was not", late, "update default/a")

		if err := view.Detach(t.Context()); err != nil {
			t.Fatal(err)
		}
		h.api.put("configmaps", "default", "a", nil)
		check("after Detach", late)
		if _, err := informer.AddEventHandler(early); err == nil {
			t.Error("after Detach: a handler was added, want an error")
		}
		if err := view.Attach(); err == nil {
			t.Error("after Detach: attached again, want an error")
		}
	})
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestDetachWaitsForTheLastCall(t *testing.T) {
	inBubble(t, func(t *testing.T, h *harness) {
		h.api.put("configmaps", "default", "a", nil)
		h.api.put("configmaps", "default", "b", nil)
		view := h.pool.View("c", nil)
		defer view.Release()
		let, calls := make(chan struct{}), 0
		_, err := view.Metadata(configMaps).Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc: func(any) { calls++; <-let },
		})
		if err != nil {
			t.Fatal(err)
		}
		h.synced(view)
		if err := view.Attach(); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err = view.Detach(ctx)
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "configmaps/v1 (metadata)") {
			t.Errorf("got %v, want a deadline that names the handler", err)
		}
		detached := make(chan error, 1)
		go func() { detached <- view.Detach(t.Context()) }()
		synctest.Wait()
		if len(detached) != 0 {
			t.Error("Detach returned while a call was running")
		}
		close(let)
		if err := <-detached; err != nil {
			t.Error(err)
		}
		if calls != 1 {
			t.Errorf("got %d calls, want 1: none begins after Detach", calls)
		}
	})
}

var errHandler = errors.New("the handler's own error")

func TestAPanicFailsOnlyItsController(t *testing.T) {
	for _, tt := range []struct {
		name    string
		handler cache.ResourceEventHandlerFuncs
		want    string
	}{
		{"on add", cache.ResourceEventHandlerFuncs{AddFunc: func(any) { panic("boom on add") }}, "panicked: boom on add"},
		{"on update", cache.ResourceEventHandlerFuncs{UpdateFunc: func(any, any) { panic("boom on update") }}, "panicked: boom on update"},
		{"on delete", cache.ResourceEventHandlerFuncs{DeleteFunc: func(any) { panic("boom on delete") }}, "panicked: boom on delete"},
		{"with an error", cache.ResourceEventHandlerFuncs{AddFunc: func(any) { panic(errHandler) }}, errHandler.Error()},
		{"by Goexit", cache.ResourceEventHandlerFuncs{AddFunc: func(any) { runtime.Goexit() }}, "called runtime.Goexit"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, h *harness) {
				bad, good := h.pool.View("bad", nil), h.pool.View("good", nil)
				defer bad.Release()
				defer good.Release()
				r, sibling := &recorder{}, &recorder{}
				for _, add := range []struct {
					view    *Informers
					handler cache.ResourceEventHandler
				}{{bad, tt.handler}, {bad, sibling}, {good, r}} {
					if _, err := add.view.Typed().Core().V1().ConfigMaps().Informer().AddEventHandler(add.handler); err != nil {
						t.Fatal(err)
					}
				}
				h.synced(bad)
				for _, view := range []*Informers{bad, good} {
					if err := view.Attach(); err != nil {
						t.Fatal(err)
					}
				}
				h.api.put("configmaps", "default", "a", nil)
				h.api.put("configmaps", "default", "a", nil)
				h.api.remove("configmaps", "default", "a")
				h.api.put("configmaps", "default", "b", nil)
				synctest.Wait()

				select {
				case err := <-bad.Faults():
					if !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "handlers_test.go") {
						t.Errorf("got fault %v, want %q and its stack", err, tt.want)
					}
					if tt.want == errHandler.Error() && !errors.Is(err, errHandler) {
						t.Errorf("got %v, want it to wrap %v", err, errHandler)
					}
				default:
					t.Fatal("no fault was reported")
				}
				if len(bad.Faults()) != 0 || len(good.Faults()) != 0 {
					t.Error("more than one fault was reported")
				}
				want := []string{"add default/a", "add default/b", "delete default/a", "update default/a"}
				if diff := cmp.Diff(want, r.take()); diff != "" {
					t.Errorf("what another controller was told (-want +got):\n%s", diff)
				}
				sibling.take()
				h.api.put("configmaps", "default", "c", nil)
				synctest.Wait()
				if got := sibling.take(); len(got) != 0 {
					t.Errorf("another handler of the failed controller was told %v, want nothing", got)
				}
				if err := bad.Detach(t.Context()); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestAViewThatIsReleasedServesNothing(t *testing.T) {
	inBubble(t, func(t *testing.T, h *harness) {
		view := h.pool.View("c", nil)
		informer := view.Metadata(configMaps).Informer()
		h.synced(view)
		view.Release()
		view.Release()
		synctest.Wait()
		h.api.take()
		fresh := view.Typed().Core().V1().Secrets().Informer()
		for name, informer := range map[string]cache.SharedIndexInformer{"an old informer": informer, "a new informer": fresh} {
			if _, err := informer.AddEventHandler(&recorder{}); err == nil {
				t.Errorf("%s: a handler was added, want an error", name)
			}
			if err := informer.AddIndexers(cache.Indexers{"x": nil}); err == nil {
				t.Errorf("%s: an index was added, want an error", name)
			}
		}
		if err := view.Attach(); err == nil {
			t.Error("Attach returned nil, want an error")
		}
		if err := view.Detach(t.Context()); err != nil {
			t.Errorf("Detach returned %v, want nil", err)
		}
		synctest.Wait()
		if got := h.api.take(); len(got) != 0 {
			t.Errorf("got requests %v, want none", got)
		}
	})
}

func TestReleaseOfARunningViewStopsItsHandlers(t *testing.T) {
	inBubble(t, func(t *testing.T, h *harness) {
		view, other := h.pool.View("c", nil), h.pool.View("other", nil)
		defer other.Release()
		other.Metadata(configMaps)
		r := &recorder{}
		if _, err := view.Metadata(configMaps).Informer().AddEventHandler(r); err != nil {
			t.Fatal(err)
		}
		h.synced(view)
		if err := view.Attach(); err != nil {
			t.Fatal(err)
		}
		view.Release()
		h.api.put("configmaps", "default", "a", nil)
		synctest.Wait()
		if got := r.take(); len(got) != 0 {
			t.Errorf("a released view was told %v, want nothing", got)
		}
	})
}

// A controller may add and remove handlers for as long as it runs.
func TestRemovedHandlersAreForgotten(t *testing.T) {
	inBubble(t, func(t *testing.T, h *harness) {
		view := h.pool.View("c", nil)
		defer view.Release()
		informer := view.Metadata(configMaps).Informer()
		h.synced(view)
		if err := view.Attach(); err != nil {
			t.Fatal(err)
		}
		for range 100 {
			registration, err := informer.AddEventHandler(&recorder{})
			if err != nil {
				t.Fatal(err)
			}
			if err := informer.RemoveEventHandler(registration); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		if got := len(view.view.handlers); got > 1 {
			t.Errorf("%d handlers are kept, want at most the last", got)
		}
	})
}

func TestInformersRefuseWhatWouldChangeTheSharedCache(t *testing.T) {
	inBubble(t, func(t *testing.T, h *harness) {
		view, other := h.pool.View("c", nil), h.pool.View("other", nil)
		defer view.Release()
		defer other.Release()
		informer := view.Metadata(configMaps).Informer()
		registration, err := other.Metadata(configMaps).Informer().AddEventHandler(&recorder{})
		if err != nil {
			t.Fatal(err)
		}
		h.synced(view)
		informer.Run(nil)
		informer.RunWithContext(t.Context())
		informer.GetController().RunWithContext(t.Context())
		for name, err := range map[string]error{
			"SetTransform":                    informer.SetTransform(nil),
			"SetWatchErrorHandler":            informer.SetWatchErrorHandler(nil),
			"SetWatchErrorHandlerWithContext": informer.SetWatchErrorHandlerWithContext(nil),
			"RemoveEventHandler":              informer.RemoveEventHandler(registration),
			"Add":                             informer.GetStore().Add(nil),
			"Update":                          informer.GetStore().Update(nil),
			"Delete":                          informer.GetStore().Delete(nil),
			"Replace":                         informer.GetStore().Replace(nil, ""),
			"AddEventHandler(nil)":            second(informer.AddEventHandler(nil)),
		} {
			if err == nil {
				t.Errorf("%s returned nil, want an error", name)
			}
		}
		if !informer.HasSynced() || informer.IsStopped() || informer.LastSyncResourceVersion() == "" {
			t.Error(fmt.Sprint("got HasSynced ", informer.HasSynced(), ", IsStopped ", informer.IsStopped(), " and version ", informer.LastSyncResourceVersion()))
		}
	})
}

func second[T any](_ T, err error) error { return err }
