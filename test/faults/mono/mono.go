// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

// Package mono reads CLOCK_MONOTONIC, which all processes of a machine share. It
// needs little, so that it is initialised before the large packages of Kubernetes.
package mono

import "golang.org/x/sys/unix"

// Began is about when the process began.
var Began = Now()

// Now returns the time in nanoseconds.
func Now() int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		panic(err) // every Linux has this clock
	}
	return t.Nano()
}
