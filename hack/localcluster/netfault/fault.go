// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package netfault

import (
	"fmt"
	"strings"
	"time"
)

// Mode names a network fault.
type Mode string

// The modes. A request is what the client sends, a response what the server sends.
const (
	Heal           Mode = "heal"            // no fault
	Refuse         Mode = "refuse"          // connections are reset, new ones too
	Drop           Mode = "drop"            // nothing passes; connections stay open, new ones are accepted but silent
	DropRequests   Mode = "drop-requests"   // no request passes
	DropResponses  Mode = "drop-responses"  // requests arrive and take effect, no response passes
	DelayRequests  Mode = "delay-requests"  // each request arrives later
	DelayResponses Mode = "delay-responses" // each response arrives later
)

var modes = []Mode{Heal, Refuse, Drop, DropRequests, DropResponses, DelayRequests, DelayResponses}

// Fault is a mode, with the delay of those that delay. The zero value is no fault.
type Fault struct {
	Mode  Mode
	Delay time.Duration
}

// Parse makes a fault of its mode and of the text of its delay, which must be empty for the modes without one.
func Parse(mode, delay string) (Fault, error) {
	f := Fault{Mode: Mode(mode)}
	switch f.Mode {
	case DelayRequests, DelayResponses:
		d, err := time.ParseDuration(delay)
		if err != nil || d <= 0 {
			return Fault{}, fmt.Errorf("%s needs a duration such as 300ms, got %q", mode, delay)
		}
		f.Delay = d
		return f, nil
	case Heal, Refuse, Drop, DropRequests, DropResponses:
		if delay != "" {
			return Fault{}, fmt.Errorf("%s takes no duration", mode)
		}
		return f, nil
	}
	names := make([]string, len(modes))
	for i, m := range modes {
		names[i] = string(m)
	}
	return Fault{}, fmt.Errorf("unknown network fault %q; there are %s", mode, strings.Join(names, ", "))
}

func (f Fault) String() string {
	switch {
	case f.Mode == "":
		return string(Heal)
	case f.Delay > 0:
		return fmt.Sprintf("%s %s", f.Mode, f.Delay)
	default:
		return string(f.Mode)
	}
}

type direction int

const (
	requests direction = iota
	responses
)

func (f Fault) drops(d direction) bool {
	return f.Mode == Drop || f.Mode == DropRequests && d == requests || f.Mode == DropResponses && d == responses
}

func (f Fault) delay(d direction) time.Duration {
	if f.Mode == DelayRequests && d == requests || f.Mode == DelayResponses && d == responses {
		return f.Delay
	}
	return 0
}
