// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

// Package clients holds what a controller reaches the API server with: a [Set] of
// clients for one run, and a view, [Informers], of the caches in a [Pool] that
// all controllers of a manager share.
//
// The host calls, in this order:
//
//	pool, _ := clients.NewPool(...)    // one per manager; Run in a goroutine
//	view := pool.View("quota", check)  // before Init; Init asks it for informers
//	view.WaitForSync(ctx)              // warm
//	pool.Contact(ctx)                  // elected: the caches are in contact now
//	view.Attach()                      // Run starts: handlers get the cache replayed
//	view.Detach(ctx)                   // Run has returned: the last handler, too
//	next := pool.View("quota", check)  // a restart: Init again,
//	view.Release()                     // and only then the old view goes
//
// # Guarantees
//
//   - There is one watch and one copy of the objects per (resource, form, scope),
//     however many controllers use them. A cache starts when the first view asks
//     for it; the last Release ends its watch and frees its memory. Views that
//     overlap cost no new list.
//   - Handlers are called from Attach to Detach only, and never after Detach has
//     returned nil. Each is first told of everything in the cache.
//   - A panic in a handler, and a panic or an error in an index function, is
//     reported once on [Informers.Faults] of its own view. The process, the cache
//     and other views go on.
//   - Names of indexes are private to the controller. Adding an index again does
//     nothing, but fails if it misses an object on which its function failed.
//   - An outage of the API server, packets dropped included, ends for the caches
//     within two seconds of its end, without a new list unless their place in the
//     history is gone. [Pool.Contact] proves it, in one round trip if all is well.
//   - A resource that is missing or forbidden harms only those that use it. It is
//     retried with client-go's back-off, logged once per cause, and its last
//     error is in [Informers.Err] and in the error of [Informers.WaitForSync].
//     Who uses it is told: see [Pool.View] and SetConfig.OnRefused.
//   - The clients of a Set are built when first used, and each request of theirs
//     passes SetConfig.Wrap first. The pool's clients refuse to write.
//   - No goroutine outlives [Pool.Run] or the cache that it serves. There is no
//     package-level state, so pools with different names do not meet.
//
// # What it does not guarantee
//
//   - Objects in a cache have no managedFields. Never use the Extract functions of
//     client-go's apply configurations on them: the result is empty, and applying
//     it removes what the manager owns. Apply full intents, or Get live.
//   - Objects in a cache are shared by all controllers. Whoever changes one without
//     a deep copy corrupts it for all.
//   - Caches lag behind the API server, after Contact too. It proves contact, not
//     that nothing happens meanwhile.
//   - An index function is the first run's for as long as the cache lives, because
//     client-go cannot replace one: it must depend on the object alone, not on
//     options. One that never returns stops the cache for everyone.
//   - A panic in a goroutine that a handler has started ends the process.
//   - Informers of a pool do not resync. A controller that wants to look at
//     everything from time to time uses a ticker and its lister.
//   - Informers that are built past the view, such as those of a factory of the
//     controller's own, are not shared, wrapped or known to Contact.
package clients
