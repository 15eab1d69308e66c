// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package leaderelection

import "time"

// State is a state of the Elector, as drawn at its type.
type State string

// The states of an Elector.
const (
	StateStarting  State = "starting"
	StateObserving State = "observing"
	StateLeading   State = "leading"
	StateDraining  State = "draining"
	StateReleasing State = "releasing"
	StateLost      State = "lost"
	StateStopped   State = "stopped"
	// StateUnelected is the only state, beside starting, draining and stopped,
	// of what NewUnelected returns.
	StateUnelected State = "unelected"
)

// Status is a snapshot of an Elector for status pages and readiness checks.
type Status struct {
	Name, Namespace, LeaseName, Identity string

	State State
	// Holder is the holder in the newest record seen, "" if there is none.
	Holder string
	// HolderEpoch is the epoch of the holder's term, and HolderSince when it began by
	// the holder's clock; zero without a holder.
	HolderEpoch int64
	HolderSince time.Time
	// Transitions is the number in the newest record seen.
	Transitions int32
	// Epoch is the epoch of this candidate's term, 0 without one.
	Epoch int64
	// TermSince is when this candidate's term was opened, zero without one.
	TermSince time.Time
	// Started reports whether OnStartedLeading has been called for the term.
	Started bool
	// FenceOpen reports whether a guarded write would pass now.
	FenceOpen bool
	// LeaseAge is the time since the lease was last known to be renewed: for a leader
	// since its last acknowledged renewal was sent, for others since they saw one; 0
	// if none is known.
	LeaseAge time.Duration
	// InFlight is the number of guarded writes under way.
	InFlight int

	// Contacted reports whether the API server has answered for this lease at
	// least once; LastContact says when it last did.
	Contacted   bool
	LastContact time.Time
	// LastError is the failure that at present keeps this candidate from
	// observing, campaigning or renewing; "" when there is none.
	LastError   string
	LastErrorAt time.Time
}

// Leading reports whether this candidate's controllers may run.
func (s Status) Leading() bool {
	return s.State == StateLeading || s.State == StateUnelected
}
