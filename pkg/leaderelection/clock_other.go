// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

//go:build !linux

package leaderelection

import "time"

// bootTime falls back to the monotonic clock. Where that stops during suspend,
// only the wall clock ends a permission; the wait for others is merely longer.
func bootTime(mono time.Duration) time.Duration { return mono }
