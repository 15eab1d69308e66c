// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package leaderelection

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	clientgo "k8s.io/client-go/tools/leaderelection"
)

func TestTimingValidate(t *testing.T) {
	tests := []struct {
		name   string
		timing Timing
		fields []string
	}{
		{"defaults", Timing{}, nil},
		{"fast", Timing{5 * time.Second, 3 * time.Second, time.Second, 500 * time.Millisecond}, nil},
		{"slow", Timing{137 * time.Second, 107 * time.Second, 26 * time.Second, time.Second}, nil},
		{"no whole seconds", Timing{LeaseDuration: 15500 * time.Millisecond}, []string{"LeaseDuration"}},
		{"below a second", Timing{500 * time.Millisecond, 100 * time.Millisecond, 50 * time.Millisecond, 10 * time.Millisecond}, []string{"LeaseDuration"}},
		{"no second try", Timing{RenewDeadline: 2400 * time.Millisecond}, []string{"RenewDeadline"}},
		{"just a second try", Timing{RenewDeadline: 2401 * time.Millisecond}, nil},
		{"deadline at the cutoff", Timing{RenewDeadline: 13700 * time.Millisecond}, []string{"LeaseDuration"}},
		{"deadline below the cutoff", Timing{RenewDeadline: 13699 * time.Millisecond}, nil},
		{"negative", Timing{RetryPeriod: -1, InFlightBudget: -1}, []string{"RetryPeriod", "InFlightBudget"}},
		{"all at once", Timing{1500 * time.Millisecond, 2 * time.Second, 2 * time.Second, time.Second}, []string{"LeaseDuration", "RenewDeadline", "LeaseDuration"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var fields []string
			for _, err := range test.timing.Validate() {
				var te *TimingError
				if !errors.As(err, &te) || te.Detail == "" {
					t.Fatalf("%v is no TimingError with a detail", err)
				}
				fields = append(fields, te.Field)
			}
			if diff := cmp.Diff(test.fields, fields); diff != "" {
				t.Errorf("fields (-want +got):\n%s", diff)
			}
		})
	}
}

func TestTimingNumbers(t *testing.T) {
	tests := []struct {
		timing                        Timing
		margin, cutoff, deadline, try time.Duration
	}{
		{Timing{}.WithDefaults(), 300 * time.Millisecond, 13700 * time.Millisecond, 14700 * time.Millisecond, 2566666666},
		{Timing{5 * time.Second, 3 * time.Second, time.Second, 500 * time.Millisecond}, 100 * time.Millisecond, 4400 * time.Millisecond, 4900 * time.Millisecond, 566666666},
	}
	for _, test := range tests {
		x := test.timing
		got := []time.Duration{x.margin(), x.cutoff(), x.deadline(), x.tryTimeout()}
		want := []time.Duration{test.margin, test.cutoff, test.deadline, test.try}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%+v: margin, cutoff, deadline, try (-want +got):\n%s", x, diff)
		}
	}
}

// TestMarginSeparatesClocks checks the theorem behind the margin: a permission
// on a slow clock ends before a wait on a fast one.
func TestMarginSeparatesClocks(t *testing.T) {
	for seconds := 1; seconds <= 3600; seconds++ {
		x := Timing{LeaseDuration: time.Duration(seconds) * time.Second}
		permitted := float64(x.deadline()) / 0.99
		waited := float64(x.LeaseDuration) / 1.01
		if permitted > waited {
			t.Fatalf("%v: permitted for %v of true time, taken over after %v", x.LeaseDuration, time.Duration(permitted), time.Duration(waited))
		}
	}
}

func TestThreeTriesFitBeforeTheRenewDeadline(t *testing.T) {
	for _, x := range []Timing{Timing{}.WithDefaults(), {5 * time.Second, 3 * time.Second, time.Second, 500 * time.Millisecond}, {15 * time.Second, 2500 * time.Millisecond, 2 * time.Second, time.Second}} {
		at := x.RetryPeriod
		var pause backoff
		for range 3 {
			at += x.tryTimeout() + pause.next(1)
		}
		// The pause after the third try is not needed.
		if at -= pause.last; at > x.RenewDeadline {
			t.Errorf("%+v: the third try ends at %v", x, at)
		}
	}
}

func TestReadings(t *testing.T) {
	const s, h = time.Second, time.Hour
	base := Reading{Boot: 100 * s, Mono: 50 * s, Wall: 1000 * s}
	tests := []struct {
		name          string
		now           Reading
		spent, waited time.Duration
	}{
		{"all agree", Reading{105 * s, 55 * s, 1005 * s}, 5 * s, 5 * s},
		{"suspended", Reading{105*s + h, 55 * s, 1005*s + h}, 5*s + h, 5 * s},
		{"boot clock alone", Reading{105*s + h, 55 * s, 1005 * s}, 5*s + h, 5 * s},
		{"monotonic clock alone", Reading{105 * s, 55*s + h, 1005 * s}, 5*s + h, 5 * s},
		{"wall forward", Reading{105 * s, 55 * s, 1005*s + h}, 5*s + h, 5 * s},
		{"wall back", Reading{105 * s, 55 * s, 1005*s - h}, 5 * s, 5 * s},
		{"slow boot clock", Reading{104 * s, 55 * s, 1005 * s}, 5 * s, 4 * s},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := test.now.spent(base); got != test.spent {
				t.Errorf("spent %v, want %v", got, test.spent)
			}
			if got := test.now.waited(base); got != test.waited {
				t.Errorf("waited %v, want %v", got, test.waited)
			}
		})
	}
}

func TestSystemClockAdvances(t *testing.T) {
	c := systemClock{}
	a := c.Read()
	fired := make(chan struct{})
	c.AfterFunc(time.Millisecond, func() { close(fired) })
	<-fired
	b := c.Read()
	if b.waited(a) < time.Millisecond || b.spent(a) < time.Millisecond {
		t.Errorf("from %+v to %+v in a millisecond", a, b)
	}
	if d := time.Since(b.wallTime()); d < 0 || d > time.Minute {
		t.Errorf("the wall clock is %v off", d)
	}
}

// A Share compares the readings of all electors of a process, and one of them may be
// made long after the others.
func TestElectorsMadeAtDifferentTimesReadOneClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		read := func() Reading {
			e, err := NewUnelected(Config{Name: "group", Callbacks: clientgo.LeaderCallbacks{OnStartedLeading: func(context.Context) {}}})
			if err != nil {
				t.Fatal(err)
			}
			return e.cfg.Clock.Read()
		}
		early := read()
		time.Sleep(time.Hour)
		if passed := read().Mono - early.Mono; passed != time.Hour {
			t.Errorf("an elector made an hour later reads %v more, want 1h", passed)
		}
	})
}
