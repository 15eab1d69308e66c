// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

// Package runner runs the enabled controllers of a lease group: it builds, starts,
// supervises, restarts and drains each of them on its own.
//
// The order of calls:
//
//	r := New(Config)
//	go r.Live(stop)         builds every controller (Init, informers): warm, before leading
//	r.Run(term)             OnStartedLeading: runs them, returns when all have returned
//	r.Run(term) ...         again for each later term
//	stop ends               nothing is built any more; Live returns once no run is left
//
// Guarantees:
//   - A controller's Run is called only while Runner.Run is, never twice at a time,
//     and on a Controller value that no run has had before.
//   - One controller's error, panic or slow stop neither stops nor delays another.
//     It is restarted alone, with exponential backoff.
//   - Controllers start after those that they need, and are told to stop only after
//     all that need them have returned. When the lease is lost all are told at once.
//   - When a run has returned, its fence is shut for ever, and its event handlers
//     are removed.
//
// Not guaranteed: that a controller stops. Run waits for as long as it takes;
// Stragglers names those that are being waited for, and whoever called decides.
package runner
