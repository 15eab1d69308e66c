// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package preflight

import (
	"context"
	"sync"
	"time"
)

// keepFor is how long an answer is good enough for whoever asks the same: controllers
// are checked together, and then not for a long time.
const keepFor = time.Second

// answers gives equal questions one answer: those that are asked while one is under
// way wait for it, and an answer that is kept serves for a moment longer. It is safe
// for concurrent use.
type answers[Q comparable, A any] struct {
	ask  func(context.Context, Q) (A, error)
	keep func(A) bool // no error is kept

	mu    sync.Mutex
	known map[Q]*answer[A]
}

// answer is one question under way, and then what came of it.
type answer[A any] struct {
	done chan struct{} // closed once the rest is set, and never changes again

	value A
	err   error
	// abandoned means that whoever asked gave up, which says nothing to others.
	abandoned bool
	until     time.Time // kept until; zero: not kept
}

func newAnswers[Q comparable, A any](ask func(context.Context, Q) (A, error), keep func(A) bool) *answers[Q, A] {
	return &answers[Q, A]{ask: ask, keep: keep, known: map[Q]*answer[A]{}}
}

// get returns the answer to question. An error of ctx is this caller's alone.
func (a *answers[Q, A]) get(ctx context.Context, question Q) (A, error) {
	for {
		found, mine := a.find(question)
		if mine {
			a.answer(ctx, question, found)
			return found.value, found.err
		}
		select {
		case <-found.done:
			if !found.abandoned {
				return found.value, found.err
			}
		case <-ctx.Done():
			var none A
			return none, context.Cause(ctx)
		}
	}
}

// find returns the answer to wait for, and whether it is the caller who has to ask.
func (a *answers[Q, A]) find(question Q) (found *answer[A], mine bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if found = a.known[question]; found != nil && !found.over() {
		return found, false
	}
	found = &answer[A]{done: make(chan struct{})}
	a.known[question] = found
	return found, true
}

// answer asks, and lets go of what is not kept before anyone sees it.
func (a *answers[Q, A]) answer(ctx context.Context, question Q, to *answer[A]) {
	defer close(to.done)
	to.value, to.err = a.ask(ctx, question)
	to.abandoned = to.err != nil && ctx.Err() != nil
	a.mu.Lock()
	defer a.mu.Unlock()
	if to.err == nil && a.keep(to.value) {
		to.until = time.Now().Add(keepFor)
		return
	}
	delete(a.known, question)
}

// over says whether the answer has come and is no longer kept. The caller holds the
// mutex of answers.
func (a *answer[A]) over() bool { return !a.until.IsZero() && !time.Now().Before(a.until) }
