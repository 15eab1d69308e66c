// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package runner

import (
	"context"
	"sync"
	"time"

	"github.com/incumbent-io/incumbent/pkg/controllers"
)

// turn is one call of Runner.Run: a term, as the units share it.
type turn struct {
	ctx context.Context
	// starts is when the units may start, so that many do not start at one instant.
	starts map[string]time.Time
	// left has a channel for each unit, which the unit closes once ctx has ended and
	// nothing of it runs any more.
	left map[string]chan struct{}

	mu     sync.Mutex
	stages map[string]*stage
}

// stage says when a unit has settled: it is ready, or nobody need wait for it.
type stage struct {
	settled chan struct{}
	settle  func() // closes settled
}

func newStage() *stage {
	settled := make(chan struct{})
	return &stage{settled: settled, settle: sync.OnceFunc(func() { close(settled) })}
}

// Up to startTogether units start at once. More are spread at random over a time that
// grows with their number: a thousand over a tenth of a second.
const (
	startTogether      = 16
	startJitterPerUnit = 100 * time.Microsecond
	startJitterMax     = 100 * time.Millisecond
)

func newTurn(ctx context.Context, units []*unit, now time.Time) *turn {
	t := &turn{
		ctx:    ctx,
		starts: make(map[string]time.Time, len(units)),
		left:   make(map[string]chan struct{}, len(units)),
		stages: make(map[string]*stage, len(units)),
	}
	limit := min(time.Duration(max(len(units)-startTogether, 0))*startJitterPerUnit, startJitterMax)
	for _, u := range units {
		t.stages[u.name] = newStage()
		t.left[u.name] = make(chan struct{})
		t.starts[u.name] = now.Add(time.Duration(jitter() * float64(limit)))
	}
	return t
}

func (t *turn) stage(name string) *stage {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.stages[name]
}

// reopen gives a unit that is to start in the middle of a turn a new stage, so that
// those that need it wait for it again.
func (t *turn) reopen(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stages[name].settle()
	t.stages[name] = newStage()
}

// unsettled returns a channel that closes when a need settles that has not yet, or
// nil if all have.
func (t *turn) unsettled(needs []string) <-chan struct{} {
	for _, need := range needs {
		s := t.stage(need)
		select {
		case <-s.settled:
		default:
			return s.settled
		}
	}
	return nil
}

// lost tells whether the turn ended because the lease was lost.
func (t *turn) lost() bool {
	return t.ctx.Err() != nil && controllers.IsNotLeader(context.Cause(t.ctx))
}

// settle settles the current stage of a unit. There may be no turn.
func (t *turn) settle(name string) {
	if t != nil {
		t.stage(name).settle()
	}
}
