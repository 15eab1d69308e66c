// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package reconciler_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/ktesting"

	"github.com/incumbent-io/incumbent/pkg/reconciler"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// loop is a Reconciler of strings in a bubble, and the log of what it did. Times are
// seconds since the start.
type loop struct {
	*reconciler.Reconciler[string]
	t     *testing.T
	began time.Time
	keys  chan string
	stop  context.CancelFunc
	ended chan error

	mu  sync.Mutex
	log []string
}

func start(t *testing.T, config reconciler.Config[string], reconcile func(ctx context.Context, key string, n int) (reconciler.Result, error)) *loop {
	t.Helper()
	l := &loop{t: t, began: time.Now(), keys: make(chan string), ended: make(chan error, 1)}
	count := map[string]int{}
	config.Name, config.Watches = "loop", []reconciler.Watch[string]{reconciler.Channel(l.keys)}
	config.Reconcile = func(ctx context.Context, key string) (reconciler.Result, error) {
		l.mu.Lock()
		count[key]++
		n := count[key]
		l.log = append(l.log, fmt.Sprintf("%g %s", time.Since(l.began).Round(time.Millisecond).Seconds(), key))
		l.mu.Unlock()
		return reconcile(ctx, key, n)
	}
	var err error
	if l.Reconciler, err = reconciler.New(config); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	l.stop = stop
	go func() { l.ended <- l.Run(ctx) }()
	return l
}

func (l *loop) end(want ...string) {
	l.t.Helper()
	l.stop()
	if err := <-l.ended; err != nil {
		l.t.Errorf("Run: %v", err)
	}
	if diff := cmp.Diff(want, l.log); diff != "" {
		l.t.Errorf("reconciles (-want +got):\n%s", diff)
	}
}

type notLeader struct{ error }

func (notLeader) NotLeader() bool { return true }

func TestOutcomesOfAReconcile(t *testing.T) {
	fail := errors.New("failed")
	for name, tc := range map[string]struct {
		first func(ctx context.Context) (reconciler.Result, error)
		want  []string
	}{
		"done": {func(context.Context) (reconciler.Result, error) { return reconciler.Result{}, nil }, []string{"0 a"}},
		"requeue after": {func(context.Context) (reconciler.Result, error) {
			return reconciler.Result{RequeueAfter: 3 * time.Second}, nil
		}, []string{"0 a", "3 a"}},
		"error": {func(context.Context) (reconciler.Result, error) { return reconciler.Result{}, fail }, []string{"0 a", "0.005 a"}},
		"panic": {func(context.Context) (reconciler.Result, error) { panic("failed") }, []string{"0 a", "0.005 a"}},
		"terminal": {func(context.Context) (reconciler.Result, error) {
			return reconciler.Result{}, fmt.Errorf("wrapped: %w", reconciler.Terminal(fail))
		}, []string{"0 a"}},
		"not leader": {func(context.Context) (reconciler.Result, error) {
			return reconciler.Result{}, fmt.Errorf("put: %w", notLeader{fail})
		}, []string{"0 a", "0.005 a"}}, // no harm if the run is over, and nothing lost if it is not
		"timeout": {func(ctx context.Context) (reconciler.Result, error) {
			<-ctx.Done()
			return reconciler.Result{}, ctx.Err()
		}, []string{"0 a", "10.005 a"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := start(t, reconciler.Config[string]{Timeout: 10 * time.Second}, func(ctx context.Context, _ string, n int) (reconciler.Result, error) {
					if n == 1 {
						return tc.first(ctx)
					}
					return reconciler.Result{}, nil
				})
				l.keys <- "a"
				time.Sleep(time.Minute)
				l.end(tc.want...)
			})
		})
	}
}

func TestOneKeyIsReconciledByOneWorkerAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := start(t, reconciler.Config[string]{Workers: 4}, func(context.Context, string, int) (reconciler.Result, error) {
			time.Sleep(time.Second) // bubble time: what the work takes
			return reconciler.Result{}, nil
		})
		l.keys <- "a"
		synctest.Wait()
		l.keys <- "a" // while it is being reconciled
		l.keys <- "a"
		time.Sleep(time.Minute)
		l.end("0 a", "1 a")
	})
}

func TestDrainFinishesWhatRunsAndTakesNothingNew(t *testing.T) {
	for name, tc := range map[string]struct {
		cause     error
		takes     time.Duration // of a reconcile that goes by its context alone
		want      time.Duration // until Run returns
		cancelled bool
	}{
		"planned, done within the grace":       {nil, 2 * time.Second, 2 * time.Second, false},
		"planned, not done within the grace":   {nil, time.Hour, 5 * time.Second, true},
		"the lease is lost":                    {fmt.Errorf("lost: %w", notLeader{errors.New("late")}), time.Hour, 0, true},
		"the lease is lost, done at that time": {notLeader{errors.New("late")}, 0, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, stop := context.WithCancelCause(t.Context())
				var log []string
				keys := make(chan string, 2)
				keys <- "a"
				keys <- "b"
				r, err := reconciler.New(reconciler.Config[string]{
					Name: "drain", Watches: []reconciler.Watch[string]{reconciler.Channel(keys)},
					Reconcile: func(inside context.Context, key string) (reconciler.Result, error) {
						log = append(log, key)
						<-ctx.Done()
						select {
						case <-inside.Done():
							if cause := context.Cause(inside); tc.cause != nil && !errors.Is(cause, tc.cause) {
								t.Errorf("its context ended with %v, want %v", cause, tc.cause)
							}
							log = append(log, "cancelled")
						case <-time.After(tc.takes):
						}
						return reconciler.Result{RequeueAfter: time.Second}, inside.Err()
					},
				})
				if err != nil {
					t.Fatal(err)
				}
				ended := make(chan error, 1)
				go func() { ended <- r.Run(ctx) }()
				synctest.Wait()
				began := time.Now()
				stop(tc.cause)
				if err := <-ended; err != nil {
					t.Errorf("Run: %v", err)
				}
				if took := time.Since(began); took != tc.want {
					t.Errorf("it stopped after %v, want %v", took, tc.want)
				}
				if want := tc.want > 0 || tc.takes > 0; want { // otherwise either may win
					expected := []string{"a"}
					if tc.cancelled {
						expected = append(expected, "cancelled")
					}
					if diff := cmp.Diff(expected, log); diff != "" {
						t.Errorf("(-want +got):\n%s", diff)
					}
				}
			})
		})
	}
}

func TestStuckWorkerIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		l := start(t, reconciler.Config[string]{Workers: 2, StuckAfter: time.Minute}, func(_ context.Context, key string, _ int) (reconciler.Result, error) {
			if key == "stuck" {
				<-release
			}
			return reconciler.Result{}, nil
		})
		expect := func(when string, stuck bool) {
			t.Helper()
			if err := l.CheckHealth(t.Context()); (err != nil) != stuck || stuck && !strings.Contains(err.Error(), "a worker of 2 has been busy with stuck for 1m10s") {
				t.Errorf("%s: got %v, want stuck %v", when, err, stuck)
			}
		}
		expect("before anything", false)
		l.keys <- "stuck"
		time.Sleep(time.Minute)
		expect("before its time", false)
		l.keys <- "fine"
		time.Sleep(10 * time.Second)
		expect("while another worker goes on", true)
		close(release)
		synctest.Wait()
		expect("once it is done", false)
		l.end("0 stuck", "60 fine")
	})
}

func TestNewReportsEveryMistake(t *testing.T) {
	var informer cache.SharedIndexInformer
	_, err := reconciler.New(reconciler.Config[cache.ObjectName]{Workers: -1, Timeout: -1, Watches: []reconciler.Watch[cache.ObjectName]{
		reconciler.Self[*corev1.Pod](informer), reconciler.Self[*corev1.Pod](&objects{}), {},
	}})
	_, none := reconciler.New(reconciler.Config[string]{})
	for _, want := range []string{"Config.Name is required", "Config.Reconcile is required", "Config.Watches is empty", "Workers is -1", "Timeout is -1ns", "Watches[0] is empty", "Watches[2] is empty"} {
		if err := errors.Join(err, none); !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want it to contain %q", err, want)
		}
	}
	if strings.Contains(err.Error(), "Watches[1]") {
		t.Errorf("got %v, want nothing of the watch that is right", err)
	}
}

func TestRunServesOnce(t *testing.T) {
	r, err := reconciler.New(reconciler.Config[cache.ObjectName]{
		Name: "once", Watches: []reconciler.Watch[cache.ObjectName]{reconciler.Self[*corev1.Pod](&objects{})},
		Reconcile: func(context.Context, cache.ObjectName) (reconciler.Result, error) { return reconciler.Result{}, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := r.Run(ctx); err != nil {
		t.Errorf("the first time: %v", err)
	}
	if err := r.Run(ctx); err == nil || !strings.Contains(err.Error(), "called before") {
		t.Errorf("the second time: got %v, want an error", err)
	}
}

// objects is an informer whose events a test sends by hand.
type objects struct {
	cache.SharedIndexInformer
	initial func(cache.ResourceEventHandler) // events that come before anything is reconciled
	refuse  error                            // what AddEventHandler returns
	handler cache.ResourceEventHandler
	removed atomic.Bool
}

func (o *objects) AddEventHandler(handler cache.ResourceEventHandler) (cache.ResourceEventHandlerRegistration, error) {
	if o.refuse != nil {
		return nil, o.refuse
	}
	o.handler = handler
	if o.initial != nil {
		o.initial(handler)
	}
	return nil, nil
}

func (o *objects) RemoveEventHandler(cache.ResourceEventHandlerRegistration) error {
	o.removed.Store(true)
	return nil
}

func configMap(name, version string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, ResourceVersion: version}}
}

// reconciled runs a reconciler of these watches until it has nothing to do, and then for
// as long as then takes. It returns the keys in order.
func reconciled(t *testing.T, then func(), watches ...reconciler.Watch[cache.ObjectName]) (order []string, err error) {
	t.Helper()
	r, err := reconciler.New(reconciler.Config[cache.ObjectName]{
		Name: "test", Watches: watches,
		Reconcile: func(_ context.Context, key cache.ObjectName) (reconciler.Result, error) {
			order = append(order, key.Name)
			return reconciler.Result{}, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	synctest.Wait()
	then()
	synctest.Wait()
	stop()
	return order, <-ended
}

func TestChangesOvertakeTheInitialListAndResyncs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &objects{initial: func(h cache.ResourceEventHandler) {
			for _, name := range []string{"a", "b", "c", "d"} {
				h.OnAdd(configMap(name, "1"), true)
			}
			h.OnUpdate(configMap("c", "1"), configMap("c", "2")) // a change of one that waits
			h.OnAdd(configMap("c", "2"), true)                   // which no longer can
			h.OnUpdate(configMap("a", "1"), configMap("a", "1")) // a resync
			h.OnAdd(configMap("new", "3"), false)
			h.OnDelete(cache.DeletedFinalStateUnknown{Obj: configMap("gone", "4")})
		}}
		order, err := reconciled(t, func() {
			source.handler.OnAdd(configMap("c", "5"), true) // waits where it has moved away from before
		}, reconciler.Self[*corev1.ConfigMap](source))
		if err != nil || !source.removed.Load() {
			t.Errorf("Run: %v; the handler was removed: %v", err, source.removed.Load())
		}
		if diff := cmp.Diff([]string{"c", "new", "gone", "a", "b", "d", "c"}, order); diff != "" {
			t.Errorf("order (-want +got):\n%s", diff)
		}
	})
}

// TestChangeDuringAReconcileStaysUrgent has a key change while it is reconciled, which
// the queue tells its order of only afterwards.
func TestChangeDuringAReconcileStaysUrgent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &objects{}
		var order []string
		r, err := reconciler.New(reconciler.Config[cache.ObjectName]{
			Name: "test", Watches: []reconciler.Watch[cache.ObjectName]{reconciler.Self[*corev1.ConfigMap](source)},
			Reconcile: func(_ context.Context, key cache.ObjectName) (reconciler.Result, error) {
				if order = append(order, key.Name); len(order) == 1 {
					source.handler.OnAdd(configMap("waits", "1"), true)
					source.handler.OnUpdate(configMap("busy", "1"), configMap("busy", "2"))
					source.handler.OnUpdate(configMap("busy", "2"), configMap("busy", "2"))
				}
				return reconciler.Result{}, nil
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- r.Run(ctx) }()
		synctest.Wait()
		source.handler.OnAdd(configMap("busy", "1"), false)
		synctest.Wait()
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff([]string{"busy", "busy", "waits"}, order); diff != "" {
			t.Errorf("order (-want +got):\n%s", diff)
		}
	})
}

// TestAFloodOfChangesDoesNotStopTheInitialList keeps one key changing for ever.
func TestAFloodOfChangesDoesNotStopTheInitialList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &objects{initial: func(h cache.ResourceEventHandler) {
			for i := range 5 {
				h.OnAdd(configMap(fmt.Sprint(i), "1"), true)
			}
			h.OnAdd(configMap("hot", "1"), false)
		}}
		ctx, stop := context.WithCancel(t.Context())
		hot, waited := 0, 0
		r, err := reconciler.New(reconciler.Config[cache.ObjectName]{
			Name: "test", Watches: []reconciler.Watch[cache.ObjectName]{reconciler.Self[*corev1.ConfigMap](source)},
			Reconcile: func(_ context.Context, key cache.ObjectName) (reconciler.Result, error) {
				if key.Name != "hot" {
					if waited++; waited == 5 {
						stop()
					}
				} else if hot++; hot == 1000 {
					stop()
				}
				source.handler.OnUpdate(configMap("hot", fmt.Sprint(hot)), configMap("hot", fmt.Sprint(hot+1)))
				return reconciler.Result{}, nil
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Run(ctx); err != nil {
			t.Error(err)
		}
		if waited != 5 || hot < 20 {
			t.Errorf("%d of 5 were reconciled beside %d changes of another, want all, after the changes", waited, hot)
		}
	})
}

func TestPredicatesAndOwners(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		changed := configMap("wanted", "2")
		changed.Data = map[string]string{"x": "y"}
		own := &objects{initial: func(h cache.ResourceEventHandler) {
			h.OnUpdate(configMap("unwanted", "1"), configMap("unwanted", "2"))
			h.OnUpdate(configMap("wanted", "1"), changed)
		}}
		yes := true
		pod := func(version, name string) *corev1.Pod {
			return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "pod", ResourceVersion: name,
				OwnerReferences: []metav1.OwnerReference{{APIVersion: version, Kind: "Set", Name: name, Controller: &yes}}}}
		}
		others := &objects{initial: func(h cache.ResourceEventHandler) {
			h.OnAdd(pod("example.com/v1", "owner"), false)
			h.OnAdd(pod("example.com/v2", "of-another-version"), false)
			h.OnAdd(pod("example.org/v1", "of-another-group"), false)
			h.OnAdd(pod("v1", "of-no-group"), false)
			h.OnAdd(&corev1.Pod{}, false)
			h.OnUpdate(pod("example.com/v1", "before"), pod("example.com/v1", "after"))
		}}
		generations := &objects{initial: func(h cache.ResourceEventHandler) {
			a, b := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "status-only", Generation: 1}}, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "spec", Generation: 2}}
			h.OnUpdate(a, a)
			h.OnUpdate(a, b)
		}}
		seen, err := reconciled(t, func() {},
			reconciler.Self(own, func(before, after *corev1.ConfigMap) bool { return before.Data["x"] != after.Data["x"] }),
			reconciler.Owner[*corev1.Pod](others, schema.GroupKind{Group: "example.com", Kind: "Set"}),
			reconciler.Self(generations, reconciler.GenerationChanged[*corev1.Pod]),
		)
		if err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff([]string{"wanted", "owner", "of-another-version", "before", "after", "spec"}, seen); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

func TestRunFails(t *testing.T) {
	for name, tc := range map[string]struct {
		bad  *objects
		want string
	}{
		"when a handler cannot be added": {&objects{refuse: errors.New("the view is released")}, "reconciler test: the view is released"},
		"when the informer has objects of another type": {&objects{initial: func(h cache.ResourceEventHandler) {
			h.OnAdd(&corev1.Secret{}, true)
			h.OnAdd(&corev1.Secret{}, true)
		}}, "reconciler test: a watch of *v1.ConfigMap got a *v1.Secret"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				good := &objects{}
				_, err := reconciled(t, func() {}, reconciler.Self[*corev1.ConfigMap](good), reconciler.Self[*corev1.ConfigMap](tc.bad))
				if err == nil || !strings.Contains(err.Error(), tc.want) {
					t.Errorf("got %v, want %q", err, tc.want)
				}
				if !good.removed.Load() {
					t.Error("the handler of the other watch was not removed")
				}
			})
		})
	}
}

// TestReconcileThatEndsTheRun has one reconcile end the run while another goes on.
func TestReconcileThatEndsTheRun(t *testing.T) {
	cause := errors.New("the account is closed")
	for name, tc := range map[string]struct {
		end  func() error
		want string
	}{
		"fatal error":              {func() error { return fmt.Errorf("login: %w", reconciler.Fatal(cause)) }, "reconciler loop: login: the account is closed"},
		"the end of its goroutine": {func() error { runtime.Goexit(); return nil }, "reconciler loop: the reconcile of a called runtime.Goexit"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				finished := false
				l := start(t, reconciler.Config[string]{Workers: 2}, func(_ context.Context, key string, _ int) (reconciler.Result, error) {
					if key == "a" {
						return reconciler.Result{}, tc.end()
					}
					time.Sleep(time.Second)
					finished = true
					return reconciler.Result{}, nil
				})
				l.keys <- "b"
				l.keys <- "a"
				err := <-l.ended
				if err == nil || err.Error() != tc.want {
					t.Errorf("Run: got %v, want %s", err, tc.want)
				}
				if !finished {
					t.Error("Run returned before the other reconcile")
				}
			})
		})
	}
}

// TestPanicWhileDrainingIsAPanic has a reconcile panic once it is told to stop.
func TestPanicWhileDrainingIsAPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		metrics := &observed{MetricsProvider: silent{}}
		l := start(t, reconciler.Config[string]{Metrics: metrics}, func(ctx context.Context, _ string, _ int) (reconciler.Result, error) {
			<-ctx.Done()
			panic("oh")
		})
		l.keys <- "a"
		synctest.Wait()
		l.end("0 a")
		if diff := cmp.Diff([]string{"loop panic"}, metrics.outcomes); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// TestFailuresAreLogged compares what is logged of each error.
func TestFailuresAreLogged(t *testing.T) {
	conflict := apierrors.NewConflict(schema.GroupResource{Resource: "configmaps"}, "a", errors.New("newer"))
	fail, failed := errors.New("failed"), `E Reconcile failed, will retry at growing intervals err=failed`
	conflicted := `I Object has changed meanwhile, will retry err=` + conflict.Error()
	twice := func(err error) []error { return []error{err, err} }
	for name, tc := range map[string]struct {
		errs []error
		want []string
	}{
		"error":                  {twice(fail), []string{failed, `I Reconcile still fails err=failed failures=2`}},
		"terminal":               {[]error{reconciler.Terminal(fail)}, []string{`E Reconcile failed for good err=failed`}},
		"conflict":               {twice(conflict), []string{conflicted, conflicted}},
		"error after a conflict": {[]error{conflict, fail, conflict, fail}, []string{conflicted, failed, conflicted, `I Reconcile still fails err=failed failures=4`}},
		"fence":                  {twice(notLeader{errors.New("late")}), nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				logger := ktesting.NewLogger(t, ktesting.NewConfig(ktesting.BufferLogs(true), ktesting.Verbosity(5)))
				keys := make(chan string, 1)
				keys <- "x"
				calls := 0
				r, err := reconciler.New(reconciler.Config[string]{
					Name: "logs", Watches: []reconciler.Watch[string]{reconciler.Channel(keys)},
					Reconcile: func(ctx context.Context, _ string) (reconciler.Result, error) {
						if calls++; calls <= len(tc.errs) {
							return reconciler.Result{}, tc.errs[calls-1]
						}
						klog.FromContext(ctx).Info("Fine")
						return reconciler.Result{}, nil
					},
				})
				if err != nil {
					t.Fatal(err)
				}
				ctx, stop := context.WithCancel(klog.NewContext(t.Context(), logger))
				ended := make(chan error, 1)
				go func() { ended <- r.Run(ctx) }()
				time.Sleep(time.Minute)
				stop()
				<-ended
				var got []string
				for _, entry := range logger.GetSink().(ktesting.Underlier).GetBuffer().Data() {
					line := string(entry.Type[0]) + " " + entry.Message
					if entry.Err != nil {
						line += " err=" + entry.Err.Error()
					}
					if fmt.Sprint(entry.WithKVList) != "[key x]" {
						t.Errorf("%s: got values %v, want the key", line, entry.WithKVList)
					}
					for i := 0; i < len(entry.ParameterKVList); i += 2 {
						line += fmt.Sprintf(" %v=%v", entry.ParameterKVList[i], entry.ParameterKVList[i+1])
					}
					got = append(got, line)
				}
				want := tc.want
				if name != "terminal" {
					want = append(want, "I Fine")
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
			})
		})
	}
}

// TestNoUpdateIsLost has many writers change what keys stand for, and compares what the
// last reconcile of each key saw.
func TestNoUpdateIsLost(t *testing.T) {
	const keys, updates = 1000, 100000
	source := &objects{}
	var mu sync.Mutex
	state, seen := map[string]int{}, map[string]int{}
	r, err := reconciler.New(reconciler.Config[cache.ObjectName]{
		Name: "storm", Workers: 8, Watches: []reconciler.Watch[cache.ObjectName]{reconciler.Self[*corev1.ConfigMap](source)},
		Reconcile: func(_ context.Context, key cache.ObjectName) (reconciler.Result, error) {
			mu.Lock()
			defer mu.Unlock()
			seen[key.Name] = state[key.Name]
			return reconciler.Result{}, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	attached := make(chan struct{})
	source.initial = func(cache.ResourceEventHandler) { close(attached) }
	go func() { ended <- r.Run(ctx) }()
	<-attached
	var writers sync.WaitGroup
	for range 8 {
		writers.Go(func() {
			for range updates / 8 {
				name := fmt.Sprint(rand.IntN(keys))
				mu.Lock()
				state[name]++
				mu.Unlock()
				source.handler.OnAdd(configMap(name, "1"), rand.IntN(3) == 0)
			}
		})
	}
	writers.Wait()
	same := func() bool {
		mu.Lock()
		defer mu.Unlock()
		return cmp.Equal(state, seen)
	}
	for deadline := time.Now().Add(20 * time.Second); !same() && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	if !same() {
		t.Errorf("after %d updates some keys were not reconciled with their last state: %s", updates, cmp.Diff(state, seen)[:500])
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func Example() {
	ctx, stop := context.WithCancel(context.Background())
	client := fake.NewClientset(configMap("a", "1"), configMap("b", "1"))
	factory := informers.NewSharedInformerFactory(client, 0)
	maps := factory.Core().V1().ConfigMaps() // in a controller: c.Informers.Typed().Core()...
	names := make(chan string, 2)

	r, err := reconciler.New(reconciler.Config[cache.ObjectName]{
		Name:    "names",
		Watches: []reconciler.Watch[cache.ObjectName]{reconciler.Self[*corev1.ConfigMap](maps.Informer())},
		Reconcile: func(_ context.Context, key cache.ObjectName) (reconciler.Result, error) {
			names <- key.String()
			return reconciler.Result{}, nil
		},
	})
	if err != nil {
		panic(err)
	}
	factory.Start(ctx.Done())
	ended := make(chan error)
	go func() { ended <- r.Run(ctx) }()
	list := []string{<-names, <-names}
	slices.Sort(list)
	fmt.Println(list)
	stop()
	fmt.Println(<-ended)
	factory.Shutdown()
	// Output:
	// [ns/a ns/b]
	// <nil>
}

// BenchmarkNoOp reconciles 20,000 keys of an initial list.
func BenchmarkNoOp(b *testing.B) {
	list := make([]*corev1.ConfigMap, 20000)
	for i := range list {
		list[i] = configMap(fmt.Sprint(i), "1")
	}
	for _, workers := range []int{1, 10} {
		b.Run(fmt.Sprintf("workers=%d", workers), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				source := &objects{initial: func(h cache.ResourceEventHandler) {
					for _, object := range list {
						h.OnAdd(object, true)
					}
				}}
				var left sync.WaitGroup
				left.Add(len(list))
				r, err := reconciler.New(reconciler.Config[cache.ObjectName]{
					Name: "noop", Workers: workers, Watches: []reconciler.Watch[cache.ObjectName]{reconciler.Self[*corev1.ConfigMap](source)},
					Reconcile: func(context.Context, cache.ObjectName) (reconciler.Result, error) {
						left.Done()
						return reconciler.Result{}, nil
					},
				})
				if err != nil {
					b.Fatal(err)
				}
				ctx, stop := context.WithCancel(context.Background())
				ended := make(chan error, 1)
				go func() { ended <- r.Run(ctx) }()
				left.Wait()
				stop()
				<-ended
			}
		})
	}
}

// observed is a metrics provider that is told of reconciles.
type observed struct {
	workqueue.MetricsProvider
	mu       sync.Mutex
	outcomes []string
}

func (o *observed) Reconciled(name string, outcome reconciler.Outcome, _ time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.outcomes = append(o.outcomes, name+" "+string(outcome))
}

// TestEveryReconcileIsTold has reconciles end in every way, and compares what spans and
// metrics say of them.
func TestEveryReconcileIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		metrics := &observed{MetricsProvider: silent{}}
		spans := tracetest.NewSpanRecorder()
		keys := make(chan string)
		r, err := reconciler.New(reconciler.Config[string]{
			Name: "told", Metrics: metrics, Tracer: sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)),
			Watches: []reconciler.Watch[string]{reconciler.Channel(keys)}, Timeout: time.Minute,
			RateLimiter: workqueue.NewTypedItemExponentialFailureRateLimiter[string](time.Hour, time.Hour),
			Reconcile: func(ctx context.Context, key string) (reconciler.Result, error) {
				switch key {
				case "requeue":
					return reconciler.Result{RequeueAfter: time.Hour}, nil
				case "error":
					return reconciler.Result{}, errors.New("not yet")
				case "terminal":
					return reconciler.Result{}, reconciler.Terminal(errors.New("never"))
				case "panic":
					panic("oh")
				case "cancelled":
					<-ctx.Done()
					return reconciler.Result{}, ctx.Err()
				}
				return reconciler.Result{}, nil
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- r.Run(ctx) }()
		for _, outcome := range reconciler.Outcomes() {
			keys <- string(outcome)
			synctest.Wait()
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		var want, traced []string
		for _, outcome := range reconciler.Outcomes() {
			want = append(want, "told "+string(outcome))
		}
		for _, span := range spans.Ended() {
			attributes := map[string]string{}
			for _, a := range span.Attributes() {
				attributes[string(a.Key)] = a.Value.AsString()
			}
			if attributes["key"] != attributes["result"] {
				t.Errorf("span: got %v, want the result that the key is called by", attributes)
			}
			traced = append(traced, attributes["controller"]+" "+attributes["result"])
		}
		if diff := cmp.Diff(want, metrics.outcomes); diff != "" {
			t.Errorf("metrics (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(want, traced); diff != "" {
			t.Errorf("spans (-want +got):\n%s", diff)
		}
	})
}

// silent is a metrics provider without metrics.
type silent struct{}

type nothing struct{}

func (nothing) Inc()            {}
func (nothing) Dec()            {}
func (nothing) Set(float64)     {}
func (nothing) Observe(float64) {}

func (silent) NewDepthMetric(string) workqueue.GaugeMetric                         { return nothing{} }
func (silent) NewAddsMetric(string) workqueue.CounterMetric                        { return nothing{} }
func (silent) NewLatencyMetric(string) workqueue.HistogramMetric                   { return nothing{} }
func (silent) NewWorkDurationMetric(string) workqueue.HistogramMetric              { return nothing{} }
func (silent) NewRetriesMetric(string) workqueue.CounterMetric                     { return nothing{} }
func (silent) NewUnfinishedWorkSecondsMetric(string) workqueue.SettableGaugeMetric { return nothing{} }
func (silent) NewLongestRunningProcessorSecondsMetric(string) workqueue.SettableGaugeMetric {
	return nothing{}
}
