// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package expiry

import (
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/incumbent-io/incumbent/pkg/controllers"
	"github.com/incumbent-io/incumbent/pkg/controllertest"

	"example.com/workspace-manager/api"
)

// team is a workspace that is an hour old and expires so long after its creation; "":
// never.
func team(expiresAfter string) *unstructured.Unstructured {
	object := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"maxPods": int64(10)}}}
	if expiresAfter != "" {
		object.Object["spec"].(map[string]any)["expiresAfter"] = expiresAfter
	}
	object.SetGroupVersionKind(api.Kind)
	object.SetName("team")
	object.SetCreationTimestamp(metav1.NewTime(time.Now().Add(-time.Hour)))
	return object
}

func TestAWorkspaceIsDeletedInTime(t *testing.T) {
	for _, test := range []struct {
		name, expiresAfter string
		maxAge             time.Duration
		want               time.Duration // from now; negative: never
	}{
		{name: "it says nothing", want: -1},
		{name: "it says when", expiresAfter: "3h", want: 2 * time.Hour},
		{name: "it is over", expiresAfter: "30m", want: 0},
		{name: "the manager says when", maxAge: 4 * time.Hour, want: 3 * time.Hour},
		{name: "it says earlier", expiresAfter: "2h", maxAge: 4 * time.Hour, want: time.Hour},
		{name: "it says later", expiresAfter: "9h", maxAge: 4 * time.Hour, want: 3 * time.Hour},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				h := controllertest.Run(t, Descriptor(), controllertest.Config{
					Objects: []runtime.Object{team(test.expiresAfter)},
					Options: func(o controllers.Options) { o.(*Options).MaxAge.Duration = test.maxAge },
				})
				if test.want > 0 {
					wantExpiry(t, h, began.Add(test.want))
					h.Advance(test.want - time.Second)
					get(t, h) // still there
					h.Advance(time.Second)
				}
				if test.want < 0 {
					wantExpiry(t, h, time.Time{})
					h.Advance(1000 * time.Hour)
					get(t, h)
					return
				}
				_, err := h.Dynamic.Resource(api.Resource).Get(t.Context(), "team", metav1.GetOptions{})
				if !apierrors.IsNotFound(err) {
					t.Errorf("it is still there after %v: %v", test.want, err)
				}
				if events := h.Events(); len(events) != 1 || events[0].Reason != "Expired" {
					t.Errorf("got events %v, want one that says Expired", events)
				}
			})
		})
	}
}

// TestAChangeOfMindCounts takes the expiry away before it comes.
func TestAChangeOfMindCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := controllertest.Run(t, Descriptor(), controllertest.Config{Objects: []runtime.Object{team("3h")}})
		object := get(t, h)
		unstructured.RemoveNestedField(object.Object, "spec", "expiresAfter")
		if _, err := h.Dynamic.Resource(api.Resource).Update(t.Context(), object, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		h.Advance(10 * time.Hour)
		wantExpiry(t, h, time.Time{})
	})
}

func get(t *testing.T, h *controllertest.Harness) *unstructured.Unstructured {
	t.Helper()
	object, err := h.Dynamic.Resource(api.Resource).Get(t.Context(), "team", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return object
}

// wantExpiry compares the status; zero: there is none.
func wantExpiry(t *testing.T, h *controllertest.Harness, want time.Time) {
	t.Helper()
	got, _, err := unstructured.NestedString(get(t, h).Object, "status", "expiresAt")
	if err != nil {
		t.Fatal(err)
	}
	text := ""
	if !want.IsZero() {
		text = want.UTC().Format(time.RFC3339)
	}
	if got != text {
		t.Errorf("it expires at %q, want %q", got, text)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	wrong := &Options{MaxAge: metav1.Duration{Duration: -time.Hour}}
	if errs := wrong.Validate(nil); len(errs) != 1 {
		t.Errorf("got %v for a negative age, want a mistake", errs)
	}
}
