// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

//go:build !linux

package leaderelection

import (
	"syscall"
	"time"
)

// setUserTimeout does nothing: there is no TCP_USER_TIMEOUT here, and what the
// kernel has taken is sent for as long as it sees fit.
func setUserTimeout(syscall.RawConn, time.Duration) {}
