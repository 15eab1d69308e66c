// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

// Package options turns command-line flags into one validated, completed Config.
//
//	New ──► Flags (named sections, as --help prints them) ──► parse
//	                     │
//	                     ▼
//	    Validate: every mistake at once ──► Complete: Config for manager.Run
//
// Guarantees: Validate touches neither the network nor a file, so that subcommands
// which only explain the configuration can use it; every error names the flag, the
// value, what is valid and, where it can be guessed, what was meant; a Config that
// Complete returns can be run.
package options
