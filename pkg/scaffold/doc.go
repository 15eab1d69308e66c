// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

// Package scaffold writes a new manager: a Go module of its own, with one controller, its
// tests and its manifests, that builds, passes its tests and runs as it is. It is the
// subcommand init of the shipped manager.
//
//	NewCommand ──► Config.Validate (all mistakes) ──► Files ──► Write (all or nothing)
//
// Guarantees: no file is overwritten, and nothing is written unless everything can be.
// What is written belongs to its author: nothing reads or changes it later.
//
// Not guaranteed: that what was written follows a later release; it names the release
// that wrote it in its go.mod.
package scaffold
