// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package cluster

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// progress tells the user what happens, a line at a time, with the time since the start and the time of the stage.
type progress struct {
	mu    sync.Mutex
	out   io.Writer
	start time.Time
	last  time.Time
}

func newProgress(out io.Writer) *progress {
	now := time.Now()
	return &progress{out: out, start: now, last: now}
}

// done reports a finished stage.
func (p *progress) done(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	fmt.Fprintf(p.out, "[%5.1fs] %s (%.1fs)\n", now.Sub(p.start).Seconds(), fmt.Sprintf(format, args...), now.Sub(p.last).Seconds())
	p.last = now
}

// say prints a line that is not a stage.
func (p *progress) say(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintf(p.out, "[%5.1fs] %s\n", time.Since(p.start).Seconds(), fmt.Sprintf(format, args...))
}
