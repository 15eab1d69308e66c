// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

// Package options turns command-line flags and a configuration file into one
// validated, completed Config.
//
//	CommandLine: the flags, to be parsed ──► --config ──► ReadFile
//	                     │ the arguments as given             │
//	                     ▼                                    ▼
//	    Load: fresh defaults ◄── the file's content ◄── the arguments, again
//	                     │ every mistake at once
//	                     ▼
//	    Options ──► Complete ──► Config for manager.Run
//	                               │ Reload(file): the same way, the same arguments
//	                               ▼
//	    Compare(running, next) ──► Changes: what takes effect now, what needs a restart
//
// Guarantees: Load is pure, so that it serves the start, every reload, and the
// subcommands which only explain the configuration; it touches neither the network
// nor a file. A flag that is given always wins over the file. Every error names the
// flag, or the file, line and field, the value, what is valid and, where it can be
// guessed, what was meant. A Config that Complete returns can be run.
package options
