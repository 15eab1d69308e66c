// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

// Package candidate is what the programs of the fault campaign have in common: the
// work that a leader does, and the journal in which a process says what it did.
//
// A journal is made of lines on standard output, one Record each. Their times are
// CLOCK_MONOTONIC, which all processes of a machine share, so that the records of
// several processes, and of the test that watches them, can be put in order.
package candidate
