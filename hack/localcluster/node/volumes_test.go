// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

//go:build linux

package node

import (
	"testing"
	"time"
)

func TestRenewTime(t *testing.T) {
	issued := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, test := range []struct {
		name      string
		granted   time.Duration
		requested int64
		want      time.Duration
	}{
		{"80 % of its life", 600 * time.Second, 600, 480 * time.Second},
		{"the API server gave less", 600 * time.Second, 3600, 480 * time.Second},
		{"the API server extended it to a year", 365 * 24 * time.Hour, 3607, 3607 * time.Second * 8 / 10},
		{"after a day at the latest", 48 * time.Hour, 48 * 3600, 24 * time.Hour},
	} {
		if got := renewTime(issued, issued.Add(test.granted), test.requested).Sub(issued); got != test.want {
			t.Errorf("%s: renewed after %s, want %s", test.name, got, test.want)
		}
	}
}

func TestAddressesGoRound(t *testing.T) {
	p := &addressPool{network: 77, used: map[string]bool{}}
	first, _ := p.take()
	second, _ := p.take()
	if first != "127.77.1.1" || second != "127.77.1.2" {
		t.Errorf("got %s and %s", first, second)
	}
	p.release(first)
	if third, _ := p.take(); third != "127.77.1.3" {
		t.Errorf("got %s, want an address that was not used lately", third)
	}
	seen := map[string]bool{}
	for {
		address, err := p.take()
		if err != nil {
			break
		}
		if seen[address] || address == second {
			t.Fatalf("%s was given twice", address)
		}
		seen[address] = true
	}
	if want := 255*254 - 2; len(seen) != want || !seen[first] {
		t.Errorf("got %d addresses (the released one: %v), want %d", len(seen), seen[first], want)
	}
}
