// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

// Package runner runs the enabled controllers of a lease group: it builds, starts,
// supervises, restarts, blocks, toggles and drains each of them on its own.
//
// The order of calls:
//
//	r := New(Config)            all controllers of the group, enabled or not
//	go r.Live(stop)             builds the enabled ones (Init, informers): warm, before leading
//	r.Run(term)                 OnStartedLeading: runs them, returns when all have returned
//	r.Apply(ctx, desired)       at any time: other gates, other options
//	r.Run(term) ...             again for each later term
//	stop ends                   nothing is built any more; Live returns once no run is left
//
// Guarantees:
//   - A controller's Run is called only while Runner.Run is, never twice at a time,
//     and on a Controller value that no run has had before.
//   - One controller's error, panic, missing API, missing permission or slow stop
//     neither stops nor delays another. It is restarted alone, with exponential
//     backoff, or started by itself once what it lacks appears.
//   - Controllers start after those that they need, and are told to stop only after
//     all that need them and stop too have returned. When the lease is lost all are
//     told at once.
//   - When a run has returned, its fence is shut for ever, and its event handlers
//     are removed. The fence of one that does not return in time is shut, too.
//   - Apply changes everything that is desired or nothing, and touches only the
//     controllers that it changes.
//   - The caches of a controller are held from its first build until it is disabled,
//     blocked or, on a cold standby, out of office: a crash loop lists nothing again.
//
// Not guaranteed: that a controller stops. Run waits for as long as it takes;
// Stragglers names those that are being waited for, and whoever called decides.
package runner
