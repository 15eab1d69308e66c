// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

// Package reconciler is a control loop driven by a queue of keys, for authors of
// controllers: informers put keys into it, workers take them out and reconcile. It is
// optional; a Reconciler is a controllers.Controller by its methods alone.
//
//	r, err := reconciler.New(Config)  in Init: adds event handlers
//	r.Run(ctx)                        workers; returns when all have returned
//
// Guarantees:
//   - A key is never reconciled by two workers at a time, and one that is added while
//     it is being reconciled is reconciled once more afterwards.
//   - A failed reconcile, an error or a panic, is tried again with exponential backoff
//     of its key alone. An error marked Terminal is not.
//   - Changes overtake what the initial list and resyncs bring.
//   - When ctx ends, no further key is taken, the reconciles that run get an ended
//     context and are waited for, and the handlers are removed.
//   - CheckHealth fails while a worker is busy with one key for longer than StuckAfter
//     and no other reconcile has ended in that time.
//
// Not guaranteed: that a reconcile which ignores its context ends.
package reconciler
