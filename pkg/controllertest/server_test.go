// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package controllertest_test

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/incumbent-io/incumbent/pkg/controllers"
	"github.com/incumbent-io/incumbent/pkg/controllertest"
)

// inServer runs a test against a fake API server; its controller does nothing.
func inServer(t *testing.T, test func(t *testing.T, h *controllertest.Harness), objects ...runtime.Object) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		d := greeter()
		d.Access = func(controllers.NoOptions) []controllers.Access {
			return []controllers.Access{{Resource: widgets, Verbs: []string{"get"}}}
		}
		d.Init = idle
		test(t, controllertest.Run(t, d, controllertest.Config{Objects: objects}))
	})
}

var widgets = schema.GroupVersionResource{Group: "example.com", Version: "v1", Resource: "widgets"}

func TestServerRefusesWhatAnAPIServerRefuses(t *testing.T) {
	inServer(t, func(t *testing.T, h *controllertest.Harness) {
		maps := h.Kubernetes.CoreV1().ConfigMaps("a")
		create(t, h, "a", "m")
		found, err := maps.Get(t.Context(), "m", metav1.GetOptions{})
		if err != nil || found.UID == "" || found.ResourceVersion == "" || found.CreationTimestamp.IsZero() || found.Kind != "" {
			t.Fatalf("created: got %+v, %v; want a UID, a version and a time, and no kind", found, err)
		}
		other := types.UID("other")
		stale := found.DeepCopy()
		stale.ResourceVersion = "1"
		mine := applycorev1.ConfigMap("m", "a").WithData(map[string]string{"k": "mine"})
		theirs := applycorev1.ConfigMap("m", "a").WithData(map[string]string{"k": "theirs"})
		if _, err := maps.Apply(t.Context(), mine, metav1.ApplyOptions{FieldManager: "me"}); err != nil {
			t.Fatal(err)
		}
		tests := map[string]struct {
			do   func() error
			want func(error) bool
		}{
			"create what exists": {func() error {
				_, err := maps.Create(t.Context(), configMap("a", "m"), metav1.CreateOptions{})
				return err
			}, apierrors.IsAlreadyExists},
			"create with a version": {func() error { _, err := maps.Create(t.Context(), stale, metav1.CreateOptions{}); return err }, apierrors.IsBadRequest},
			"update an old version": {func() error { _, err := maps.Update(t.Context(), stale, metav1.UpdateOptions{}); return err }, apierrors.IsConflict},
			"update what is missing": {func() error {
				_, err := maps.Update(t.Context(), configMap("a", "x"), metav1.UpdateOptions{})
				return err
			}, apierrors.IsNotFound},
			"apply another's field": {func() error {
				_, err := maps.Apply(t.Context(), theirs, metav1.ApplyOptions{FieldManager: "they"})
				return err
			}, apierrors.IsConflict},
			"apply with a UID, gone": {func() error {
				_, err := maps.Apply(t.Context(), applycorev1.ConfigMap("x", "a").WithUID(other), metav1.ApplyOptions{FieldManager: "me"})
				return err
			}, apierrors.IsConflict},
			"delete with another UID": {func() error {
				return maps.Delete(t.Context(), "m", metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &other}})
			}, apierrors.IsConflict},
			"list by a field": {func() error {
				_, err := maps.List(t.Context(), metav1.ListOptions{FieldSelector: "data.k=mine"})
				return err
			}, apierrors.IsBadRequest},
		}
		for name, test := range tests {
			if err := test.do(); !test.want(err) {
				t.Errorf("%s: got %v, want it refused", name, err)
			}
		}
	})
}

func TestServerAppliesWithOwners(t *testing.T) {
	inServer(t, func(t *testing.T, h *controllertest.Harness) {
		maps := h.Kubernetes.CoreV1().ConfigMaps("a")
		apply := func(data map[string]string, manager string) *corev1.ConfigMap {
			t.Helper()
			applied, err := maps.Apply(t.Context(), applycorev1.ConfigMap("m", "a").WithData(data), metav1.ApplyOptions{FieldManager: manager, Force: true})
			if err != nil {
				t.Fatal(err)
			}
			return applied
		}
		apply(map[string]string{"a": "1", "b": "1"}, "me")
		apply(map[string]string{"c": "1"}, "they")
		before := apply(map[string]string{"a": "2"}, "me")
		if diff := cmp.Diff(map[string]string{"a": "2", "c": "1"}, before.Data); diff != "" {
			t.Errorf("data (-want +got):\n%s", diff)
		}
		if after := apply(map[string]string{"a": "2"}, "me"); after.ResourceVersion != before.ResourceVersion {
			t.Errorf("version after applying the same: got %s, want it unchanged, %s", after.ResourceVersion, before.ResourceVersion)
		}
	})
}

func TestServerKeepsObjectsWithFinalizers(t *testing.T) {
	held := configMap("a", "held")
	held.Finalizers = []string{"example.com/hold"}
	for name, letGo := range map[string]func(context.Context, typedcorev1.ConfigMapInterface, *corev1.ConfigMap) error{
		"by a patch": func(ctx context.Context, maps typedcorev1.ConfigMapInterface, _ *corev1.ConfigMap) error {
			_, err := maps.Patch(ctx, "held", types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{})
			return err
		},
		"by an update": func(ctx context.Context, maps typedcorev1.ConfigMapInterface, found *corev1.ConfigMap) error {
			found.Finalizers = nil
			_, err := maps.Update(ctx, found, metav1.UpdateOptions{})
			return err
		},
	} {
		inServer(t, func(t *testing.T, h *controllertest.Harness) {
			maps := h.Kubernetes.CoreV1().ConfigMaps("a")
			if err := maps.Delete(t.Context(), "held", metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
			found, err := maps.Get(t.Context(), "held", metav1.GetOptions{})
			if err != nil || found.DeletionTimestamp == nil {
				t.Fatalf("deleted with a finalizer: got %v, %v; want it to be deleting", found, err)
			}
			if err := letGo(t.Context(), maps, found); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if _, err := maps.Get(t.Context(), "held", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
				t.Errorf("without its finalizer, %s: got %v, want not found", name, err)
			}
		}, held)
	}
}

func TestServerKnowsCustomResourcesAndStatus(t *testing.T) {
	inServer(t, func(t *testing.T, h *controllertest.Harness) {
		client := h.Dynamic.Resource(widgets).Namespace("a")
		widget := &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "example.com/v1", "kind": "Widget", "metadata": map[string]any{"generateName": "w-"}, "spec": map[string]any{"size": int64(1)},
		}}
		made, err := client.Create(t.Context(), widget, metav1.CreateOptions{})
		if err != nil || len(made.GetName()) != len("w-")+5 {
			t.Fatalf("created: got %v, %v; want a generated name", made, err)
		}
		changed := made.DeepCopy()
		changed.Object["spec"], changed.Object["status"] = map[string]any{"size": int64(9)}, map[string]any{"ready": true}
		if _, err := client.UpdateStatus(t.Context(), changed, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		list, err := client.List(t.Context(), metav1.ListOptions{})
		if err != nil || len(list.Items) != 1 {
			t.Fatalf("listed: got %v, %v; want one", list, err)
		}
		got := []any{list.Items[0].Object["spec"], list.Items[0].Object["status"]}
		if diff := cmp.Diff([]any{map[string]any{"size": int64(1)}, map[string]any{"ready": true}}, got); diff != "" {
			t.Errorf("spec and status (-want +got):\n%s", diff)
		}
		partial, err := h.Metadata.Resource(widgets).Namespace("a").Get(t.Context(), made.GetName(), metav1.GetOptions{})
		if err != nil || partial.UID != made.GetUID() || partial.Kind != "PartialObjectMetadata" {
			t.Errorf("metadata: got %+v, %v; want those of the same object", partial, err)
		}
	})
}
