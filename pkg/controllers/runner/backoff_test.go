// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package runner

import (
	"testing"
	"time"
)

func TestBackoffDoublesUpToItsLimit(t *testing.T) {
	for failures, want := range map[int]time.Duration{
		1: time.Second, 2: 2 * time.Second, 3: 4 * time.Second, 7: 64 * time.Second, 8: 2 * time.Minute, 9: 2 * time.Minute, 1000: 2 * time.Minute,
	} {
		if got := backoff(failures, 0); got != want {
			t.Errorf("backoff(%d) = %v, want %v", failures, got, want)
		}
		if got, least := backoff(failures, 0.999), want*8/10; got < least || got >= want {
			t.Errorf("backoff(%d) with jitter = %v, want within [%v, %v)", failures, got, least, want)
		}
	}
}

func TestHealthyRunResetsFailures(t *testing.T) {
	for _, tc := range []struct {
		before int
		lasted time.Duration
		want   int
	}{
		{0, 0, 1},
		{3, 10 * time.Second, 4},
		{3, time.Minute + 4*time.Second - 1, 4},
		{3, time.Minute + 4*time.Second, 1},
		{50, time.Minute, 51},
		{50, 3 * time.Minute, 1},
	} {
		if got := failuresAfter(tc.before, tc.lasted); got != tc.want {
			t.Errorf("failuresAfter(%d, %v) = %d, want %d", tc.before, tc.lasted, got, tc.want)
		}
	}
}
