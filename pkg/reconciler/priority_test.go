// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package reconciler

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"k8s.io/client-go/util/workqueue"
)

// TestPriorityAgainstANaiveModel drives a queue at random, and compares what it holds
// with a set, and its order with the rule: of the urgent keys the one that became so
// first, but after ten of them the patient one that came first.
func TestPriorityAgainstANaiveModel(t *testing.T) {
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 0))
		p := newPriority[int]()
		var urgent, patient []int // the naive model
		row := 0
		for step := range 2000 {
			k := random.IntN(30)
			inUrgent, inPatient := slices.Index(urgent, k), slices.Index(patient, k)
			switch canWait := random.IntN(2) == 0; {
			case random.IntN(3) == 0 && p.Len() > 0:
				var want int
				if len(urgent) > 0 && (len(patient) == 0 || row < patience) {
					want, urgent = urgent[0], urgent[1:]
					row++
					if len(patient) == 0 {
						row = 0
					}
				} else {
					want, patient = patient[0], patient[1:]
					row = 0
				}
				if got := p.Pop(); got != want && slices.Index(patient, got) < 0 {
					t.Fatalf("seed %d, step %d: got %d, want %d", seed, step, got, want)
				} else if got != want {
					// A stale entry may stand for a key that came back: it is early then.
					patient[slices.Index(patient, got)] = want
				}
			case inUrgent >= 0:
				p.mark(k, canWait)
				p.Touch(k)
			case inPatient >= 0:
				p.mark(k, canWait)
				p.Touch(k)
				if !canWait {
					patient = slices.Delete(patient, inPatient, inPatient+1)
					urgent = append(urgent, k)
				}
			default:
				p.mark(k, canWait)
				p.Push(k)
				if canWait {
					patient = append(patient, k)
				} else {
					urgent = append(urgent, k)
				}
			}
			if got, want := p.Len(), len(urgent)+len(patient); got != want {
				t.Fatalf("seed %d, step %d: length %d, want %d", seed, step, got, want)
			}
		}
		for p.Len() > 0 {
			p.Pop()
		}
		if len(p.marks) != 0 || p.waiting != 0 {
			t.Fatalf("seed %d: empty, but marks %v and %d waiting", seed, p.marks, p.waiting)
		}
	}
}

// TestPriorityHoldsNoMoreThanItsKeys has keys wait, become urgent, and wait again, for a
// long time behind one that is never taken.
func TestPriorityHoldsNoMoreThanItsKeys(t *testing.T) {
	p := newPriority[int]()
	for k := range 100 {
		p.mark(k, true)
		p.Push(k)
	}
	for range 100000 {
		p.mark(1000, true)
		p.Push(1000)
		p.mark(1000, false)
		p.Touch(1000)
		p.row = 0 // no patient key gets its turn
		if got := p.Pop(); got != 1000 {
			t.Fatalf("got %d, want the urgent key", got)
		}
	}
	if n := cap(p.patient.list) + cap(p.urgent.list); p.Len() != 100 || n > 4*roomy {
		t.Errorf("%d keys take room for %d, want room for at most %d", p.Len(), n, 4*roomy)
	}
}

// TestPriorityGivesItsMemoryBack empties a large queue.
func TestPriorityGivesItsMemoryBack(t *testing.T) {
	p := newPriority[int]()
	for k := range 100000 {
		p.mark(k, k%2 == 0)
		p.Push(k)
	}
	for p.Len() > 0 {
		p.Pop()
	}
	if cap(p.urgent.list)+cap(p.patient.list) > 2*roomy || p.most != 0 {
		t.Errorf("empty, but it keeps room for %d and %d keys, and marks for %d", cap(p.urgent.list), cap(p.patient.list), p.most)
	}
}

// TestPriorityInAQueueLeaksNoMark has many goroutines add keys in both ways while others
// take them, and looks at what is left.
func TestPriorityInAQueueLeaksNoMark(t *testing.T) {
	r, err := New(Config[int]{Name: "x", Reconcile: never, Watches: []Watch[int]{Channel(make(chan int))}})
	if err != nil {
		t.Fatal(err)
	}
	queue := workqueue.NewTypedWithConfig(workqueue.TypedQueueConfig[int]{Queue: r.order})
	var adders, takers sync.WaitGroup
	for i := range 4 {
		adders.Go(func() {
			random := rand.New(rand.NewPCG(uint64(i), 1))
			for range 20000 {
				k, canWait := random.IntN(50), random.IntN(2) == 0
				r.order.mark(k, canWait)
				queue.Add(k)
			}
		})
		takers.Go(func() {
			for {
				k, down := queue.Get()
				if down {
					return
				}
				queue.Done(k)
			}
		})
	}
	adders.Wait()
	queue.ShutDownWithDrain()
	takers.Wait()
	if len(r.order.marks) != 0 || r.order.waiting != 0 || r.order.Len() != 0 {
		t.Errorf("all was taken, but there are marks %v, %d waiting, length %d", r.order.marks, r.order.waiting, r.order.Len())
	}
}

func never(context.Context, int) (Result, error) { panic("not called") }
