// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package leaderlabel

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
)

func pod(name, uid, owner string, labels map[string]string) *metav1.PartialObjectMetadata {
	object := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
		Namespace: "ns", Name: name, UID: types.UID(uid), Labels: labels,
	}}
	if owner != "" {
		object.OwnerReferences = []metav1.OwnerReference{
			{APIVersion: "v1", Kind: "Node", Name: "n", UID: "node"},
			{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "rs", UID: types.UID(owner), Controller: new(true)},
		}
	}
	return object
}

func TestWhoLosesTheLabel(t *testing.T) {
	lonely := self{uid: "me", mark: "lease"}
	owned := self{uid: "me", owner: "rs-1", mark: "lease"}
	for _, test := range []struct {
		name     string
		me       self
		pod      *metav1.PartialObjectMetadata
		ousted   bool
		labelled bool
	}{
		{name: "myself", me: owned, pod: pod("a", "me", "rs-1", map[string]string{LabelRole: RoleLeader, LabelLease: "lease"}), labelled: true},
		{name: "myself without the mark", me: owned, pod: pod("a", "me", "rs-1", map[string]string{LabelRole: RoleLeader})},
		{name: "myself with another mark", me: owned, pod: pod("a", "me", "rs-1", map[string]string{LabelRole: RoleLeader, LabelLease: "other"})},
		{name: "myself with another role", me: owned, pod: pod("a", "me", "rs-1", map[string]string{LabelRole: "standby", LabelLease: "lease"})},
		{name: "a sibling that led", me: owned, pod: pod("b", "b", "rs-1", map[string]string{LabelRole: RoleLeader, LabelLease: "lease"}), ousted: true},
		{name: "one of another ReplicaSet that led", me: owned, pod: pod("b", "b", "rs-2", map[string]string{LabelRole: RoleLeader, LabelLease: "lease"}), ousted: true},
		{name: "one without an owner that led", me: lonely, pod: pod("b", "b", "", map[string]string{LabelRole: RoleLeader, LabelLease: "lease"}), ousted: true},
		{name: "one of my name that led before me", me: owned, pod: pod("a", "before", "rs-1", map[string]string{LabelRole: RoleLeader, LabelLease: "lease"}), ousted: true},
		{name: "a sibling labelled by hand", me: owned, pod: pod("b", "b", "rs-1", map[string]string{LabelRole: RoleLeader}), ousted: true},
		{name: "a stranger labelled by hand", me: owned, pod: pod("b", "b", "rs-2", map[string]string{LabelRole: RoleLeader})},
		{name: "an ownerless stranger, and I have no owner", me: lonely, pod: pod("b", "b", "", map[string]string{LabelRole: RoleLeader})},
		{name: "a sibling that leads another lease", me: owned, pod: pod("b", "b", "rs-1", map[string]string{LabelRole: RoleLeader, LabelLease: "other"})},
		{name: "a sibling with an empty mark", me: owned, pod: pod("b", "b", "rs-1", map[string]string{LabelRole: RoleLeader, LabelLease: ""})},
		{name: "a sibling with the mark alone", me: owned, pod: pod("b", "b", "rs-1", map[string]string{LabelLease: "lease"})},
		{name: "a sibling with another role", me: owned, pod: pod("b", "b", "rs-1", map[string]string{LabelRole: "canary", LabelLease: "lease"})},
		{name: "a sibling without labels", me: owned, pod: pod("b", "b", "rs-1", nil)},
	} {
		if got := test.me.ousts(test.pod); got != test.ousted {
			t.Errorf("%s: ousted %v, want %v", test.name, got, test.ousted)
		}
		if got := test.me.labelled(test.pod); got != test.labelled {
			t.Errorf("%s: labelled %v, want %v", test.name, got, test.labelled)
		}
	}
}

func TestMarkIsAValidLabelValueAndTellsLeasesApart(t *testing.T) {
	long := strings.Repeat("l", 250)
	seen := map[string]string{}
	for _, test := range []struct{ namespace, lease, want string }{
		{"ns", "manager", "manager"},
		{"ns", strings.Repeat("m", 63), strings.Repeat("m", 63)},
		{"other", "manager", "other.manager"},
		{"ns", strings.Repeat("m", 64), strings.Repeat("m", 52) + "-"},
		{"ns", long + "a", strings.Repeat("l", 52) + "-"},
		{"ns", long + "b", strings.Repeat("l", 52) + "-"},
		{"other", long + "b", "other." + strings.Repeat("l", 46) + "-"},
		{"ns", strings.Repeat("x", 50) + ".-." + long, strings.Repeat("x", 50) + "-"},
	} {
		got := markOf(test.namespace, test.lease, "ns")
		if errs := validation.IsValidLabelValue(got); len(errs) > 0 {
			t.Errorf("markOf(%q, %q) = %q, not a label value: %v", test.namespace, test.lease, got, errs)
		}
		if got != test.want && !(strings.HasSuffix(test.want, "-") && strings.HasPrefix(got, test.want) && len(got) == len(test.want)+hashDigits) {
			t.Errorf("markOf(%q, %q) = %q, want %q", test.namespace, test.lease, got, test.want)
		}
		if other, taken := seen[got]; taken {
			t.Errorf("markOf(%q, %q) = %q, which is also that of %s", test.namespace, test.lease, got, other)
		}
		seen[got] = test.namespace + "/" + test.lease
	}
}

func TestLabelPatchCarriesTheUID(t *testing.T) {
	for _, test := range []struct {
		version string
		labels  map[string]any
		want    string
	}{
		{"", map[string]any{LabelRole: RoleLeader, LabelLease: "l"}, `{"metadata":{"uid":"u","labels":{"incumbent.io/role":"leader","incumbent.io/lease":"l"}}}`},
		{"7", map[string]any{LabelRole: nil, LabelLease: nil}, `{"metadata":{"uid":"u","resourceVersion":"7","labels":{"incumbent.io/role":null,"incumbent.io/lease":null}}}`},
	} {
		var got, want any
		if err := json.Unmarshal(labelPatch("u", test.version, test.labels), &got); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(test.want), &want); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("patch differs (-want +got):\n%s", diff)
		}
	}
}
