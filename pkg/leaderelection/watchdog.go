// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package leaderelection

import (
	"context"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"
)

// pulse is the sign of life of a loop: by when it should turn again.
type pulse struct{ due atomic.Int64 } // on the monotonic clock; 0 while it may rest

func (p *pulse) busy(now Reading, limit time.Duration) { p.due.Store(int64(now.Mono + limit)) }

func (p *pulse) rest() { p.due.Store(0) }

// late returns by how much the loop is late, 0 if it is not.
func (p *pulse) late(now Reading) time.Duration {
	due := time.Duration(p.due.Load())
	if due == 0 {
		return 0
	}
	return max(now.Mono-due, 0)
}

// Watchdog is a liveness check for one lease. It fails when the controllers of
// a term still run 5 s after the lease could have been taken over, and when one
// of the Elector's loops has not turned for two retry periods although it should
// have. An API server that cannot be reached does not make it fail.
type Watchdog struct{ elector *Elector }

// Name returns "leader-election-" and the lease group's name.
func (w *Watchdog) Name() string { return "leader-election-" + w.elector.cfg.Name }

// Check fails as described at the type. A loop that seems late gets half a
// second to turn, for a process that was just resumed is not stuck.
func (w *Watchdog) Check(req *http.Request) error {
	e := w.elector
	err := w.check()
	if err == nil {
		return nil
	}
	ctx := context.Background()
	if req != nil {
		ctx = req.Context()
	}
	e.poke()
	sleep(ctx, e.cfg.Clock, 500*time.Millisecond)
	return w.check()
}

func (w *Watchdog) check() error {
	e := w.elector
	now := e.cfg.Clock.Read()
	allowed := 2 * e.cfg.Timing.RetryPeriod
	if late := e.turn.late(now); late > allowed {
		return fmt.Errorf("the renew loop is %v late", late.Round(time.Millisecond))
	}
	if late := e.observe.late(now); late > allowed {
		return fmt.Errorf("the observe loop is %v late", late.Round(time.Millisecond))
	}
	t := e.running.Load()
	if t == nil || t.unbounded {
		return nil
	}
	if past := t.overtime(now); past > watchdogGrace {
		return fmt.Errorf("controllers still run %v after the lease could have been taken over", past.Round(time.Millisecond))
	}
	return nil
}
