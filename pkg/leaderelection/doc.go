// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

// Package leaderelection elects one of several processes by a Lease, as
// client-go's package of that name does, and keeps all others from writing.
//
// An [Elector] competes for one Lease: it watches it, takes it when it is free,
// renews it, drains and releases it. Its record is client-go's, and so are its
// callbacks; both kinds of candidates may share a Lease. A [Term] is one
// uninterrupted tenure, with an epoch that rises from term to term. A [Fence],
// one for each run of a controller, lets mutating requests pass only while the
// term is provably valid. An [Identity] says who a candidate is, and lets a
// restarted process take over from its dead predecessor at once. A [Watchdog]
// is the liveness check. What is known of the Lease is a value (view), and what
// to do about it a function of that value; the engine, one goroutine, acts on it.
//
// Order of calls: [OpenIdentity] once in a process; [New] for each Lease;
// [Elector.NewFence] for each run of a controller, its WrapTransport into that
// run's rest.Config; [Elector.Run]; inside OnStartedLeading, [Fence.Open]; when
// the run has returned, [Fence.Shut]. [NewUnelected] gives the same without a
// Lease, and without protection.
//
// # Guarantees
//
//   - No guarded write passes the fence outside a term, and no term begins before
//     the permission of the one before it has ended. This follows from clock
//     rates within 1 % of true time alone: whatever the latency, the order of
//     delivery or the wall clocks, and also beside candidates of client-go.
//     Permission counts from the moment just before an acknowledged renewal was
//     sent; a take-over counts from when the last renewal arrived; the margin
//     between the two covers what clocks may differ.
//   - A write that passed has ended, or was cut off, before the Lease can be
//     taken over: it carries a deadline and the server's timeout parameter, and
//     its connection looks at the clock again with each write.
//   - The Lease is released only by its holder, and only when OnStartedLeading
//     has returned, the fence is shut and the server has answered every write
//     that had passed. Nobody else's Lease is ever cleared, except that of a
//     process proven dead.
//   - Epochs rise strictly, also across a deletion of the Lease, as long as the
//     API servers' clocks do not go back by more than the Lease's age.
//   - OnStartedLeading, and OnStoppedLeading after it, are called once for each
//     term; a lost term's callbacks have returned before the next term begins.
//   - A hand-over takes two requests and an event; a dead leader is replaced one
//     lease duration after its last renewal arrived; a standby whose watch is
//     sound sends nothing while the leader renews.
//
// # Not guaranteed
//
//   - A hypervisor that pauses a machine and hides it from all three clocks.
//   - A process frozen between the last look at the clock and the system call
//     that sends the bytes. Only preconditions on the object (resourceVersion,
//     uid), or the fencing policy, refuse what arrives late.
//   - Hand edits: after the holder or the duration was edited, or the Lease was
//     deleted while a candidate is present that has just started, is client-go's,
//     or was cut off since an earlier deletion, two may lead until the leader's
//     watch tells it, or until its cutoff if it is cut off itself. The same holds
//     when a candidate of client-go clears the lease of its successor, as it may
//     when it is told to stop. Edits of labels and annotations are harmless.
//   - After an instant reclaim, requests that the dead process had sent may still
//     take effect.
//   - Effects outside the API: call [Term.Check] right before them, and hand on
//     the epoch.
//   - Upgraded and streaming requests have no deadline; they are cut off when the
//     fence is shut.
//
// # Tests
//
// The simulation (TestSimulation) runs candidates of ours and of client-go in
// virtual time against an API server in memory, through partitions, late and
// lost answers, stalled watches, stale lists, deletions, edits, freezes, crashes
// and clocks that drift and jump. -seeds=N sets how many lives it draws, -seed=N
// the first, and -simlog prints them.
package leaderelection
