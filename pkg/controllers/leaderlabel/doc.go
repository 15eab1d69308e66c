// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

// Package leaderlabel is the leader-label controller: it labels the Pod of the
// leader, so that a Service can route to it, and takes the label from all others.
//
// It runs only while this process leads. Each round, at the start of the run, whenever
// the labels of a labelled Pod change, and every five minutes, asks the API server and
// has this order:
//
//	labelled Pods ──► take both labels from every other Pod of this lease
//	                     │ any of them failed: again later, nobody is labelled
//	                     ▼
//	                  label this Pod
//
// Guarantees:
//   - The others lose the label before this Pod gets it, so a selector on it matches
//     nobody for the time between two requests rather than two Pods.
//   - Every patch carries the UID of the Pod that it is meant for. A Pod that took
//     over the name of another is not touched by a decision about that one.
//   - A Pod that is labelled for another lease is left alone, also if that happens at the
//     last moment: what is taken is taken from the version that was judged.
//   - When Run has returned no request is in flight.
//
// Not guaranteed: the label stays after the end of the run, until the next leader
// takes it; without a next leader it stays. A label that somebody else puts on a
// second Pod is there until the watch has shown it, or, where the watch misses it because
// etcd was restored from a backup, for five minutes. So the label is for routing, and
// no proof of leadership: that is the fence of the leader's own writes.
package leaderlabel
