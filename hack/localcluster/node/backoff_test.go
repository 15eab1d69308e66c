// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

//go:build linux

package node

import (
	"testing"
	"time"
)

func TestBackoffIsTheKubelets(t *testing.T) {
	var b backoff
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i, step := range []struct{ runs, want time.Duration }{
		{time.Second, 0},
		{time.Second, 10 * time.Second},
		{time.Second, 20 * time.Second},
		{time.Minute, 40 * time.Second},
		{time.Second, 80 * time.Second},
		{time.Second, 160 * time.Second},
		{time.Second, 5 * time.Minute},
		{9 * time.Minute, 5 * time.Minute},
		{11 * time.Minute, 0}, // it ran for long: all is forgiven
		{time.Second, 10 * time.Second},
		{10 * time.Minute, 20 * time.Second}, // exactly the time of reset is not yet long
	} {
		finished := now.Add(step.runs)
		if got := b.wait(finished); got != step.want {
			t.Errorf("end %d, after %s: got a wait of %s, want %s", i, step.runs, got, step.want)
		}
		now = finished.Add(b.wait(finished))
		b.restarted(now)
	}
}
