// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

// Package preflight finds out whether what a controller needs of the API server is
// there, and says what to grant. A controller declares its needs once, as a list of
// [controllers.Access]; this package makes three things of it:
//
//   - [Checker.Check] asks the API server whether each resource is served and each
//     verb granted. The [Report] says whether the controller is blocked, and why, in
//     words that name the fix.
//   - [Roles] renders the RBAC objects that grant it. It asks nobody.
//   - [Rows] and [Table] show reports to people and programs.
//
// The host calls, in this order:
//
//	checker, _ := preflight.New(preflight.Config{REST: config, OwnNamespace: ns})
//	report, err := checker.Check(ctx, access)      // before a controller is built
//	report, err = checker.Recheck(ctx, access, report)  // now and then, while something is missing
//	report, err = checker.Check(ctx, access)       // it was refused something: still there?
//
// # Guarantees
//
//   - An error means that nothing is known: the API server cannot be reached, is too
//     busy, or cannot tell. What is missing is never an error, and an error never a
//     reason to think that something is missing.
//   - Checks at once share their requests: one per API group version, and one per
//     verb, resource, namespace and name, however many controllers ask.
//   - Nothing is asked while nobody checks. There are no goroutines but those of a
//     call, which have ended when it returns.
//   - Requests have a rate limit and at most ten in flight of their own. Each is
//     given up after 10 s and none is repeated: the caller knows when to ask again.
//
// # What it does not guarantee
//
//   - An answer may be a second old, and is no promise: a permission can be taken
//     away right after. A refused request tells; see clients.SetConfig.OnRefused.
//   - Of several API servers one can lag behind the others by a moment, after a
//     CustomResourceDefinition or a role has changed. One that starts says that it is
//     not ready, which is an error here and not a missing resource.
//   - A review says what authorization thinks. Admission may still refuse a write.
//   - Where the API server refuses to list its resources or to review permissions, to
//     this very user, what it would have said is taken as granted.
package preflight
