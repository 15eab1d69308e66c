// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package reconciler_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"

	"github.com/incumbent-io/incumbent/pkg/reconciler"
)

// TestNoKeyIsLostWhateverReconcilesDo has reconciles fail, panic, give up and ask for
// another at random, while the keys change, and compares what the last one of each key
// that did not fail has seen.
func TestNoKeyIsLostWhateverReconcilesDo(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			source := &objects{}
			var mu sync.Mutex
			random := rand.New(rand.NewPCG(seed, 0))
			state, seen, busy := map[string]int{}, map[string]int{}, map[string]bool{}
			r, err := reconciler.New(reconciler.Config[cache.ObjectName]{
				Name: "random", Workers: 5, Watches: []reconciler.Watch[cache.ObjectName]{reconciler.Self[*corev1.ConfigMap](source)},
				RateLimiter: workqueue.NewTypedItemExponentialFailureRateLimiter[cache.ObjectName](time.Millisecond, time.Second),
				Reconcile: func(_ context.Context, key cache.ObjectName) (reconciler.Result, error) {
					mu.Lock()
					if busy[key.Name] {
						t.Errorf("%s is reconciled by two workers", key)
					}
					busy[key.Name] = true
					saw, pause, fate := state[key.Name], time.Duration(random.IntN(5))*time.Millisecond, random.IntN(6)
					mu.Unlock()
					time.Sleep(pause)
					mu.Lock()
					defer mu.Unlock()
					busy[key.Name] = false
					if fate > 1 {
						seen[key.Name] = saw
					}
					switch fate {
					case 0:
						return reconciler.Result{}, errors.New("failed")
					case 1:
						panic("failed")
					case 2:
						return reconciler.Result{}, reconciler.Terminal(errors.New("hopeless"))
					case 3:
						return reconciler.Result{RequeueAfter: pause}, nil
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
			for range 3000 {
				mu.Lock()
				name, canWait, pause := fmt.Sprint(random.IntN(30)), random.IntN(3) == 0, time.Duration(random.IntN(1000))*time.Microsecond
				state[name]++
				mu.Unlock()
				source.handler.OnAdd(configMap(name, "1"), canWait)
				time.Sleep(pause)
			}
			time.Sleep(time.Minute)
			mu.Lock()
			if diff := cmp.Diff(state, seen); diff != "" {
				t.Errorf("seed %d: what was seen last (-want +got):\n%s", seed, diff)
			}
			mu.Unlock()
			stop()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
}

func TestEachKeyBacksOffAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := start(t, reconciler.Config[string]{}, func(_ context.Context, key string, n int) (reconciler.Result, error) {
			if key == "bad" && n != 4 {
				return reconciler.Result{}, errors.New("failed")
			}
			return reconciler.Result{}, nil
		})
		l.keys <- "bad"
		time.Sleep(time.Second)
		l.keys <- "good"
		l.keys <- "bad" // its success has put the interval back
		time.Sleep(20 * time.Millisecond)
		l.end("0 bad", "0.005 bad", "0.015 bad", "0.035 bad", "1 good", "1 bad", "1.005 bad", "1.015 bad")
	})
}

// gauges are metrics whose gauges are kept, by name.
type gauges struct {
	silent
	made map[string]*gauge
}

type gauge struct {
	mu    sync.Mutex
	value float64
}

func (g *gauge) Set(value float64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.value = value
}

func (g *gauge) get() float64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.value
}

func (g *gauges) NewUnfinishedWorkSecondsMetric(string) workqueue.SettableGaugeMetric {
	g.made["unfinished"] = &gauge{}
	return g.made["unfinished"]
}

func (g *gauges) NewLongestRunningProcessorSecondsMetric(string) workqueue.SettableGaugeMetric {
	g.made["longest"] = &gauge{}
	return g.made["longest"]
}

// TestQueueExistsOnlyDuringTheRun looks for what a queue leaves behind; a goroutine of
// one would not let the bubble end.
func TestQueueExistsOnlyDuringTheRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		metrics := &gauges{made: map[string]*gauge{}}
		began := make(chan struct{})
		keys := make(chan string, 1)
		keys <- "slow"
		config := reconciler.Config[string]{
			Name: "queue", Metrics: metrics, Watches: []reconciler.Watch[string]{reconciler.Channel(keys)},
			Reconcile: func(ctx context.Context, _ string) (reconciler.Result, error) {
				close(began)
				<-ctx.Done()
				return reconciler.Result{}, ctx.Err()
			},
		}
		if _, err := reconciler.New(config); err != nil {
			t.Fatal(err)
		}
		r, err := reconciler.New(config)
		if err != nil {
			t.Fatal(err)
		}
		if len(metrics.made) > 0 {
			t.Error("there is a queue before Run")
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- r.Run(ctx) }()
		<-began
		time.Sleep(8 * time.Second) // they are brought up to date every five seconds
		for name, gauge := range metrics.made {
			if got := gauge.get(); got < 2 {
				t.Errorf("%s: got %v s in the eighth second of a reconcile", name, got)
			}
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		time.Sleep(time.Minute)
		for name, gauge := range metrics.made {
			if got := gauge.get(); got != 0 {
				t.Errorf("%s: got %v s after the run, want 0", name, got)
			}
		}
	})
}

// TestQueueThatIsNotEmptyIsLeftToTheNextRun stops a run in its first reconcile of many.
func TestQueueThatIsNotEmptyIsLeftToTheNextRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 1000
		source := &objects{initial: func(h cache.ResourceEventHandler) {
			for i := range n {
				h.OnAdd(configMap(fmt.Sprint(i), "1"), true)
			}
		}}
		run := func(until int) (done int, detached bool) {
			ctx, stop := context.WithCancel(t.Context())
			r, err := reconciler.New(reconciler.Config[cache.ObjectName]{
				Name: "run", Watches: []reconciler.Watch[cache.ObjectName]{reconciler.Self[*corev1.ConfigMap](source)},
				Reconcile: func(context.Context, cache.ObjectName) (reconciler.Result, error) {
					if done++; done == until {
						stop()
						time.Sleep(time.Second)
						detached = source.removed.Load()
					}
					return reconciler.Result{}, nil
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			if err := r.Run(ctx); err != nil {
				t.Error(err)
			}
			return done, detached
		}
		if done, detached := run(1); done != 1 || !detached {
			t.Errorf("the first run: %d reconciles, handler removed while the last was going on: %v; want 1, and that it was", done, detached)
		}
		if done, _ := run(n); done != n {
			t.Errorf("the second run: %d reconciles, want %d", done, n)
		}
	})
}

// TestObjectsWithoutAVersionChange has a fake API server's objects change hands.
func TestObjectsWithoutAVersionChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		named := func(name string) *corev1.ConfigMap {
			object := configMap("a", "")
			object.Annotations = map[string]string{"for": name}
			return object
		}
		source := &objects{}
		order, err := reconciled(t, func() { source.handler.OnUpdate(named("before"), named("after")) },
			reconciler.Each(source, func(object *corev1.ConfigMap) []cache.ObjectName {
				return []cache.ObjectName{{Name: object.Annotations["for"]}}
			}))
		if err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff([]string{"before", "after"}, order); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}
