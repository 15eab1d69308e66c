// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package reconciler

import "sync"

// patience is how many keys that cannot wait may overtake one that can: a flood of
// changes slows the initial list down and does not stop it.
const patience = 10

// priority is the order of a workqueue: first in, first out, but what can wait comes
// after what cannot. The workqueue calls its exported methods under a lock of its own;
// mark is called without it.
//
//	            ┌── cannot wait ──► urgent ───────────────────┐
//	mark, Push ─┤                     ▲ marked anew: Touch    ├─► Pop
//	            └── can wait ─────► patient ──────────────────┘
type priority[K comparable] struct {
	mu     sync.Mutex
	urgent fifo[K]
	// patient holds every key that is waiting, and stale entries of keys that have
	// moved to urgent since.
	patient fifo[K]
	waiting int // keys in patient that are not stale
	// marks hold what is known of a key since it was last taken. Invariant: a key in
	// urgent or patient that was marked has an entry until it is taken.
	marks map[K]mark
	most  int // entries that marks has had
	row   int // how many urgent keys were taken in a row while others waited
}

// mark is a set of flags.
type mark uint8

const (
	canWait mark = 1 << iota // every time that it was added, it could wait
	cannot                   // at least once it could not
	waits                    // it is in patient
)

func newPriority[K comparable]() *priority[K] { return &priority[K]{marks: map[K]mark{}} }

// mark says how the key, which is about to be added, is meant. Once it cannot wait that
// holds until it is taken, in whatever order it is added by others.
func (p *priority[K]) mark(key K, patiently bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch m := p.marks[key]; {
	case !patiently:
		p.marks[key] = m&^canWait | cannot
	case m&cannot == 0:
		p.marks[key] = m | canWait
	}
	p.most = max(p.most, len(p.marks))
}

// knows says whether the key was marked and not taken since.
func (p *priority[K]) knows(key K) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.marks[key] != 0
}

// patients is how many keys that can wait do.
func (p *priority[K]) patients() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.waiting
}

// Touch implements workqueue.Queue: the key is in the queue already.
func (p *priority[K]) Touch(key K) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if m := p.marks[key]; m&waits != 0 && m&canWait == 0 {
		p.marks[key] = m &^ waits
		p.waiting--
		p.urgent.push(key)
		p.tidy()
	}
}

// Push implements workqueue.Queue.
func (p *priority[K]) Push(key K) {
	p.mu.Lock()
	defer p.mu.Unlock()
	m := p.marks[key]
	if m&canWait == 0 {
		p.urgent.push(key) // Also a retry, which nobody marks.
		return
	}
	p.marks[key] = m | waits
	p.waiting++
	p.patient.push(key)
}

// Len implements workqueue.Queue.
func (p *priority[K]) Len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.urgent.len() + p.waiting
}

// Pop implements workqueue.Queue. There is something to take.
func (p *priority[K]) Pop() K {
	p.mu.Lock()
	defer p.mu.Unlock()
	key := p.next()
	delete(p.marks, key)
	if len(p.marks) == 0 && p.most > roomy {
		p.marks, p.most = map[K]mark{}, 0 // A map never shrinks.
	}
	return key
}

func (p *priority[K]) next() K {
	if p.urgent.len() > 0 && (p.waiting == 0 || p.row < patience) {
		if p.row++; p.waiting == 0 {
			p.row = 0
		}
		return p.urgent.pop()
	}
	p.row = 0
	for {
		if key := p.patient.pop(); p.marks[key]&waits != 0 {
			p.waiting--
			return key
		}
	}
}

// tidy drops the stale entries once they are the most.
func (p *priority[K]) tidy() {
	if stale := p.patient.len() - p.waiting; stale <= p.waiting || stale < roomy && p.waiting > 0 {
		return
	}
	var kept fifo[K]
	for p.patient.len() > 0 {
		if key := p.patient.pop(); p.marks[key]&waits != 0 {
			p.marks[key] &^= waits // A key can have a stale entry beside the one that counts.
			kept.push(key)
		}
	}
	for _, key := range kept.list {
		p.marks[key] |= waits
	}
	p.patient = kept
}

// roomy is how many elements may take memory that is no longer needed.
const roomy = 1024

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
		f.list, f.head = f.list[:0], 0
		if cap(f.list) > roomy {
			f.list = nil
		}
	} else if f.head > roomy && f.head > len(f.list)/2 {
		f.list, f.head = append([]K(nil), f.list[f.head:]...), 0
	}
	return key
}
