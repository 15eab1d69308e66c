// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package configpropagation

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestACacheIsBehindUntilItHasTheLastWrite(t *testing.T) {
	at := func(version string) *meta { return &meta{ObjectMeta: metav1.ObjectMeta{ResourceVersion: version}} }
	for _, tt := range []struct {
		name, written, synced string
		there                 *meta
		want                  bool
	}{
		{"nothing was written", "", "5", at("5"), false},
		{"created, and not there yet", "10", "9", nil, true},
		{"created, and there", "10", "9", at("10"), false},
		{"created, and deleted since", "10", "11", nil, false},
		{"changed, and still the old one", "10", "9", at("5"), true},
		{"changed, and again by somebody else", "10", "12", at("12"), false},
		{"more digits", "10", "9", at("9"), true},
		{"versions that cannot be compared", "x", "9", nil, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			target := &target{written: tt.written}
			if got := target.isBehind(tt.there, tt.synced); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
			if still := target.written != ""; still != tt.want {
				t.Errorf("the write is still awaited: %v, want %v", still, tt.want)
			}
		})
	}
}
