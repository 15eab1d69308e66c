// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package reconciler

import "sync"

// room is how many keys that can wait the queue has at a time: enough to keep the
// workers busy. The others are in the backlog, where a key takes a third of what it
// takes in client-go's queue, and which gives its memory back when it is empty.
const room = 100

// backlog is a first in, first out queue of keys that can wait, each once. It is safe
// for concurrent use.
//
//	initial list, resync ──► backlog ──feed──► priority ──► workers
//	change ──────────────────────────────────────┘
type backlog[K comparable] struct {
	mu sync.Mutex
	// turns has the keys that wait, with the number of their place. Invariant: a key in
	// it has an entry of that number in line; any other entry is stale.
	turns map[K]int
	line  fifo[turn[K]]
	last  int              // number that was given out
	most  int              // keys that turns has had since it was made
	count func(change int) // is told of the length; nil: nobody is
}

type turn[K comparable] struct {
	key    K
	number int
}

func (b *backlog[K]) add(key K) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, waits := b.turns[key]; waits {
		return
	}
	if b.turns == nil {
		b.turns = map[K]int{}
	}
	b.last++
	b.turns[key] = b.last
	b.most = max(b.most, len(b.turns))
	b.line.push(turn[K]{key, b.last})
	b.changed(1)
}

// remove takes a key out, if it is there.
func (b *backlog[K]) remove(key K) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, waits := b.turns[key]; !waits {
		return
	}
	b.forget(key)
	if stale := b.line.len() - len(b.turns); stale > len(b.turns)+roomy {
		b.tidy()
	}
}

// take returns the key whose turn it is.
func (b *backlog[K]) take() (key K, found bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.line.len() > 0 {
		if first := b.line.pop(); b.turns[first.key] == first.number {
			b.forget(first.key)
			return first.key, true
		}
	}
	return key, false
}

func (b *backlog[K]) forget(key K) {
	delete(b.turns, key)
	if len(b.turns) == 0 && b.most > roomy {
		b.turns, b.line, b.most = nil, fifo[turn[K]]{}, 0 // A map never shrinks.
	}
	b.changed(-1)
}

// tidy drops the stale entries.
func (b *backlog[K]) tidy() {
	var kept fifo[turn[K]]
	for b.line.len() > 0 {
		if entry := b.line.pop(); b.turns[entry.key] == entry.number {
			kept.push(entry)
		}
	}
	b.line = kept
}

func (b *backlog[K]) changed(by int) {
	if b.count != nil {
		b.count(by)
	}
}

// feed moves keys from the backlog into the queue while it has room. Whoever adds to the
// one or takes from the other calls it afterwards, so that no key is left behind.
func (r *Reconciler[K]) feed() {
	for r.order.patients() < room {
		key, found := r.backlog.take()
		if !found {
			return
		}
		r.order.mark(key, true)
		r.queue.Add(key)
	}
}
