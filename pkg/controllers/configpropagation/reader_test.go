// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package configpropagation

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

// TestWhatASourceNoLongerAsksForIsNotRead: the cache lags behind the API server, whose
// newer version of the source may have content that is not for others.
func TestWhatASourceNoLongerAsksForIsNotRead(t *testing.T) {
	asks := map[string]string{AnnotationTo: "team=a"}
	for _, tt := range []struct {
		name        string
		annotations map[string]string
		labels      map[string]string
		uid         types.UID
		want        bool
	}{
		{name: "the same", annotations: asks, uid: "u", want: true},
		{name: "another annotation, too", annotations: map[string]string{AnnotationTo: "team=a", "x": "y"}, uid: "u", want: true},
		{name: "another selector", annotations: map[string]string{AnnotationTo: "team=b"}, uid: "u"},
		{name: "a malformed selector", annotations: map[string]string{AnnotationTo: "=="}, uid: "u"},
		{name: "no selector", uid: "u"},
		{name: "another object", annotations: asks, uid: "v"},
		{name: "a copy", annotations: map[string]string{AnnotationTo: "team=a", AnnotationCopy: "platform/m of x"}, labels: map[string]string{LabelFrom: "x"}, uid: "u"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			live := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "platform", Name: "m", UID: tt.uid, ResourceVersion: "2", Annotations: tt.annotations, Labels: tt.labels}}
			client := fake.NewClientset(live)
			r := &reader{client: client, reads: map[id]*read{}}
			known := &meta{ObjectMeta: metav1.ObjectMeta{Namespace: "platform", Name: "m", UID: "u", ResourceVersion: "1", Annotations: asks}}
			for range 2 {
				got, err := r.original(t.Context(), configMap, known)
				if err != nil || (got != nil) != tt.want {
					t.Errorf("got %v, %v; want one: %v", got, err, tt.want)
				}
			}
			if n := len(client.Actions()); n != 1 {
				t.Errorf("it was read %d times, want once: %v", n, client.Actions())
			}
			known.ResourceVersion = "2"
			if _, err := r.original(t.Context(), configMap, known); err != nil {
				t.Error(err)
			}
			if n := len(client.Actions()); tt.want && n != 1 {
				t.Errorf("the version that was read was read again: %v", client.Actions()[1:])
			}
		})
	}
}

// TestASurveyGoesOnWhereItWas: a list of very many pages takes longer than one reconcile
// may.
func TestASurveyGoesOnWhereItWas(t *testing.T) {
	copied := func(name string) corev1.ConfigMap {
		return corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: name, ResourceVersion: "1", Labels: map[string]string{LabelFrom: "platform"},
			Annotations: map[string]string{AnnotationCopy: "a/" + name + " of u"}}}
	}
	client := fake.NewClientset()
	var asked []string
	failures := 1
	client.PrependReactor("list", "configmaps", func(action clienttesting.Action) (bool, runtime.Object, error) {
		from := action.(clienttesting.ListActionImpl).ListOptions.Continue
		asked = append(asked, from)
		switch {
		case from == "":
			return true, &corev1.ConfigMapList{ListMeta: metav1.ListMeta{Continue: "2"}, Items: []corev1.ConfigMap{copied("m")}}, nil
		case failures > 0:
			failures--
			return true, nil, context.DeadlineExceeded
		}
		return true, &corev1.ConfigMapList{Items: []corev1.ConfigMap{copied("n"), {ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "foreign"}}}}, nil
	})
	s := &survey{}
	s.begin(few + 1)
	if _, err := s.take(t.Context(), client, configMap, id{"ConfigMap", "a", "n"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the error of the second page", err)
	}
	for name, want := range map[string]string{"m": "1", "n": "1", "foreign": ""} {
		got, err := s.take(t.Context(), client, configMap, id{"ConfigMap", "a", name})
		if err != nil || got.version != want {
			t.Errorf("%s: got version %q, %v; want %q", name, got.version, err, want)
		}
	}
	if diff := cmp.Diff([]string{"", "2", "2"}, asked); diff != "" {
		t.Errorf("pages differ (-want +got):\n%s", diff)
	}
}
