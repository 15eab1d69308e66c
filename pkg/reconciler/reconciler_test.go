// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package reconciler_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"

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
		}, []string{"0 a"}},
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
	synctest.Test(t, func(t *testing.T) {
		l := start(t, reconciler.Config[string]{}, func(ctx context.Context, _ string, _ int) (reconciler.Result, error) {
			<-ctx.Done()
			time.Sleep(2 * time.Second) // bubble time: what the work takes to stop
			return reconciler.Result{}, ctx.Err()
		})
		l.keys <- "a"
		l.keys <- "b"
		time.Sleep(time.Second)
		began := time.Now()
		l.end("0 a")
		if took := time.Since(began); took != 2*time.Second {
			t.Errorf("it stopped after %v, want the 2s that the reconcile took", took)
		}
	})
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
		l.keys <- "stuck"
		expect := func(when string, stuck bool) {
			t.Helper()
			if err := l.CheckHealth(t.Context()); (err != nil) != stuck || stuck && !strings.Contains(err.Error(), "busy with stuck for") {
				t.Errorf("%s: got %v, want stuck %v", when, err, stuck)
			}
		}
		time.Sleep(50 * time.Second)
		expect("before its time", false)
		l.keys <- "fine"
		time.Sleep(50 * time.Second)
		expect("while others are completed", false)
		time.Sleep(time.Minute)
		expect("when nothing was completed for a minute", true)
		close(release)
		synctest.Wait()
		expect("once it is done", false)
		l.end("0 stuck", "50 fine")
	})
}

func TestNewReportsEveryMistake(t *testing.T) {
	_, err := reconciler.New(reconciler.Config[string]{Workers: -1})
	for _, want := range []string{"Config.Name is required", "Config.Reconcile is required", "Config.Watches is empty", "Workers -1"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want it to contain %q", err, want)
		}
	}
}

// objects is an informer whose events a test sends by hand.
type objects struct {
	cache.SharedIndexInformer
	handler cache.ResourceEventHandler
	removed bool
}

func (o *objects) AddEventHandler(handler cache.ResourceEventHandler) (cache.ResourceEventHandlerRegistration, error) {
	o.handler = handler
	return nil, nil
}

func (o *objects) RemoveEventHandler(cache.ResourceEventHandlerRegistration) error {
	o.removed = true
	return nil
}

func configMap(name, version string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, ResourceVersion: version}}
}

func TestChangesOvertakeTheInitialListAndResyncs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &objects{}
		var order []string
		r, err := reconciler.New(reconciler.Config[cache.ObjectName]{
			Name: "order", Watches: []reconciler.Watch[cache.ObjectName]{reconciler.Self[*corev1.ConfigMap](source)},
			Reconcile: func(_ context.Context, key cache.ObjectName) (reconciler.Result, error) {
				order = append(order, key.Name)
				return reconciler.Result{}, nil
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"a", "b", "c", "d"} {
			source.handler.OnAdd(configMap(name, "1"), true)
		}
		source.handler.OnUpdate(configMap("c", "1"), configMap("c", "2")) // a change of one that waits
		source.handler.OnUpdate(configMap("a", "1"), configMap("a", "1")) // a resync
		source.handler.OnAdd(configMap("new", "3"), false)
		source.handler.OnDelete(cache.DeletedFinalStateUnknown{Obj: configMap("gone", "4")})
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- r.Run(ctx) }()
		synctest.Wait()
		source.handler.OnAdd(configMap("c", "5"), true) // waits where it has moved away from before
		synctest.Wait()
		stop()
		if err := <-ended; err != nil || !source.removed {
			t.Errorf("Run: %v; the handler was removed: %v", err, source.removed)
		}
		if diff := cmp.Diff([]string{"c", "new", "gone", "a", "b", "d", "c"}, order); diff != "" {
			t.Errorf("order (-want +got):\n%s", diff)
		}
	})
}

func TestPredicatesAndOwners(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		own, others := &objects{}, &objects{}
		var seen []string
		r, err := reconciler.New(reconciler.Config[cache.ObjectName]{
			Name: "owners",
			Watches: []reconciler.Watch[cache.ObjectName]{
				reconciler.Self(own, func(before, after *corev1.ConfigMap) bool { return before.Data["x"] != after.Data["x"] }),
				reconciler.Owner[*corev1.Pod](others, "ConfigMap"),
			},
			Reconcile: func(_ context.Context, key cache.ObjectName) (reconciler.Result, error) {
				seen = append(seen, key.String())
				return reconciler.Result{}, nil
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		changed := configMap("wanted", "2")
		changed.Data = map[string]string{"x": "y"}
		own.handler.OnUpdate(configMap("unwanted", "1"), configMap("unwanted", "2"))
		own.handler.OnUpdate(configMap("wanted", "1"), changed)
		yes := true
		for _, kind := range []string{"ConfigMap", "Secret"} {
			others.handler.OnAdd(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "pod",
				OwnerReferences: []metav1.OwnerReference{{Kind: kind, Name: "owner-" + kind, Controller: &yes}}}}, false)
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- r.Run(ctx) }()
		synctest.Wait()
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff([]string{"ns/wanted", "ns/owner-ConfigMap"}, seen); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
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
	go func() { ended <- r.Run(ctx) }()
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
				source := &objects{}
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
				for _, object := range list {
					source.handler.OnAdd(object, true)
				}
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
