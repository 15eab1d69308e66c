// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package configrollout

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func mapOf(name string, data map[string]string, binaryData map[string][]byte) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, ResourceVersion: "1"}, Data: data, BinaryData: binaryData}
}

func TestFingerprintsTellContentsApart(t *testing.T) {
	base := contentsOfConfigMap(mapOf("m", map[string]string{"a": "1", "b": "2"}, nil))
	for _, test := range []struct {
		name        string
		other       *corev1.ConfigMap
		whole, keyA bool // whether they are the same
	}{
		{"the same", mapOf("m", map[string]string{"b": "2", "a": "1"}, map[string][]byte{}), true, true},
		{"another key changed", mapOf("m", map[string]string{"a": "1", "b": "3"}, nil), false, true},
		{"another key added", mapOf("m", map[string]string{"a": "1", "b": "2", "c": ""}, nil), false, true},
		{"another key removed", mapOf("m", map[string]string{"a": "1"}, nil), false, true},
		{"the key changed", mapOf("m", map[string]string{"a": "2", "b": "2"}, nil), false, false},
		{"values swapped", mapOf("m", map[string]string{"a": "2", "b": "1"}, nil), false, false},
		{"moved to binaryData", mapOf("m", map[string]string{"b": "2"}, map[string][]byte{"a": []byte("1")}), false, false},
		{"binaryData added", mapOf("m", map[string]string{"a": "1", "b": "2"}, map[string][]byte{"c": {0xff}}), false, true},
		{"boundaries moved", mapOf("m", map[string]string{"a": "1b2"}, nil), false, false},
		{"another object", mapOf("n", map[string]string{"a": "1", "b": "2"}, nil), false, false},
		{"empty", mapOf("m", nil, nil), false, false},
	} {
		got := contentsOfConfigMap(test.other)
		if same := got.parts[whole] == base.parts[whole]; same != test.whole {
			t.Errorf("%s: the whole is the same: %v, want %v", test.name, same, test.whole)
		}
		if same := got.parts["a"] == base.parts["a"]; same != test.keyA {
			t.Errorf("%s: key a is the same: %v, want %v", test.name, same, test.keyA)
		}
	}
	changed := mapOf("m", map[string]string{"a": "1", "b": "2"}, nil)
	changed.Labels, changed.Immutable, changed.ResourceVersion = map[string]string{"x": "y"}, new(true), "2"
	if got := contentsOfConfigMap(changed); got.parts[whole] != base.parts[whole] {
		t.Error("labels, immutable and resourceVersion are taken for content")
	}
}

func TestFingerprintsOfSecretsNeedTheKey(t *testing.T) {
	object := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "s"}, Data: map[string][]byte{"password": []byte("hunter2")}}
	one, two := newHashKey([]byte(strings.Repeat("1", keyBytes))), newHashKey([]byte(strings.Repeat("2", keyBytes)))
	first, again, other := contentsOfSecret(object, one), contentsOfSecret(object, one), contentsOfSecret(object, two)
	for _, part := range []string{whole, "password"} {
		if first.parts[part] != again.parts[part] {
			t.Errorf("%s: two fingerprints with one key differ", part)
		}
		if keyOf(first.parts[part]) != one.id || keyOf(other.parts[part]) != two.id {
			t.Errorf("%s: made with keys %q and %q, want %q and %q", part, keyOf(first.parts[part]), keyOf(other.parts[part]), one.id, two.id)
		}
		if strings.TrimPrefix(first.parts[part], one.id) == strings.TrimPrefix(other.parts[part], two.id) {
			t.Errorf("%s: the fingerprint does not depend on the key", part)
		}
	}
	object.Name = "t"
	if renamed := contentsOfSecret(object, one); renamed.parts["password"] == first.parts["password"] {
		t.Error("equal passwords of two Secrets look equal")
	}
	if got := keyOf(contentsOfConfigMap(mapOf("m", nil, nil)).parts[whole]); got != "" {
		t.Errorf("a fingerprint of a ConfigMap names the key %q", got)
	}
}
