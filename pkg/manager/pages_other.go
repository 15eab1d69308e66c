// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

//go:build !linux

package manager

// releaseProgram does nothing: how a program is mapped is known of Linux only.
func releaseProgram() error { return nil }
