// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

//go:build linux

package node

import "time"

// The kubelet's crash-loop back-off (its default settings; pkg/kubelet and client-go's flowcontrol.Backoff).
const (
	backoffInitial = 10 * time.Second
	backoffMax     = 5 * time.Minute
	backoffReset   = 10 * time.Minute
)

// backoff decides when a container may be started again. The zero value lets the first restart happen at once.
type backoff struct {
	delay   time.Duration // to wait after the next end
	started time.Time     // the restart that set delay
}

// wait returns how long after its end a container has to wait, and forgets the past of one that ran for long.
func (b *backoff) wait(finished time.Time) time.Duration {
	if finished.Sub(b.started) > backoffReset {
		b.delay = 0
	}
	return b.delay
}

// restarted notes a restart: the next one has to wait twice as long.
func (b *backoff) restarted(now time.Time) {
	b.started = now
	if b.delay == 0 {
		b.delay = backoffInitial
		return
	}
	b.delay = min(2*b.delay, backoffMax)
}
