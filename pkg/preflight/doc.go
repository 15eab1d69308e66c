// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

// Package preflight finds out whether the APIs and permissions that controllers
// declare as their Access are there, and prints the RBAC that grants them.
//
// A resource is served if the API server's discovery lists it, and a verb is granted
// if a SelfSubjectAccessReview says so. What cannot be found out is an error, never a
// "missing": a host must not stop what runs because nobody answers.
//
// Requests: one discovery document per API group and version, and one review per
// verb (and name), none for what is not served. Answers are shared by all that ask
// within a second.
//
// Guarantees: a Checker is safe for concurrent use. It has a rate limit of its own,
// so it neither waits for controllers nor holds them up.
package preflight
