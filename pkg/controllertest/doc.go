// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

// Package controllertest runs one controller in a test, against a fake API server or a
// real one, with the same runner that a manager has.
//
// The order of calls:
//
//	h := Run(t, Descriptor(), Config)    built, leading, settled
//	h.Kubernetes.CoreV1()...             the test changes something
//	h.Settle()                           the controller has done what follows from it
//	h.Advance(time.Minute)               the clock moves
//	h.Events(), h.Writes()               what it has recorded and written since
//	h.Stop(), h.Start()                  a hand-over; objects may change in between
//
// The end of the test stops everything.
//
// Guarantees:
//   - The test fails if the controller returns an error, panics, logs an error that
//     Config.AllowErrors does not allow, sends a request that its Access does not
//     declare, records an Event that an API server would refuse, or leaves a goroutine
//     behind. A test may run in parallel with others.
//   - Settle does not guess: in a bubble of testing/synctest it returns when every
//     goroutine waits. Use a bubble with the fake API server.
//   - The fakes of all three forms show the same objects. Their API server has resource
//     versions, UIDs, conflicts, preconditions, finalizers, label selectors, generated
//     names, watches that miss nothing, and server-side apply with its owners.
//   - The clients of the controller refuse to write in Init and after its run, and the
//     clients of the test do not.
//
// Not guaranteed: the fake API server has no defaults, no validation, no admission, no
// garbage collection and no controllers of its own; deleting a namespace leaves what is
// in it. Each version of a resource is a resource of its own. What only a real API
// server does needs a test with Config.REST. Settle then sees only what goes through
// the informers, the clients and the queues, and time is a clock that stands still until
// Advance.
package controllertest
