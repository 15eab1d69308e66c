// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package controllers

import (
	"context"
	"errors"
	"net/http"
)

// Controller is a control loop. One value serves one run.
type Controller interface {
	// Run works until ctx ends and returns when every goroutine that it started
	// has ended. It is called once, only inside OnStartedLeading (unless the
	// descriptor says EveryReplica).
	//
	// The three ways in which it can end while ctx goes on are told apart: nil is
	// completed (not started again in this term unless the descriptor says
	// RestartCompleted), an error is failed, a panic is panicked; the latter two
	// are restarted with exponential backoff. What it returns after ctx has ended
	// is ignored, unless it is a panic.
	Run(ctx context.Context) error
}

// Readier is implemented by a Controller that others should wait for. Those that
// name it in Needs start once the channel is closed. A Controller without it is
// ready as soon as Run has been called.
type Readier interface {
	// Ready returns a channel that the controller closes when it is ready. It is
	// called once, before Run.
	Ready() <-chan struct{}
}

// HealthChecker is implemented by a Controller that can tell whether it is
// healthy. It is served as the check named after the controller while it runs.
type HealthChecker interface {
	// CheckHealth returns nil, or what is wrong. It must be safe for concurrent
	// use and answer within a second.
	CheckHealth(ctx context.Context) error
}

// Debuggable is implemented by a Controller that has something to show to whoever
// looks for the cause of a problem.
type Debuggable interface {
	// DebugHandler serves below /debug/controllers/NAME while the controller runs.
	// It must show no Secret's data.
	DebugHandler() http.Handler
}

// Skip is what Init returns when the controller has nothing to do in this process.
// It is not a failure: the controller is shown as skipped, with the reason, and is
// not tried again in this process.
func Skip(reason string) error { return &skipError{reason: reason} }

// SkipReason returns the reason if err, or an error that it wraps, is from Skip.
func SkipReason(err error) (reason string, skipped bool) {
	var s *skipError
	if !errors.As(err, &s) {
		return "", false
	}
	return s.reason, true
}

type skipError struct{ reason string }

func (e *skipError) Error() string { return "skipped: " + e.reason }
