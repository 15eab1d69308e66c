// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package reconciler

import "sync"

// priority is the order of a workqueue: first in, first out, but what can wait comes
// after all that cannot. The workqueue calls its exported methods under a lock of its
// own.
type priority[K comparable] struct {
	urgent  fifo[K]
	patient fifo[entry[K]]
	// waiting are the keys in patient, by their entry's number. An entry of another
	// number is that of a key that has moved to urgent since.
	waiting map[K]int
	number  int

	mu      sync.Mutex
	canWait map[K]struct{} // keys that are about to be added and can wait
}

type entry[K comparable] struct {
	key    K
	number int
}

func newPriority[K comparable]() *priority[K] {
	return &priority[K]{waiting: map[K]int{}, canWait: map[K]struct{}{}}
}

// mark says how the Push or Touch of the key that follows is meant.
func (p *priority[K]) mark(key K, canWait bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if canWait {
		p.canWait[key] = struct{}{}
	} else {
		delete(p.canWait, key)
	}
}

func (p *priority[K]) marked(key K) (canWait bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, canWait = p.canWait[key]
	delete(p.canWait, key)
	return canWait
}

// Touch implements workqueue.Queue: the key is in the queue already.
func (p *priority[K]) Touch(key K) {
	if _, waits := p.waiting[key]; !p.marked(key) && waits {
		delete(p.waiting, key)
		p.urgent.push(key)
	}
}

// Push implements workqueue.Queue.
func (p *priority[K]) Push(key K) {
	if !p.marked(key) {
		p.urgent.push(key)
		return
	}
	p.number++
	p.waiting[key] = p.number
	p.patient.push(entry[K]{key, p.number})
}

// Len implements workqueue.Queue.
func (p *priority[K]) Len() int { return p.urgent.len() + len(p.waiting) }

// Pop implements workqueue.Queue. There is something to take.
func (p *priority[K]) Pop() K {
	if p.urgent.len() > 0 {
		return p.urgent.pop()
	}
	for {
		e := p.patient.pop()
		if p.waiting[e.key] == e.number {
			delete(p.waiting, e.key)
			return e.key
		}
	}
}

// fifo is a queue whose memory is given back as it shrinks.
type fifo[K any] struct {
	list []K
	head int
}

func (f *fifo[K]) len() int { return len(f.list) - f.head }

func (f *fifo[K]) push(key K) { f.list = append(f.list, key) }

func (f *fifo[K]) pop() K {
	key := f.list[f.head]
	var none K
	f.list[f.head] = none
	if f.head++; f.head == len(f.list) {
		f.list, f.head = nil, 0
	} else if f.head > 1024 && f.head > len(f.list)/2 {
		f.list, f.head = append([]K(nil), f.list[f.head:]...), 0
	}
	return key
}
