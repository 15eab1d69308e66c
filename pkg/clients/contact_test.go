// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package clients

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// contact calls Contact and returns how long it took, in fake time.
func (h *harness) contact(timeout time.Duration) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(h.Context(), timeout)
	defer cancel()
	began := time.Now()
	err := h.pool.Contact(ctx)
	return time.Since(began), err
}

func TestContactOnAHealthyConnectionIsOneRequest(t *testing.T) {
	inBubble(t, func(t *testing.T, h *harness) {
		view := h.pool.View("c", nil)
		defer view.Release()
		view.Typed().Core().V1().ConfigMaps().Informer()
		view.Metadata(schema.GroupVersionResource{Version: "v1", Resource: "secrets"})
		h.synced(view)
		h.api.take()
		took, err := h.contact(time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"GET /version"}, h.api.take()); diff != "" {
			t.Errorf("requests (-want +got):\n%s", diff)
		}
		if took != 0 {
			t.Errorf("took %v, want no time but the round trip's", took)
		}
	})
}

func TestContactWithoutCachesIsNoRequest(t *testing.T) {
	inBubble(t, func(t *testing.T, h *harness) {
		h.api.network.set(networkRefusing)
		if took, err := h.contact(time.Minute); err != nil || took != 0 {
			t.Errorf("got %v after %v, want nil at once", err, took)
		}
		if got := h.api.take(); len(got) != 0 {
			t.Errorf("got requests %v, want none", got)
		}
	})
}

// faults are outages: how they begin, and what ends them.
var faults = []struct {
	name       string
	begin, end func(*apiServer)
}{
	{"connection refused", func(s *apiServer) { s.network.set(networkRefusing) }, func(s *apiServer) { s.network.set(networkUp) }},
	{"packets dropped", func(s *apiServer) { s.network.set(networkDropping) }, func(s *apiServer) { s.network.set(networkUp) }},
	{"a gateway without an API server behind it", func(s *apiServer) {
		s.setRefuse(func(*http.Request) int { return http.StatusServiceUnavailable })
		s.network.reset()
	}, func(s *apiServer) { s.setRefuse(nil) }},
	{"connections that break again and again", func(s *apiServer) {
		s.setRefuse(func(r *http.Request) int {
			time.AfterFunc(100*time.Millisecond, s.network.reset)
			return 0
		})
		s.network.reset()
	}, func(s *apiServer) { s.setRefuse(nil) }},
	{"a process that starts and still denies everyone", func(s *apiServer) { s.network.set(networkRefusing) }, func(s *apiServer) {
		ready := time.Now().Add(700 * time.Millisecond)
		s.setRefuse(func(*http.Request) int {
			if time.Now().Before(ready) {
				return http.StatusForbidden
			}
			return 0
		})
		s.network.set(networkUp)
	}},
}

func TestCachesAreBackWithinTwoSecondsOfTheAPIServer(t *testing.T) {
	for _, fault := range faults {
		for _, outage := range []time.Duration{500 * time.Millisecond, 5 * time.Second, 60 * time.Second, 10 * time.Minute} {
			t.Run(fault.name+" for "+outage.String(), func(t *testing.T) {
				inBubble(t, func(t *testing.T, h *harness) {
					view := h.pool.View("c", nil)
					defer view.Release()
					lister := view.Typed().Core().V1().ConfigMaps().Lister()
					view.Metadata(schema.GroupVersionResource{Version: "v1", Resource: "secrets"})
					h.synced(view)
					time.Sleep(time.Hour)
					fault.begin(h.api)
					time.Sleep(outage)
					h.api.put("configmaps", "default", "missed", nil)
					synctest.Wait() // The server has sent it, in vain.
					fault.end(h.api)
					took, err := h.contact(time.Minute)
					if err != nil {
						t.Fatal(err)
					}
					if took > 2*time.Second {
						t.Errorf("back in contact %v after the API server, want at most 2s", took)
					}
					synctest.Wait()
					if _, err := lister.ConfigMaps("default").Get("missed"); err != nil {
						t.Errorf("after Contact the cache lacks what it had missed: %v", err)
					}
				})
			})
		}
	}
}

// Nobody calls Contact on a leader: pings find the dead connection.
func TestCachesRecoverByThemselves(t *testing.T) {
	for _, fault := range faults {
		for _, outage := range []time.Duration{10 * time.Second, time.Minute} {
			t.Run(fault.name+" for "+outage.String(), func(t *testing.T) {
				inBubble(t, func(t *testing.T, h *harness) {
					view := h.pool.View("c", nil)
					defer view.Release()
					lister := view.Typed().Core().V1().ConfigMaps().Lister()
					h.synced(view)
					h.api.take()
					fault.begin(h.api)
					time.Sleep(outage)
					h.api.put("configmaps", "default", "missed", nil)
					synctest.Wait() // The server has sent it, in vain.
					fault.end(h.api)
					time.Sleep(2 * time.Second)
					synctest.Wait()
					if _, err := lister.ConfigMaps("default").Get("missed"); err != nil {
						t.Errorf("2s after the API server was back: %v (%v)", err, view.Err())
					}
					if err := view.Err(); err != nil {
						t.Errorf("got Err %v, want nil", err)
					}
					if slices.Contains(h.api.take(), "LIST configmaps") {
						t.Error("the cache was listed again, want a watch from where it was")
					}
				})
			})
		}
	}
}

func TestAnOutageIsLoggedOncePerCause(t *testing.T) {
	inBubble(t, func(t *testing.T, h *harness) {
		view := h.pool.View("c", nil)
		defer view.Release()
		for _, resource := range []string{"configmaps", "secrets", "pods"} {
			view.Metadata(schema.GroupVersionResource{Version: "v1", Resource: resource})
		}
		h.synced(view)
		for range 20 {
			h.api.network.set(networkDropping)
			time.Sleep(30 * time.Second)
			h.api.network.set(networkRefusing)
			time.Sleep(30 * time.Second)
		}
		if err := view.Err(); err == nil || !strings.Contains(err.Error(), "secrets/v1 (metadata): ") {
			t.Errorf("during the outage: got Err %v, want what befell each cache", err)
		}
		h.api.network.set(networkUp)
		time.Sleep(2 * time.Second)
		if got := h.logs.lines("Caches are out of contact with the API server"); got > 3 {
			t.Errorf("got %d lines about the outage, want one for the reset, the silence and the refusal", got)
		}
		if got := h.logs.lines("Caches are back in contact with the API server"); got != 1 {
			t.Errorf("got %d lines about its end, want 1", got)
		}
		if got := h.logs.lines("Cannot list or watch, will retry"); got != 0 {
			t.Errorf("got %d lines about single caches, want 0", got)
		}
	})
}

func TestContactIsBoundedByItsContextAndSaysWhy(t *testing.T) {
	inBubble(t, func(t *testing.T, h *harness) {
		view := h.pool.View("c", nil)
		defer view.Release()
		view.Metadata(configMaps)
		h.synced(view)
		h.api.network.set(networkRefusing)
		took, err := h.contact(5 * time.Second)
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "connection refused") {
			t.Errorf("got %v, want a deadline with the reason", err)
		}
		if took != 5*time.Second {
			t.Errorf("returned after %v, want 5s", took)
		}
	})
}

// A watch that expired is followed by a new list: until that has arrived, the
// cache is old although a stream is open.
func TestContactWaitsForANewList(t *testing.T) {
	inBubble(t, func(t *testing.T, h *harness) {
		view := h.pool.View("c", nil)
		defer view.Release()
		lister := view.Typed().Core().V1().ConfigMaps().Lister()
		h.synced(view)
		time.Sleep(time.Minute)
		h.api.network.set(networkRefusing)
		h.api.put("configmaps", "default", "missed", nil)
		h.api.compact()
		h.api.setSlow(5 * time.Second)
		h.api.network.set(networkUp)
		took, err := h.contact(time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		if took < 5*time.Second || took > 7*time.Second {
			t.Errorf("took %v, want the 5s of the list and little more", took)
		}
		synctest.Wait()
		if _, err := lister.ConfigMaps("default").Get("missed"); err != nil {
			t.Error(err)
		}
	})
}

// The API server asks clients to leave a connection; its watches stay there.
func TestContactMovesWatchesThatAreOnAnotherConnection(t *testing.T) {
	inBubble(t, func(t *testing.T, h *harness) {
		view := h.pool.View("c", nil)
		defer view.Release()
		view.Metadata(configMaps)
		h.synced(view)
		time.Sleep(time.Minute)
		h.pool.active()[0].stream.conn = nil // As if the watch were elsewhere.
		h.api.take()
		took, err := h.contact(time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"GET /version", "WATCH configmaps"}, h.api.take()); diff != "" {
			t.Errorf("requests (-want +got):\n%s", diff)
		}
		if want := h.pool.link.timing.quiet; took != want {
			t.Errorf("took %v, want no time but the round trips' and the %v of quiet", took, want)
		}
	})
}

// A watch that is resumed after an outage brings what the cache missed a moment
// after the header of its answer.
func TestContactWaitsForWhatAResumedWatchMissed(t *testing.T) {
	inBubble(t, func(t *testing.T, h *harness) {
		view := h.pool.View("c", nil)
		defer view.Release()
		lister := view.Typed().Core().V1().ConfigMaps().Lister()
		h.synced(view)
		time.Sleep(time.Minute)
		h.api.network.set(networkRefusing)
		h.api.put("configmaps", "default", "missed", nil)
		time.Sleep(time.Minute)
		h.api.setLag(60 * time.Millisecond)
		h.api.network.set(networkUp)
		if _, err := h.contact(time.Minute); err != nil {
			t.Fatal(err)
		}
		if _, err := lister.ConfigMaps("default").Get("missed"); err != nil {
			t.Error(err)
		}
	})
}

func TestContactDoesNotWaitForWhatIsRefused(t *testing.T) {
	inBubble(t, func(t *testing.T, h *harness) {
		view := h.pool.View("c", nil)
		defer view.Release()
		view.Metadata(configMaps)
		view.Metadata(schema.GroupVersionResource{Version: "v1", Resource: "secrets"})
		h.synced(view)
		time.Sleep(time.Minute)
		h.api.setRefuse(func(r *http.Request) int {
			if strings.Contains(r.URL.Path, "secrets") {
				return http.StatusForbidden
			}
			return 0
		})
		h.api.network.reset()
		took, err := h.contact(time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		if limit := 15 * time.Second; took > limit {
			t.Errorf("took %v, want at most %v", took, limit)
		}
		if err := view.Err(); err == nil || !strings.Contains(err.Error(), "secrets/v1 (metadata)") {
			t.Errorf("got Err %v, want one that names secrets", err)
		}
	})
}

func TestCachesSyncOnceTheAPIServerIsThere(t *testing.T) {
	inBubble(t, func(t *testing.T, h *harness) {
		h.api.network.set(networkRefusing)
		view := h.pool.View("c", nil)
		defer view.Release()
		view.Metadata(configMaps)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		if err := view.WaitForSync(ctx); err == nil || !strings.Contains(err.Error(), "configmaps/v1 (metadata)") || !strings.Contains(err.Error(), "connection refused") {
			t.Errorf("got %v, want the cache and its last error", err)
		}
		h.api.network.set(networkUp)
		began := time.Now()
		h.synced(view)
		if took := time.Since(began); took > time.Second {
			t.Errorf("synced %v after the API server came, want at most 1s", took)
		}
	})
}

func TestContactEndsWithThePool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := newAPIServer(t)
		pool, err := NewPool(PoolConfig{REST: api.config()})
		if err != nil {
			t.Fatal(err)
		}
		view := pool.View("c", nil)
		view.Metadata(configMaps)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- pool.Run(ctx) }()
		if err := view.WaitForSync(t.Context()); err != nil {
			t.Fatal(err)
		}
		api.network.set(networkDropping)
		contact := make(chan error)
		go func() { contact <- pool.Contact(t.Context()) }()
		synctest.Wait()
		cancel()
		if err := <-contact; !errors.Is(err, errStopped) {
			t.Errorf("Contact returned %v, want %v", err, errStopped)
		}
		if err := <-ended; err != nil {
			t.Errorf("Run returned %v, want nil", err)
		}
		view.Release()
	})
}

func TestMarkerIsFoundWhereverReadsSplitIt(t *testing.T) {
	const before, after = `{"metadata":{"annotations":{"`, `":"true"}}}`
	stream := []byte(before + string(initialEventsEnd) + after)
	for size := 1; size <= len(stream); size++ {
		m, found := &marker{}, -1
		for at := 0; at < len(stream) && found < 0; at += size {
			if m.find(stream[at:min(at+size, len(stream))]) {
				found = at
			}
		}
		if end := len(before) + len(initialEventsEnd); found < 0 || found >= end || found+size < end {
			t.Errorf("reads of %d bytes: found in the read at %d, want in the one that holds byte %d", size, found, end-1)
		}
	}
	if m := (&marker{}); m.find([]byte("k8s.io/initial-events")) || m.find([]byte("-start")) {
		t.Error("found what is not there")
	}
}
