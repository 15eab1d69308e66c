// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package leaderelection

import (
	"fmt"
	"time"
)

const (
	// DefaultLeaseDuration is how long others wait before they take over a
	// lease that is not renewed.
	DefaultLeaseDuration = 15 * time.Second
	// DefaultRenewDeadline is how long after the start of the last acknowledged
	// renewal the context of a term is cancelled.
	DefaultRenewDeadline = 10 * time.Second
	// DefaultRetryPeriod is the time between the starts of two renewals.
	DefaultRetryPeriod = 2 * time.Second
	// DefaultInFlightBudget is the time that writes which have passed the fence
	// get to end before the lease could be taken over.
	DefaultInFlightBudget = time.Second
	// DefaultStopTimeout is how long the callbacks of a lost term may take to
	// return.
	DefaultStopTimeout = 10 * time.Second
	// DefaultDrainTimeout is how long a drain may take.
	DefaultDrainTimeout = 30 * time.Second

	// stockSlack is added to the duration of a lease whose holder is not one of
	// our candidates: client-go leaders stop up to RetryPeriod later than they
	// should, and poll for another second.
	stockSlack = 3 * time.Second
	// stockReleaseDelay is waited after a release by a client-go holder: it
	// releases before its work has stopped.
	stockReleaseDelay = 2 * time.Second
	// contactTimeout bounds the wait for Config.Contact. On a healthy connection
	// it takes a round trip; after an outage of the API server the informers may
	// have to list again, which its start delays by seconds.
	contactTimeout = 10 * time.Second
	// watchdogGrace is how long the callbacks of a term may still run after the
	// lease could have been taken over before the watchdog fails.
	watchdogGrace = 5 * time.Second

	minBackoff = 50 * time.Millisecond
	maxBackoff = 500 * time.Millisecond
)

// Timing holds the durations of one lease. Its zero value stands for the
// defaults, 15 s, 10 s, 2 s and 1 s; so does each field that is zero.
type Timing struct {
	// LeaseDuration, in whole seconds, is how long other candidates wait after
	// the last renewal that they saw. A shorter one shortens the gap after a
	// crash and the API outage that a leader survives.
	LeaseDuration time.Duration
	// RenewDeadline after the start of the last acknowledged renewal, the
	// context of the term is cancelled.
	RenewDeadline time.Duration
	// RetryPeriod is the time from the start of one renewal to the start of the
	// next.
	RetryPeriod time.Duration
	// InFlightBudget is how long before the end of the lease's validity the
	// fence lets nothing new pass, and the TCP user timeout of guarded
	// connections.
	InFlightBudget time.Duration
}

// TimingError says which field of a Timing breaks a rule, and how to mend it.
type TimingError struct {
	// Field is the name of a field of Timing.
	Field string
	// Detail names the value, the rule and the fix.
	Detail string
}

// Error returns the field and the detail.
func (e *TimingError) Error() string { return e.Field + ": " + e.Detail }

// WithDefaults returns t with every zero field set to its default.
func (t Timing) WithDefaults() Timing {
	if t.LeaseDuration == 0 {
		t.LeaseDuration = DefaultLeaseDuration
	}
	if t.RenewDeadline == 0 {
		t.RenewDeadline = DefaultRenewDeadline
	}
	if t.RetryPeriod == 0 {
		t.RetryPeriod = DefaultRetryPeriod
	}
	if t.InFlightBudget == 0 {
		t.InFlightBudget = DefaultInFlightBudget
	}
	return t
}

// Validate returns one error for each rule that t, with its defaults, breaks.
// Each of them is a *TimingError.
func (t Timing) Validate() []error {
	t = t.WithDefaults()
	var errs []error
	fail := func(field, format string, args ...any) {
		errs = append(errs, &TimingError{Field: field, Detail: fmt.Sprintf(format, args...)})
	}
	if t.LeaseDuration < time.Second || t.LeaseDuration%time.Second != 0 {
		fail("LeaseDuration", "%v must be a whole number of seconds, at least 1s, because the Lease stores seconds; use %v",
			t.LeaseDuration, max(t.LeaseDuration, 1).Truncate(time.Second)+time.Second)
	}
	if t.RetryPeriod <= 0 {
		fail("RetryPeriod", "%v must be positive; use %v", t.RetryPeriod, DefaultRetryPeriod)
	}
	if t.InFlightBudget <= 0 {
		fail("InFlightBudget", "%v must be positive; use %v", t.InFlightBudget, DefaultInFlightBudget)
	}
	if t.RenewDeadline*10 <= t.RetryPeriod*12 {
		fail("RenewDeadline", "%v must be greater than 1.2 times the retry period, %v, to leave time for a second try; raise it or lower the retry period",
			t.RenewDeadline, t.RetryPeriod*12/10)
	}
	if t.cutoff() <= t.RenewDeadline {
		fail("LeaseDuration", "%v less the clock margin %v and the in-flight budget %v is %v, which must be greater than the renew deadline %v; raise the lease duration or lower the renew deadline",
			t.LeaseDuration, t.margin(), t.InFlightBudget, t.cutoff(), t.RenewDeadline)
	}
	return errs
}

// margin is the part of the lease duration that two clocks may differ over it
// when each runs within 1 % of true time: 2*rho/(1+rho) of it, rounded up to
// 10 ms. A permission of L-margin on the one ends before a wait of L on the
// other.
func (t Timing) margin() time.Duration {
	const grain = 10 * time.Millisecond
	m := t.LeaseDuration * 2 / 101
	return (m + grain - 1) / grain * grain
}

// deadline, counted from the start of the last acknowledged renewal, is when
// whatever passed the fence must have ended.
func (t Timing) deadline() time.Duration { return t.LeaseDuration - t.margin() }

// cutoff, counted likewise, is when the fence lets nothing new pass.
func (t Timing) cutoff() time.Duration { return t.deadline() - t.InFlightBudget }

// tryTimeout bounds one request so that three of them, with the pauses between
// them, fit between the start of a renewal and the renew deadline.
func (t Timing) tryTimeout() time.Duration {
	d := (t.RenewDeadline-t.RetryPeriod)/3 - 2*minBackoff
	return max(d, (t.RenewDeadline-t.RetryPeriod)/6)
}

// fresh reports whether a lease write acknowledged elapsed after it was sent
// leaves time to start a term on it.
func (t Timing) fresh(elapsed time.Duration) bool {
	return elapsed < t.RenewDeadline-t.RetryPeriod
}
