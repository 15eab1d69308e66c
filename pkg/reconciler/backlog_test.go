// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package reconciler

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"

	"k8s.io/client-go/util/workqueue"
)

// TestBacklogIsAListWithoutDuplicates compares a backlog with a list, on random input.
func TestBacklogIsAListWithoutDuplicates(t *testing.T) {
	for seed := range uint64(50) {
		random := rand.New(rand.NewPCG(seed, 0))
		length := 0
		b := backlog[int]{count: func(change int) { length += change }}
		var model []int
		for step := range 20000 {
			key := random.IntN(3000)
			switch action := random.IntN(10); {
			case action < 4+int(seed%3):
				if !slices.Contains(model, key) {
					model = append(model, key)
				}
				b.add(key)
			case action < 7:
				model = slices.DeleteFunc(model, func(k int) bool { return k == key })
				b.remove(key)
			default:
				got, found := b.take()
				if found != (len(model) > 0) || found && got != model[0] {
					t.Fatalf("seed %d, step %d: took %d (%t), want the first of %v", seed, step, got, found, model)
				}
				model = model[min(1, len(model)):]
			}
			if length != len(model) {
				t.Fatalf("seed %d, step %d: a length of %d was told, want %d", seed, step, length, len(model))
			}
			if most := 2*len(model) + roomy + 1; b.line.len() > most {
				t.Fatalf("seed %d, step %d: %d entries for %d keys, want at most %d", seed, step, b.line.len(), len(model), most)
			}
		}
	}
}

func TestBacklogGivesItsMemoryBack(t *testing.T) {
	var b backlog[int]
	for i := range 10 * roomy {
		b.add(i)
	}
	for range 10 * roomy {
		b.take()
	}
	if b.turns != nil || cap(b.line.list) > roomy {
		t.Errorf("an empty backlog keeps a map (%t) and room for %d entries", b.turns != nil, cap(b.line.list))
	}
}

// TestOfTheInitialListTheQueueHoldsLittle has no worker until all keys are there, as
// client-go's part of the queue never gives memory back.
func TestOfTheInitialListTheQueueHoldsLittle(t *testing.T) {
	const n = 5000
	depth := &gauge{}
	var reconciled atomic.Int64
	r, err := New(Config[int]{
		Name: "test", Metrics: depthOnly{depth}, Watches: []Watch[int]{Channel(make(chan int))},
		Reconcile: func(context.Context, int) (Result, error) {
			reconciled.Add(1)
			return Result{}, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	r.queue, _ = r.newQueue()
	for range 2 { // Each key counts once.
		for i := range n {
			r.add(i, true)
		}
	}
	if got := r.queue.Len(); got != room {
		t.Errorf("keys in the queue: got %d, want %d", got, room)
	}
	if got := depth.Load(); got != n {
		t.Errorf("depth: got %d, want %d", got, n)
	}
	r.add(n-1, false)
	if key, _ := r.queue.Get(); key != n-1 {
		t.Errorf("first is %d, want the change of %d", key, n-1)
	} else {
		r.queue.Done(key)
	}
	for i := range n - 1 {
		key, _ := r.queue.Get()
		r.feed()
		r.queue.Done(key)
		if key != i {
			t.Fatalf("key %d of the list is %d", i, key)
		}
	}
	if got := depth.Load(); got != 0 || r.queue.Len() != 0 {
		t.Errorf("all was taken, but the depth is %d and the queue holds %d", got, r.queue.Len())
	}
	r.queue.ShutDown()
}

// TestNoKeyIsLeftInTheBacklog adds and takes at the same time, again and again until the
// last key was the only one.
func TestNoKeyIsLeftInTheBacklog(t *testing.T) {
	for range 20 {
		const n = 2000
		all := make(chan struct{})
		var left atomic.Int64
		left.Store(n)
		r, err := New(Config[int]{
			Name: "test", Workers: 4, Watches: []Watch[int]{Channel(make(chan int))},
			Reconcile: func(context.Context, int) (Result, error) {
				if left.Add(-1) == 0 {
					close(all)
				}
				return Result{}, nil
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		added := Channel(make(chan int))
		added.attach = func(r *Reconciler[int]) (func() error, error) {
			for adder := range 4 {
				go func() {
					for i := adder; i < n; i += 4 {
						r.add(i, true)
					}
				}()
			}
			return func() error { return nil }, nil
		}
		r.config.Watches = []Watch[int]{added}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- r.Run(ctx) }()
		<-all
		cancel()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
	}
}

type gauge struct{ atomic.Int64 }

func (g *gauge) Inc() { g.Add(1) }
func (g *gauge) Dec() { g.Add(-1) }

// depthOnly is a provider of metrics of which only the depth is looked at.
type depthOnly struct{ depth *gauge }

func (p depthOnly) NewDepthMetric(string) workqueue.GaugeMetric          { return p.depth }
func (depthOnly) NewAddsMetric(string) workqueue.CounterMetric           { return &ignored{} }
func (depthOnly) NewLatencyMetric(string) workqueue.HistogramMetric      { return &ignored{} }
func (depthOnly) NewWorkDurationMetric(string) workqueue.HistogramMetric { return &ignored{} }
func (depthOnly) NewUnfinishedWorkSecondsMetric(string) workqueue.SettableGaugeMetric {
	return &ignored{}
}
func (depthOnly) NewLongestRunningProcessorSecondsMetric(string) workqueue.SettableGaugeMetric {
	return &ignored{}
}
func (depthOnly) NewRetriesMetric(string) workqueue.CounterMetric { return &ignored{} }

type ignored struct{}

func (*ignored) Inc()            {}
func (*ignored) Observe(float64) {}
func (*ignored) Set(float64)     {}
