// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package runner

import (
	"math/rand/v2"
	"time"
)

// The pause before a controller that failed is built anew: 1 s after the first
// failure, doubled after each further one up to 2 minutes, less up to a fifth at
// random so that controllers that failed together do not return together. A run
// that lasted a minute longer than the pause before it was healthy and resets it.
const (
	backoffFirst   = time.Second
	backoffMax     = 2 * time.Minute
	backoffJitter  = 0.2
	healthyMinimum = time.Minute
)

// backoff returns the pause after so many failures in a row (1 or more); random is
// in [0, 1).
func backoff(failures int, random float64) time.Duration {
	pause := backoffMax
	if doublings := failures - 1; doublings < 16 {
		pause = min(backoffFirst<<doublings, backoffMax)
	}
	return pause - time.Duration(random*backoffJitter*float64(pause))
}

// failuresAfter returns how many failures in a row a further one makes, given how
// long the run lasted that failed.
func failuresAfter(before int, lasted time.Duration) int {
	if before > 0 && lasted >= healthyMinimum+backoff(before, 0) {
		return 1
	}
	return before + 1
}

func jitter() float64 { return rand.Float64() }
