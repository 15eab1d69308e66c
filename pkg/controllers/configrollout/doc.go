// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

// Package configrollout is the config-rollout controller: it rolls Deployments,
// StatefulSets and DaemonSets that ask for it when the content of a ConfigMap or Secret
// that their Pods see changes.
//
// The order of things for one workload:
//
//	its own changes ──────────┐
//	metadata of what it ──► queue ──► opted in? ──► content = record on the workload?
//	refers to (an index)      ▲          │ no: marks removed   │ yes: done
//	                          │          │ malformed: Event    │ never recorded: recorded
//	                          │                                ▼ no
//	                          └─ later ── changes still go on, or paused, or missing
//	                                                           ▼ quiet
//	                              PATCH with the resourceVersion that was judged: a new
//	                              hash on the Pod template, and the new record ──► Event
//
// What Pods were rolled for is recorded on the workload itself, in the patch that rolls
// it, and a label seals the record (see standing). So a new leader knows what the last
// one knew, and there is no moment at which the one is written and the other is not.
//
// Guarantees:
//   - A change of content that is recorded is followed by a rollout, whoever leads when
//     it happens or later, unless it is taken back before it was due.
//   - No rollout without one: not at a start, not by metadata, not for an object that was
//     deleted, not by a change of the Pod template, and not after `kubectl rollout undo`.
//   - A write is refused by the API server if the workload is not what was judged.
//   - Workloads that did not opt in are never written.
//   - A source is read once for each of its versions, and not at all if it still has the
//     version of the record. The content of sources is not kept, only fingerprints are.
//
// Not guaranteed: changes before a reference was first recorded, or while a Secret's
// fingerprints cannot be compared since their key was lost, are not noticed. An Event
// can be lost, or told again by the next run. Two managers that both run this controller
// do not roll twice, but may miss changes of Secrets; one says so.
package configrollout
