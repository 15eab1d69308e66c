// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

// Package reconciler is a control loop driven by a queue of keys, for authors of
// controllers: informers put keys into it, workers take them out and reconcile. It is
// optional; a Reconciler is a controllers.Controller by its methods alone.
//
//	r, err := reconciler.New(Config)  in Init; starts nothing
//	r.Run(ctx)                        event handlers and workers; returns when all have gone
//
// Guarantees:
//   - A key is never reconciled by two workers at a time, and one that is added while
//     it is being reconciled is reconciled once more afterwards.
//   - A failed reconcile, an error or a panic, is tried again with exponential backoff
//     of its key alone. An error marked Terminal is not, until the key is added again;
//     one marked Fatal ends the run.
//   - The queue holds a key once, however often it is added, so it is never longer than
//     there are keys. It exists only during the run.
//   - Changes overtake what the initial list and resyncs bring; of those, one of eleven
//     keys is taken even so, so that a flood of changes does not stop them.
//   - When ctx ends, no further key is taken and the handlers are removed. The reconciles
//     that run are waited for; their context ends after Grace, or at once if the lease is
//     lost, which is told by the method NotLeader of the cause of ctx.
//   - Every reconcile is told to Metrics and Tracer, by how it ended.
//   - CheckHealth fails while a worker is busy with one key for longer than StuckAfter.
//
// Not guaranteed: that a reconcile which ignores its context ends. A panic in a function
// of a watch, or in a goroutine that a reconcile has started, is not caught here. When Run
// returns, the last call of a function of a watch may still be under way. For each of the
// most changed keys that the queue has held, client-go keeps up to 200 bytes until the run
// ends; what can wait is kept apart, and its memory goes when it is empty.
package reconciler
