// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

// Package status is the snapshot of what runs where, and its faces: JSON, a page for
// browsers and a table for terminals. It has no logic of its own: whoever makes a
// Snapshot fills in all that is known at one moment, and the faces only say it.
//
// Handler serves the faces of one replica. WriteText writes the table of one replica
// or of several, as `manager status` prints it.
//
// Guarantees: a face depends on the Snapshot alone, so that the same Snapshot always
// looks the same: ages are counted up to Snapshot.Taken. No text in a Snapshot, such
// as the error message of a controller, can put markup into the page or control
// characters into a terminal.
package status
