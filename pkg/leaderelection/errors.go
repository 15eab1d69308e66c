// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package leaderelection

import "errors"

var (
	// ErrNotLeader is what the fence returns for a write outside its term.
	// errors.Is finds it through client-go's errors; it has the method
	// NotLeader() bool, and nothing was sent.
	ErrNotLeader error = &notLeaderError{reason: "not the leader"}

	// ErrDrainTimeout is what Run returns when OnStartedLeading did not return
	// within the drain timeout, or when Abandon was called during a term. The
	// fence is shut and the lease was not released.
	ErrDrainTimeout = errors.New("the term was not drained: the lease was not released")

	// ErrLost is what Run returns when the lease was lost and OnLost is Exit, or
	// when the callbacks of a lost term did not return within the stop timeout.
	ErrLost = errors.New("the lease was lost")
)

// notLeaderError is a refusal by the fence, with its reason.
type notLeaderError struct{ reason string }

func (e *notLeaderError) Error() string { return "write refused by the fence: " + e.reason }

// NotLeader marks the error for packages that do not import this one.
func (e *notLeaderError) NotLeader() bool { return true }

// Is makes every refusal match ErrNotLeader.
func (e *notLeaderError) Is(target error) bool { return target == ErrNotLeader }
