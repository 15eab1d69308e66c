// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package reconciler

import (
	"time"

	"k8s.io/utils/clock"
)

// gaugePeriod is how often the gauges of work in progress are brought up to date.
const gaugePeriod = 5 * time.Second

// gaugeClock is the clock of a queue. client-go wakes each queue twice per second for
// those gauges, which nobody scrapes as often: most of the CPU time of idle controllers.
type gaugeClock struct {
	clock.WithTicker
}

// NewTicker implements clock.WithTicker.
func (c gaugeClock) NewTicker(period time.Duration) clock.Ticker {
	return c.WithTicker.NewTicker(max(period, gaugePeriod))
}
