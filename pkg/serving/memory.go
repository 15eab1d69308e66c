// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package serving

import (
	"context"
	"crypto/sha256"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/util/cache"
)

const (
	// maxAnswers bounds the answers of one kind that are remembered.
	maxAnswers = 1024
	// failureTTL is how long it is remembered that there was no answer.
	failureTTL = time.Second
)

// memory remembers what has been answered, and has each question asked once at a time,
// however many want to know. It keeps digests of questions: they may be secret or long.
type memory[A any] struct {
	answers *cache.LRUExpireCache // digest -> outcome[A]

	mu     sync.Mutex
	asking map[digest]*question[A]
}

type digest [sha256.Size]byte

// outcome is an answer, or that there was none.
type outcome[A any] struct {
	answer A
	err    error
}

// question is being asked until done is closed.
type question[A any] struct {
	done      chan struct{}
	outcome   outcome[A] // set before done is closed
	abandoned bool       // likewise; who asked has gone away
}

func newMemory[A any]() *memory[A] {
	return &memory[A]{answers: cache.NewLRUExpireCache(maxAnswers), asking: map[digest]*question[A]{}}
}

// recall returns what is remembered, or is being asked, or else asks. ask tells how long
// its answer counts. The error means that there was no answer, or that ctx has ended.
func (m *memory[A]) recall(ctx context.Context, about string, ask func(context.Context) (A, time.Duration, error)) (A, error) {
	key := digest(sha256.Sum256([]byte(about)))
	for {
		m.mu.Lock()
		if known, ok := m.answers.Get(key); ok {
			m.mu.Unlock()
			found := known.(outcome[A])
			return found.answer, found.err
		}
		running, ok := m.asking[key]
		if !ok {
			mine := &question[A]{done: make(chan struct{})}
			m.asking[key] = mine
			m.mu.Unlock()
			return m.ask(ctx, key, mine, ask)
		}
		m.mu.Unlock()
		select {
		case <-running.done:
		case <-ctx.Done():
			var none A
			return none, ctx.Err()
		}
		if !running.abandoned {
			return running.outcome.answer, running.outcome.err
		}
	}
}

func (m *memory[A]) ask(ctx context.Context, key digest, mine *question[A], ask func(context.Context) (A, time.Duration, error)) (A, error) {
	mine.abandoned = true // should ask panic
	defer func() {
		m.mu.Lock()
		delete(m.asking, key)
		m.mu.Unlock()
		close(mine.done)
	}()
	answer, ttl, err := ask(ctx)
	if err != nil {
		ttl = failureTTL
	}
	mine.outcome = outcome[A]{answer, err}
	mine.abandoned = ctx.Err() != nil
	if !mine.abandoned {
		m.answers.Add(key, mine.outcome, ttl)
	}
	return answer, err
}
