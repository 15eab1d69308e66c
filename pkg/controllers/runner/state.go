// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package runner

import "time"

// State is where a controller stands in its life.
//
//	disabled ◄── the gate closes, from any state (a run drains first)
//	   │
//	   │ the gate opens                       an API or a permission is missing
//	   ▼                                      ──────────────────────────────────►┐
//	building ───► Init says Skip ───► skipped                                     │
//	 │  ▲ ▲ ▲◄─────────────────────── it has appeared ────────────────────── blocked
//	 │  │ │ └───────── the pause is over ────────────┐                            ▲
//	 │  │ └────────── term over, not stopping ──┐    │                            │
//	 │  └── its options changed (after a drain) │    │                            │
//	 │ built, caches synced                     │    │                            │
//	 ▼                                          │    │                            │
//	warm ── leads, its needs have settled ──► running│                            │
//	                                          │ │ │  │                            │
//	                  Run returns nil ◄───────┘ │ └► backoff ◄── Init fails       │
//	                  completed                 │    Run fails or panics;         │
//	                                            │    a handler of it panics       │
//	                                            ▼                                 │
//	     stopped ◄── stopping, or cold ──── draining ─── its API is gone ─────────┘
//	                                            │ ▲
//	           does not return within StopTimeout │ returns after all
//	                                            ▼ │
//	                                           stuck
//
// From warm, backoff, completed and skipped, too, a controller becomes blocked,
// disabled or stopped; nothing has to be drained then.
type State string

// The states of a controller.
const (
	Disabled  State = "disabled"  // the gate is closed
	Blocked   State = "blocked"   // an API or a permission is missing; starts by itself when it appears
	Building  State = "building"  // its access is checked, Init is called, its caches are synced
	Warm      State = "warm"      // built and synced; runs when this replica leads
	Running   State = "running"   // Run has been called and has not returned
	Backoff   State = "backoff"   // failed or panicked; is built anew after a pause
	Completed State = "completed" // Run returned nil although it was not asked to stop
	Skipped   State = "skipped"   // Init found nothing to do in this process
	Draining  State = "draining"  // told to stop, has not returned yet
	Stuck     State = "stuck"     // told to stop, did not return in time; its fence is shut for ever
	Stopped   State = "stopped"   // nothing of it is left or kept
)

// States lists every state.
func States() []State {
	return []State{Disabled, Blocked, Building, Warm, Running, Backoff, Completed, Skipped, Draining, Stuck, Stopped}
}

// Cause says why a run or a build of a controller failed.
type Cause string

// The causes of a failure.
const (
	CauseError   Cause = "error"   // Init or Run returned an error
	CausePanic   Cause = "panic"   // Init or Run panicked
	CauseHandler Cause = "handler" // an event handler panicked, or an index function failed
)

// Causes lists every cause.
func Causes() []Cause { return []Cause{CauseError, CausePanic, CauseHandler} }

// Status is a snapshot of one controller.
type Status struct {
	Name string
	// Group is its lease group, empty on every replica.
	Group string
	State State
	// Reason says in one line why it is in that state; empty where that goes without
	// saying.
	Reason string
	// Since is when it came into that state.
	Since time.Time
	// Restarts counts the failures since the process started, by cause.
	Restarts map[Cause]int
	// LastError is the last failure in one line, empty if there was none, and
	// LastErrorAt when it was.
	LastError   string
	LastErrorAt time.Time
	// RetryAt is when it is built anew; zero unless it is in Backoff.
	RetryAt time.Time
}
