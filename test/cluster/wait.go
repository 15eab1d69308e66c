// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package cluster

import (
	"context"
	"testing"
	"time"
)

// Poll calls f every 20 ms until it returns nil. If ctx ends before, it returns f's
// last error.
func Poll(ctx context.Context, f func() error) error {
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Eventually waits until f returns nil, and fails the test with f's last error if that
// takes longer than the limit. It returns how long it took.
func Eventually(t testing.TB, limit time.Duration, what string, f func() error) time.Duration {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	began := time.Now()
	if err := Poll(ctx, f); err != nil {
		t.Fatalf("%s: not within %v: %v", what, limit, err)
	}
	return time.Since(began)
}
