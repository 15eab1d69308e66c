// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package configpropagation

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFingerprintsTellContentsApart(t *testing.T) {
	different := []content{
		{},
		{immutable: true},
		{secretType: "t"},
		{secretType: "true"},
		{text: map[string]string{"a": ""}},
		{text: map[string]string{"": "a"}},
		{text: map[string]string{"a": "b"}},
		{text: map[string]string{"ab": ""}},
		{text: map[string]string{"a": "", "b": ""}},
		{text: map[string]string{"a": "b\x01c"}},
		{text: map[string]string{"a": "b", "c": ""}},
		{bytes: map[string][]byte{"a": nil}},
		{bytes: map[string][]byte{"a": []byte("b")}},
		{text: map[string]string{"a": "b"}, bytes: map[string][]byte{"a": []byte("b")}},
	}
	seen := map[fingerprint]content{}
	for _, c := range different {
		if other, there := seen[c.fingerprint()]; there {
			t.Errorf("%+v has the fingerprint of %+v", c, other)
		}
		seen[c.fingerprint()] = c
	}
	same := map[string][2]content{
		"no map and an empty one": {{}, {text: map[string]string{}, bytes: map[string][]byte{}}},
		"no bytes and none":       {{bytes: map[string][]byte{"a": nil}}, {bytes: map[string][]byte{"a": {}}}},
		"order":                   {{text: map[string]string{"a": "1", "b": "2"}}, {text: map[string]string{"b": "2", "a": "1"}}},
	}
	for name, pair := range same {
		if pair[0].fingerprint() != pair[1].fingerprint() {
			t.Errorf("%s: two fingerprints, want one", name)
		}
	}
}

func TestWhatMustBeReplacedOrRemoved(t *testing.T) {
	want := content{secretType: "t", text: map[string]string{"a": "1"}, bytes: map[string][]byte{"b": nil}}
	for _, tt := range []struct {
		name               string
		have               content
		replaces, overlaps bool
		text, bytes        []string
	}{
		{name: "the same", have: want},
		{name: "empty", have: content{secretType: "t"}},
		{name: "immutable", have: content{secretType: "t", immutable: true}, replaces: true},
		{name: "another type", have: content{secretType: "u"}, replaces: true},
		{name: "further keys", have: content{secretType: "t", text: map[string]string{"x": ""}, bytes: map[string][]byte{"y": nil}}, text: []string{"x"}, bytes: []string{"y"}},
		{name: "text becomes bytes", have: content{secretType: "t", text: map[string]string{"b": ""}}, overlaps: true, text: []string{"b"}},
		{name: "bytes become text", have: content{secretType: "t", bytes: map[string][]byte{"a": nil}}, overlaps: true, bytes: []string{"a"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			have := object{content: tt.have}
			if got := want.replaces(have.shape()); got != tt.replaces {
				t.Errorf("replaces: got %v, want %v", got, tt.replaces)
			}
			if got := want.overlaps(&tt.have); got != tt.overlaps {
				t.Errorf("overlaps: got %v, want %v", got, tt.overlaps)
			}
			text, bytes := want.surplus(&tt.have)
			if diff := cmp.Diff([][]string{tt.text, tt.bytes}, [][]string{text, bytes}); diff != "" {
				t.Errorf("surplus differs (-want +got):\n%s", diff)
			}
		})
	}
}
