// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

// Package manager is the host: it wires options, leader election, clients,
// controllers, health and serving into one process, and owns the order in which
// they start and stop.
//
//	Main(name, registry) ──► NewCommand ──► options ──► Run(ctx, config)
//
//	Run:  identity file ─► candidate ──────────► elected ─► controllers run
//	      health served at once                     │
//	      controllers built, informers synced ──────┘ (warm)
//
//	stop: /readyz fails ─► controllers drain, the lease is still renewed
//	      ─► fence shut, nothing in flight ─► lease released ─► servers stop
//
// Guarantees: Run touches nothing that belongs to the whole process (klog, signals,
// global registries), so several managers can run in one; Main and the command that
// NewCommand returns do, once per process.
package manager
