// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

// Package objectttl is the object-ttl controller: it deletes objects that carry
// an expiry in an annotation once that expiry has passed.
//
// The order of things for one object:
//
//	metadata informer ── annotated? ──► queue ──► deadline of the cached object
//	                                      ▲          │ none, or being deleted: done
//	                                      │          │ malformed: one Warning Event, done
//	                                      └─ later ──┤ ahead: look again at that instant
//	                                                 ▼ passed
//	                                   DELETE with UID and resourceVersion ──► Event
//
// Guarantees:
//   - Never early: the wall clock is read when the timer fires, the second that
//     metadata.creationTimestamp cuts off is added to a ttl, and a DELETE names the
//     UID and the resourceVersion whose annotations were judged. An object that was
//     changed or replaced meanwhile is judged anew.
//   - On time: a timer per object, no polling of the API. A step of the wall clock
//     to the future is noticed within an hour.
//   - A malformed annotation never leads to a deletion.
//   - When Run has returned no request is in flight.
//
// Not guaranteed: "never early" is by the clock of this process against the clock of
// the API server; their difference adds to it. An Event can be lost (it is sent once,
// after the deletion), and a malformed annotation is announced again by the next run:
// what has been announced is kept in memory only.
package objectttl
