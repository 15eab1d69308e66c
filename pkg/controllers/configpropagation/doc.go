// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

// Package configpropagation is the config-propagation controller: it copies annotated
// ConfigMaps and Secrets to the namespaces that their annotation selects, and keeps the
// copies equal. Descriptor is all that there is to call;
// docs/controllers/config-propagation.md is for its users.
//
// What should be is a function of what is: of one name, in one namespace, the copy is
// that of the oldest source that selects the namespace, unless the namespace refuses, or
// has an object of that name that is no copy. Each such target is judged alone, by one
// worker at a time, from caches of metadata; the content of a source is read once for
// each of its versions, and that of a copy only where the cache has a version that this
// run has neither read nor written.
//
// Guarantees:
//   - Nothing is written to an object that is not a copy, except AnnotationStatus to a
//     source. An object is a copy by two marks, which name the place that it was made
//     for. A copy is created only where there is nothing, in one request, and it is
//     written or deleted only in the version that was judged.
//   - A copy is never a source.
//   - Without a change there is no write, over restarts, too.
//   - Secrets are watched and read only with Options.Secrets. Their content is in no
//     log, Event or annotation.
//
// Not guaranteed: that a copy is equal at every moment, or that there is one while it is
// replaced because it is immutable or has another type.
package configpropagation
