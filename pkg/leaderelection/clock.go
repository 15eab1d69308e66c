// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package leaderelection

import "time"

// Reading is one look at a candidate's clocks. Only differences between
// readings of one Clock mean anything, except for Wall.
type Reading struct {
	// Boot goes on while the machine is suspended (CLOCK_BOOTTIME).
	Boot time.Duration
	// Mono is the clock of Go's timers (CLOCK_MONOTONIC).
	Mono time.Duration
	// Wall is the time since 1 January 1970 UTC; it may jump either way.
	Wall time.Duration
}

// Clock reads the three clocks and runs timers. Implementations are safe for
// concurrent use. Nothing relies on a timer being punctual: whoever it wakes
// reads the clocks.
type Clock interface {
	Read() Reading
	// AfterFunc runs f in a goroutine of its own once Mono has advanced by d.
	// The returned function stops it and reports whether it did.
	AfterFunc(d time.Duration, f func()) (stop func() bool)
}

// spent is the time that a permission given at s has used up at r: the largest
// that any clock shows, so that a clock which was stopped or set back cannot
// prolong it.
func (r Reading) spent(s Reading) time.Duration {
	return max(r.Boot-s.Boot, r.Mono-s.Mono, r.Wall-s.Wall)
}

// waited is the time that has passed for certain since o: the smallest that a
// steady clock shows. The wall clock has no say, since it may jump forward.
func (r Reading) waited(o Reading) time.Duration {
	return min(r.Boot-o.Boot, r.Mono-o.Mono)
}

// wallTime returns the wall clock's reading as a time.
func (r Reading) wallTime() time.Time { return time.Unix(0, int64(r.Wall)) }

// zero is the zero point of the monotonic clock of all system clocks, so that the
// readings of one elector mean the same to another: a Share compares them.
var zero = time.Now()

// systemClock reads the clocks of the machine.
type systemClock struct{}

func (systemClock) Read() Reading {
	now := time.Now()
	mono := now.Sub(zero)
	return Reading{Boot: bootTime(mono), Mono: mono, Wall: time.Duration(now.UnixNano())}
}

func (systemClock) AfterFunc(d time.Duration, f func()) func() bool {
	return time.AfterFunc(d, f).Stop
}
