// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package leaderelection

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
)

// watchScript answers lists and watches in turn and notes what it was asked.
type watchScript struct {
	leaseAPI
	asked []string
	turns []func() (watch.Interface, error) // of watches; the last for ever
}

func (s *watchScript) list(context.Context) (*coordinationv1.Lease, string, error) {
	s.asked = append(s.asked, "list")
	return nil, "100", nil
}

func (s *watchScript) watch(_ context.Context, version string, _ time.Duration) (watch.Interface, error) {
	s.asked = append(s.asked, "watch "+version)
	turn := s.turns[0]
	if len(s.turns) > 1 {
		s.turns = s.turns[1:]
	}
	return turn()
}

// events makes a watch that delivers these and then is closed, or, without any,
// stays open.
func events(list ...watch.Event) func() (watch.Interface, error) {
	return func() (watch.Interface, error) {
		w := watch.NewFakeWithChanSize(len(list), false)
		for _, e := range list {
			w.Action(e.Type, e.Object)
		}
		if len(list) > 0 {
			w.Stop()
		}
		return w, nil
	}
}

func failing(err error) func() (watch.Interface, error) {
	return func() (watch.Interface, error) { return nil, err }
}

func statusOf(err *apierrors.StatusError) runtime.Object { return &err.ErrStatus }

func TestObserverGoesOnFromTheLastVersion(t *testing.T) {
	gone := apierrors.NewResourceExpired("too old")
	ahead := apierrors.NewTimeoutError("too large", 1)
	ahead.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: metav1.CauseTypeResourceVersionTooLarge}}
	modified := watch.Event{Type: watch.Modified, Object: leaseAt("105", "u", oursA, 15, 1, 1)}
	mark := watch.Event{Type: watch.Bookmark, Object: leaseAt("120", "", "", 0, 0, 0)}
	tests := []struct {
		name   string
		turn   func() (watch.Interface, error)
		want   string
		failed int
	}{
		{"closed after an event", events(modified), "watch 105", 0},
		{"closed after a bookmark", events(modified, mark), "watch 120", 0},
		{"refused", failing(errors.New("refused")), "watch 100", 1},
		{"too old at the start", failing(gone), "list", 0},
		{"not yet reached", failing(ahead), "list", 0},
		{"too old later", events(modified, watch.Event{Type: watch.Error, Object: statusOf(gone)}), "list", 0},
		{"an error later", events(modified, watch.Event{Type: watch.Error, Object: statusOf(apierrors.NewInternalError(errors.New("x")))}), "watch 105", 1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				api := &watchScript{turns: []func() (watch.Interface, error){test.turn, events()}}
				sights := make(chan sighting)
				failed := 0
				o := &observer{api: api, clock: newSimClock(1, &simGate{}), timeout: time.Second, jitter: func() float64 { return 0 },
					sights: sights, restart: make(chan struct{}), pulse: &pulse{}, failed: func(string, error) { failed++ }}
				ctx, cancel := context.WithCancel(context.Background())
				done := make(chan struct{})
				go func() {
					defer close(done)
					o.run(ctx)
				}()
				go func() {
					for {
						select {
						case <-sights:
						case <-ctx.Done():
							return
						}
					}
				}()
				time.Sleep(10 * time.Second)
				cancel()
				<-done
				if len(api.asked) < 3 {
					t.Fatalf("asked only for %q", api.asked)
				}
				if diff := cmp.Diff([]string{"list", "watch 100", test.want}, api.asked[:3]); diff != "" || failed != test.failed {
					t.Errorf("failed %d times, want %d; asked (-want +got):\n%s", failed, test.failed, diff)
				}
			})
		})
	}
}

// TestObserverPacesItself counts the attempts of a watch that never begins, or is
// closed at once, or is not answered.
func TestObserverPacesItself(t *testing.T) {
	closed := func() (watch.Interface, error) {
		w := watch.NewFake()
		w.Stop()
		return w, nil
	}
	for name, turn := range map[string]func() (watch.Interface, error){"refused": failing(errors.New("refused")), "closed": closed} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				api := &watchScript{turns: []func() (watch.Interface, error){turn}}
				ctx, cancel := context.WithCancel(context.Background())
				sights, failed := make(chan sighting, 10), 0
				o := &observer{api: api, clock: newSimClock(1, &simGate{}), timeout: time.Second, jitter: func() float64 { return 0 },
					sights: sights, restart: make(chan struct{}), pulse: &pulse{}, failed: func(string, error) { failed++ }}
				done := make(chan struct{})
				go func() {
					defer close(done)
					o.run(ctx)
				}()
				time.Sleep(time.Minute)
				cancel()
				<-done
				if n := len(api.asked); n < 110 || n > 140 {
					t.Errorf("%d requests in a minute, want about two a second", n)
				}
				if failed < 100 {
					t.Errorf("%d failures reported", failed)
				}
			})
		})
	}
}

func TestSightingOfEvents(t *testing.T) {
	lease := leaseAt("7", "u", oursA, 15, 1, 1)
	tests := []struct {
		event watch.EventType
		want  string
	}{
		{watch.Added, "source 0 lease true uid "}, {watch.Modified, "source 0 lease true uid "},
		{watch.Deleted, "source 0 lease false uid u"}, {watch.Bookmark, "source 1 lease false uid "},
	}
	for _, test := range tests {
		s := sightingOf(test.event, lease)
		if got := fmt.Sprintf("source %d lease %v uid %s", s.source, s.lease != nil, s.uid); got != test.want || s.version != "7" {
			t.Errorf("%s: %s at %s, want %s", test.event, got, s.version, test.want)
		}
	}
}
