// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

//go:build linux

package node

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

func TestExpand(t *testing.T) {
	values := map[string]string{"A": "1", "B": "$(A)", "EMPTY": ""}
	for _, test := range []struct{ text, want string }{
		{"", ""},
		{"plain", "plain"},
		{"$(A)", "1"},
		{"x$(A)y$(A)z", "x1y1z"},
		{"$(B)", "$(A)"}, // values are not expanded again
		{"$(EMPTY)|", "|"},
		{"$(NONE)", "$(NONE)"},
		{"$$(A)", "$(A)"},
		{"$$$(A)", "$1"},
		{"$A ${A} $", "$A ${A} $"},
		{"$(A", "$(A"},
		{"$", "$"},
		{"$$", "$"},
		{"a$$b", "a$b"},
		{"$($(A)", "$($(A)"},
	} {
		got := expand(test.text, func(name string) (string, bool) { v, ok := values[name]; return v, ok })
		if got != test.want {
			t.Errorf("expand(%q) = %q, want %q", test.text, got, test.want)
		}
	}
}

func testPod() *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: "web-0", Namespace: "shop", UID: "u-1",
			Labels:      map[string]string{"app": "web", "example.com/tier": "a \"b\""},
			Annotations: map[string]string{"note": "hi"},
		},
		Spec: corev1.PodSpec{NodeName: "localcluster-1", ServiceAccountName: "clerk"},
	}
}

func TestFieldValue(t *testing.T) {
	facts := podFacts{podIP: "127.9.1.1", hostIP: "127.9.0.2"}
	for path, want := range map[string]string{
		"metadata.name": "web-0", "metadata.namespace": "shop", "metadata.uid": "u-1",
		"metadata.labels['app']": "web", "metadata.labels['none']": "", "metadata.annotations['note']": "hi",
		"metadata.labels":  "app=\"web\"\nexample.com/tier=\"a \\\"b\\\"\"",
		"spec.nodeName":    "localcluster-1",
		"status.podIP":     "127.9.1.1",
		"status.hostIP":    "127.9.0.2",
		"status.phase":     "error",
		"spec.labels['a']": "error",

		"spec.serviceAccountName": "clerk",
	} {
		got, err := fieldValue(testPod(), facts, path)
		if err != nil {
			got = "error"
		}
		if got != want {
			t.Errorf("%s = %q (%v), want %q", path, got, err, want)
		}
	}
}

func TestContainerEnvironment(t *testing.T) {
	read := func(_ context.Context, kind objectKind, namespace, name string) (map[string][]byte, bool, error) {
		switch {
		case namespace != "shop":
			return nil, false, errors.New("wrong namespace")
		case kind == kindConfigMap && name == "m":
			return map[string][]byte{"K": []byte("v"), "NAME": []byte("from"), "not=valid": nil}, true, nil
		case kind == kindSecret && name == "s":
			return map[string][]byte{"P": []byte("hush")}, true, nil
		}
		return nil, false, nil
	}
	ref := func(name string) corev1.LocalObjectReference { return corev1.LocalObjectReference{Name: name} }
	configKey := func(name, key string, optional bool) *corev1.EnvVarSource {
		return &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: ref(name), Key: key, Optional: &optional}}
	}
	for _, test := range []struct {
		name string
		c    corev1.Container
		want []string
		err  string
	}{
		{name: "only what the node gives", want: []string{"BASE=b"}},
		{
			name: "later values win and keep their place",
			c: corev1.Container{
				EnvFrom: []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: ref("m")}}},
				Env:     []corev1.EnvVar{{Name: "NAME", Value: "own"}, {Name: "BASE", Value: "mine"}},
			},
			want: []string{"BASE=mine", "K=v", "NAME=own"},
		},
		{
			name: "references see what comes before them",
			c:    corev1.Container{Env: []corev1.EnvVar{{Name: "A", Value: "$(BASE)$(C)"}, {Name: "C", Value: "$(A)!"}}},
			want: []string{"BASE=b", "A=b$(C)", "C=b$(C)!"},
		},
		{
			name: "prefix",
			c: corev1.Container{EnvFrom: []corev1.EnvFromSource{
				{Prefix: "S_", SecretRef: &corev1.SecretEnvSource{LocalObjectReference: ref("s")}}}},
			want: []string{"BASE=b", "S_P=hush"},
		},
		{
			name: "missing object",
			c:    corev1.Container{Env: []corev1.EnvVar{{Name: "A", ValueFrom: configKey("none", "k", false)}}},
			err:  `variable A: configmap "none" not found`,
		},
		{
			name: "missing key",
			c:    corev1.Container{Env: []corev1.EnvVar{{Name: "A", ValueFrom: configKey("m", "k", false)}}},
			err:  "variable A: couldn't find key k in ConfigMap shop/m",
		},
		{
			name: "missing but optional",
			c: corev1.Container{
				EnvFrom: []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: ref("none"), Optional: ptr.To(true)}}},
				Env:     []corev1.EnvVar{{Name: "A", ValueFrom: configKey("none", "k", true)}, {Name: "B", ValueFrom: configKey("m", "k", true)}},
			},
			want: []string{"BASE=b"},
		},
		{
			name: "unsupported field",
			c: corev1.Container{Env: []corev1.EnvVar{{Name: "A", ValueFrom: &corev1.EnvVarSource{
				FieldRef: &corev1.ObjectFieldSelector{FieldPath: "status.phase"}}}}},
			err: `variable A: unsupported field "status.phase"`,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			env, err := containerEnvironment(t.Context(), testPod(), &test.c, podFacts{}, map[string]string{"BASE": "b"}, read)
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Fatalf("got error %v, want %q", err, test.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := env.list(); !slices.Equal(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}
