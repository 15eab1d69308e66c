// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

// Package controllers says what a controller is: its static description
// (Descriptor), the register of all of them (Registry), the decision which of
// them are enabled (Gate), what one is given when it is built (Context), and
// what it needs from the API server (Access). It starts nothing; package runner
// does.
//
// The order of calls for one controller:
//
//	Descriptor ── NewRegistry ── Gate ──► Registration.Configure (fresh options)
//	                                        │ flags are parsed into the options
//	                                        ▼
//	                             Configured.Access, Configured.Init(ctx, Context)
//	                                        │ one Controller value
//	                                        ▼
//	                             Controller.Run(ctx), once, only while leading
//
// Guarantees:
//   - A Controller's Run is called at most once; a restart, a new term or changed
//     options call Init again and run the new value.
//   - The clients in a Context refuse writes until Run is called, let them through
//     while the term of that run is valid, and refuse them for ever afterwards.
//   - Gate is pure: the same registry, list and feature gates give the same
//     decisions, and every decision carries its reason.
//
// Not guaranteed: a panic in a goroutine that a controller started itself ends the
// process. Go offers no way to contain it; let such goroutines recover.
package controllers
