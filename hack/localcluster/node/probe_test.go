// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

//go:build linux

package node

import "testing"

func TestThreshold(t *testing.T) {
	for _, test := range []struct {
		name             string
		success, failure int32
		results, decided string // + and - are results, y and n tell whether each one decides
	}{
		{"each counts", 1, 1, "+-+-", "yyyy"},
		{"three failures in a row", 1, 3, "---", "nny"},
		{"a success starts the count again", 1, 3, "--+---", "nnynny"},
		{"two successes in a row", 2, 1, "+-++", "nyny"},
		{"it stays decided", 1, 2, "----", "nyyy"},
	} {
		threshold := threshold{success: test.success, failure: test.failure}
		got := ""
		for _, r := range test.results {
			if threshold.observe(r == '+') {
				got += "y"
			} else {
				got += "n"
			}
		}
		if got != test.decided {
			t.Errorf("%s: %s gave %s, want %s", test.name, test.results, got, test.decided)
		}
	}
}
