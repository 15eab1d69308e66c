// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package configrollout

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
)

func TestCompare(t *testing.T) {
	m, s := source{configMap, "m"}, source{secret, "s"}
	required, optional := reference{m, whole, false}, reference{m, whole, true}
	key := reference{m, "k", false}
	holds := func(version, part, fingerprint string) map[source]*contents {
		return map[source]*contents{m: {version, map[string]string{part: fingerprint}}}
	}
	on := func(source, version, part, fingerprint string) record {
		return record{source: {Version: version, Parts: map[string]string{part: fingerprint}}}
	}
	for _, test := range []struct {
		name    string
		before  record
		refs    []reference
		found   map[source]*contents
		kept    record
		rolled  record // nil: the same as kept
		changed []string
		missing []string
	}{
		{name: "nothing", kept: record{}},
		{name: "first seen", refs: []reference{required}, found: holds("1", whole, "x"), kept: on("configmap/m", "1", whole, "x")},
		{name: "unchanged", before: on("configmap/m", "1", whole, "x"), refs: []reference{required}, found: holds("2", whole, "x"), kept: on("configmap/m", "2", whole, "x")},
		{name: "changed", before: on("configmap/m", "1", whole, "x"), refs: []reference{required}, found: holds("2", whole, "y"), kept: on("configmap/m", "2", whole, "y"), changed: []string{"configmap/m"}},
		{name: "no longer referred to", before: on("configmap/m", "1", whole, "x"), found: holds("2", whole, "y"), kept: record{}},
		{name: "another part than before", before: on("configmap/m", "1", whole, "x"), refs: []reference{key}, found: holds("2", "k", "y"), kept: on("configmap/m", "2", "k", "y")},

		{name: "required and gone", before: on("configmap/m", "1", whole, "x"), refs: []reference{required}, kept: on("configmap/m", "", whole, "x"), rolled: record{}, missing: []string{"configmap/m"}},
		{name: "required and never there", refs: []reference{required}, kept: record{}, missing: []string{"configmap/m"}},
		{name: "a key that is gone", before: on("configmap/m", "1", "k", "x"), refs: []reference{key}, found: holds("2", "other", "x"), kept: on("configmap/m", "", "k", "x"), rolled: record{}, missing: []string{"key k of configmap/m"}},
		{name: "back as it was", before: on("configmap/m", "", whole, "x"), refs: []reference{required}, found: holds("3", whole, "x"), kept: on("configmap/m", "3", whole, "x")},
		{name: "back with other content", before: on("configmap/m", "", whole, "x"), refs: []reference{required}, found: holds("3", whole, "y"), kept: on("configmap/m", "3", whole, "y"), changed: []string{"configmap/m"}},

		{name: "optional and never there", refs: []reference{optional}, kept: on("configmap/m", "", whole, absent)},
		{name: "optional and appears", before: on("configmap/m", "", whole, absent), refs: []reference{optional}, found: holds("1", whole, "x"), kept: on("configmap/m", "1", whole, "x"), changed: []string{"configmap/m"}},
		{name: "optional and gone", before: on("configmap/m", "1", whole, "x"), refs: []reference{optional}, kept: on("configmap/m", "", whole, "x"), rolled: on("configmap/m", "", whole, absent)},

		{name: "Secrets under another key are not compared", before: on("secret/s", "1", whole, "k1:x"), refs: []reference{{s, whole, false}},
			found: map[source]*contents{s: {"1", map[string]string{whole: "k2:y"}}}, kept: on("secret/s", "1", whole, "k2:y")},
		{name: "an optional Secret appears under another key", before: on("secret/s", "", whole, absent), refs: []reference{{s, whole, true}},
			found: map[source]*contents{s: {"1", map[string]string{whole: "k2:y"}}}, kept: on("secret/s", "1", whole, "k2:y"), changed: []string{"secret/s"}},
		{name: "two parts of one source changed", before: record{"configmap/m": {Parts: map[string]string{"a": "1", "b": "1"}}},
			refs:  []reference{{m, "a", false}, {m, "b", false}},
			found: map[source]*contents{m: {"2", map[string]string{"a": "2", "b": "2"}}},
			kept:  record{"configmap/m": {Version: "2", Parts: map[string]string{"a": "2", "b": "2"}}}, changed: []string{"configmap/m"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := compare(test.before, test.refs, test.found)
			want := comparison{kept: test.kept, rolled: test.rolled, changed: test.changed, missing: test.missing}
			if want.rolled == nil {
				want.rolled = want.kept
			}
			if diff := cmp.Diff(want, got, cmp.AllowUnexported(comparison{})); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestStandingOfARecord(t *testing.T) {
	const uid = types.UID("1d2c")
	old, last := record{}, record{}
	old.set("configmap/m", whole, "x")
	last.set("configmap/m", whole, "y")
	for _, test := range []struct {
		name                string
		seal, text          string
		want                standing
		wantRecord, another record
	}{
		{name: "nothing", want: unrecorded},
		{name: "annotation without label", text: last.encode(), want: unrecorded},
		{name: "both", seal: sealOf(uid, last), text: last.encode(), want: recorded, wantRecord: last},
		{name: "an older annotation", seal: sealOf(uid, last), text: old.encode(), want: displaced},
		{name: "no annotation", seal: sealOf(uid, last), want: displaced},
		{name: "not JSON", seal: sealOf(uid, last), text: "{", want: displaced},
		{name: "a copy of another object", seal: sealOf("other", last), text: last.encode(), want: unrecorded},
		{name: "some label", seal: "x", text: last.encode(), want: unrecorded},
	} {
		got, standing := recordOn(uid, map[string]string{LabelSeal: test.seal}, map[string]string{AnnotationRecord: test.text})
		if standing != test.want {
			t.Errorf("%s: standing %d, want %d", test.name, standing, test.want)
		}
		if diff := cmp.Diff(test.wantRecord, got); diff != "" {
			t.Errorf("%s: record differs (-want +got):\n%s", test.name, diff)
		}
	}
	if problems := validation.IsValidLabelValue(sealOf(uid, last)); len(problems) > 0 {
		t.Errorf("seal %q is no value of a label: %v", sealOf(uid, last), problems)
	}
}

func TestDigestIsOfContentsAlone(t *testing.T) {
	one := record{"configmap/m": {Version: "1", Parts: map[string]string{"a": "x"}}}
	same := record{"configmap/m": {Version: "2", Parts: map[string]string{"a": "x"}}}
	other := record{"configmap/m": {Version: "1", Parts: map[string]string{"a": "y"}}}
	if one.digest() != same.digest() {
		t.Error("the version changes the digest")
	}
	if one.digest() == other.digest() {
		t.Error("the content does not change the digest")
	}
}

func TestWhatIsRecordedNeedNotBeRead(t *testing.T) {
	m := source{configMap, "m"}
	r := record{"configmap/m": {Version: "7", Parts: map[string]string{"a": "x", "gone": absent, "keyed": "k1:x"}}}
	refs := func(parts ...string) (list []reference) {
		for _, part := range parts {
			list = append(list, reference{m, part, false})
		}
		return list
	}
	for _, test := range []struct {
		name, version, key string
		refs               []reference
		want               map[string]string
	}{
		{"the same version", "7", "", refs("a", "gone"), map[string]string{"a": "x"}},
		{"another version", "8", "", refs("a"), nil},
		{"another part", "7", "", refs("a", "b"), nil},
		{"the same key", "7", "k1", refs("keyed", "gone"), map[string]string{"keyed": "k1:x"}},
		{"another key", "7", "k2", refs("keyed"), nil},
	} {
		var got map[string]string
		if known := r.contentsFor(m, test.version, test.key, test.refs); known != nil {
			got = known.parts
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.name, diff)
		}
	}
	undated := record{"configmap/m": {Parts: map[string]string{"a": "x"}}}
	if got := undated.contentsFor(m, "", "", refs("a")); got != nil {
		t.Errorf("a record without a version answers %v", got)
	}
}
