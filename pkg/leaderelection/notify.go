// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package leaderelection

import (
	"context"
	"sync"
)

// mailbox runs functions one after the other, in order, without ever holding up
// who posts them: what they call is not ours and may block.
type mailbox struct {
	mu    sync.Mutex
	jobs  []func()
	ready chan struct{}
}

func newMailbox() *mailbox { return &mailbox{ready: make(chan struct{}, 1)} }

func (m *mailbox) post(job func()) {
	m.mu.Lock()
	m.jobs = append(m.jobs, job)
	m.mu.Unlock()
	select {
	case m.ready <- struct{}{}:
	default:
	}
}

func (m *mailbox) take() []func() {
	m.mu.Lock()
	defer m.mu.Unlock()
	jobs := m.jobs
	m.jobs = nil
	return jobs
}

// run runs what is posted until ctx ends, and what was posted before then.
func (m *mailbox) run(ctx context.Context) {
	for {
		for _, job := range m.take() {
			job()
		}
		select {
		case <-m.ready:
		case <-ctx.Done():
			for _, job := range m.take() {
				job()
			}
			return
		}
	}
}
