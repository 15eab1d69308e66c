// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package workspace

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/incumbent-io/incumbent/pkg/controllertest"

	"example.com/workspace-manager/api"
)

// team is a workspace as a user creates it.
func team(change ...func(*unstructured.Unstructured)) *unstructured.Unstructured {
	object := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"maxPods": int64(10)}}}
	object.SetGroupVersionKind(api.Kind)
	object.SetName("team")
	object.SetUID("uid-of-team")
	for _, change := range change {
		change(object)
	}
	return object
}

// world is the controller on a fake API server, in a bubble.
type world struct {
	t *testing.T
	*controllertest.Harness
}

func inWorld(t *testing.T, config controllertest.Config, scenario func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		scenario(&world{t: t, Harness: controllertest.Run(t, Descriptor(), config)})
	})
}

// workspace returns the workspace as it is now, or nil.
func (w *world) workspace() *api.Workspace {
	w.t.Helper()
	object, err := w.Dynamic.Resource(api.Resource).Get(w.t.Context(), "team", metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	workspace := &api.Workspace{}
	if err == nil {
		err = runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, workspace)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return workspace
}

// namespace returns the namespace as it is now, or nil.
func (w *world) namespace() *corev1.Namespace {
	w.t.Helper()
	namespace, err := w.Kubernetes.CoreV1().Namespaces().Get(w.t.Context(), "ws-team", metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return namespace
}

// maxPods returns what the quota allows, -1 without a quota.
func (w *world) maxPods() int64 {
	w.t.Helper()
	quota, err := w.Kubernetes.CoreV1().ResourceQuotas("ws-team").Get(w.t.Context(), quotaName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return -1
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return quota.Spec.Hard.Pods().Value()
}

func (w *world) wantReady(status metav1.ConditionStatus, reason string) {
	w.t.Helper()
	ready := meta.FindStatusCondition(w.workspace().Status.Conditions, api.Ready)
	if ready == nil || ready.Status != status || ready.Reason != reason {
		w.t.Errorf("got condition %+v, want %s because of %s", ready, status, reason)
	}
}

func (w *world) wantEvents(want ...string) {
	w.t.Helper()
	var got []string
	for _, event := range w.Events() {
		got = append(got, event.Type+" "+event.Reason)
	}
	if !slices.Equal(got, want) {
		w.t.Errorf("got events %q, want %q", got, want)
	}
}

// do is for what the test itself changes; the controller follows.
func (w *world) do(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
	w.Settle()
}

func TestAWorkspaceGetsItsNamespaceAndQuota(t *testing.T) {
	inWorld(t, controllertest.Config{Objects: []runtime.Object{team()}}, func(w *world) {
		workspace, namespace := w.workspace(), w.namespace()
		if namespace == nil || !metav1.IsControlledBy(namespace, workspace) || namespace.Labels[Label] != "team" {
			t.Errorf("got namespace %+v, want one that the workspace owns", namespace)
		}
		if got := w.maxPods(); got != 10 {
			t.Errorf("got a quota of %d Pods, want 10", got)
		}
		if !slices.Contains(workspace.Finalizers, Finalizer) || workspace.Status.Namespace != "ws-team" {
			t.Errorf("got finalizers %q and status %+v", workspace.Finalizers, workspace.Status)
		}
		w.wantReady(metav1.ConditionTrue, "Created")
		w.wantEvents("Normal Created")

		// Once it is as it should be, nothing is written.
		w.Writes()
		w.Stop()
		w.Start()
		w.Advance(time.Hour)
		if writes := w.Writes(); len(writes) != 0 {
			t.Errorf("got writes %v after a hand-over, want none", writes)
		}
	})
}

func TestAChangeOfTheLimitReachesTheQuota(t *testing.T) {
	inWorld(t, controllertest.Config{Objects: []runtime.Object{team()}}, func(w *world) {
		object, err := w.Dynamic.Resource(api.Resource).Get(t.Context(), "team", metav1.GetOptions{})
		w.do(err)
		w.do(unstructured.SetNestedField(object.Object, int64(3), "spec", "maxPods"))
		_, err = w.Dynamic.Resource(api.Resource).Update(t.Context(), object, metav1.UpdateOptions{})
		w.do(err)
		if got := w.maxPods(); got != 3 {
			t.Errorf("got a quota of %d Pods, want 3", got)
		}
		// Nobody else changes it for long.
		w.do(w.Kubernetes.CoreV1().ResourceQuotas("ws-team").Delete(t.Context(), quotaName, metav1.DeleteOptions{}))
		if got := w.maxPods(); got != 3 {
			t.Errorf("got a quota of %d Pods after its deletion, want 3", got)
		}
	})
}

func TestANamespaceOfSomebodyElseIsNotTouched(t *testing.T) {
	other := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ws-team"}}
	inWorld(t, controllertest.Config{Objects: []runtime.Object{team(), other}}, func(w *world) {
		w.wantReady(metav1.ConditionFalse, "Conflict")
		w.wantEvents("Warning Conflict")
		if w.maxPods() != -1 || w.namespace().OwnerReferences != nil {
			t.Error("it was touched")
		}
		// The conflict ends when the other goes.
		w.do(w.Kubernetes.CoreV1().Namespaces().Delete(t.Context(), "ws-team", metav1.DeleteOptions{}))
		w.wantReady(metav1.ConditionTrue, "Created")
	})
	inWorld(t, controllertest.Config{Objects: []runtime.Object{team(), other}}, func(w *world) {
		w.do(w.Dynamic.Resource(api.Resource).Delete(t.Context(), "team", metav1.DeleteOptions{}))
		if w.workspace() != nil || w.namespace() == nil {
			t.Error("the workspace should have gone, and the namespace of somebody else stayed")
		}
	})
}

func TestTheNamespaceGoesBeforeItsWorkspace(t *testing.T) {
	inWorld(t, controllertest.Config{Objects: []runtime.Object{team()}}, func(w *world) {
		// As long as there is something in it, a namespace terminates.
		namespace := w.namespace()
		namespace.Finalizers = []string{"example.com/contents"}
		_, err := w.Kubernetes.CoreV1().Namespaces().Update(t.Context(), namespace, metav1.UpdateOptions{})
		w.do(err)
		w.Events()
		w.do(w.Dynamic.Resource(api.Resource).Delete(t.Context(), "team", metav1.DeleteOptions{}))
		if namespace = w.namespace(); namespace.DeletionTimestamp == nil {
			t.Error("the namespace is not being deleted")
		}
		w.wantReady(metav1.ConditionFalse, "Dismantling")
		w.wantEvents("Normal Dismantling")

		namespace.Finalizers = nil
		_, err = w.Kubernetes.CoreV1().Namespaces().Update(t.Context(), namespace, metav1.UpdateOptions{})
		w.do(err)
		if w.namespace() != nil || w.workspace() != nil {
			t.Errorf("got namespace %v and workspace %v, want neither", w.namespace(), w.workspace())
		}
	})
}

func TestADeletedNamespaceIsMadeAnew(t *testing.T) {
	inWorld(t, controllertest.Config{Objects: []runtime.Object{team()}}, func(w *world) {
		before := w.namespace().UID
		w.do(w.Kubernetes.CoreV1().Namespaces().Delete(t.Context(), "ws-team", metav1.DeleteOptions{}))
		if after := w.namespace(); after == nil || after.UID == before {
			t.Errorf("got namespace %v, want another than %s", after, before)
		}
		w.wantReady(metav1.ConditionTrue, "Created")
	})
}

// TestWritesThatFailAreTriedAgain has every kind of write fail once.
func TestWritesThatFailAreTriedAgain(t *testing.T) {
	for _, verb := range []string{"create namespaces", "patch resourcequotas ws-team", "patch workspaces.example.com team", "patch workspaces/status.example.com team"} {
		t.Run(verb, func(t *testing.T) {
			failed := false
			config := controllertest.Config{
				Objects:     []runtime.Object{team()},
				AllowErrors: []string{"not this time"},
				OnWrite: func(r controllertest.Request) error {
					if failed || !strings.HasPrefix(r.String(), verb) {
						return nil
					}
					failed = true
					return apierrors.NewInternalError(fmt.Errorf("not this time"))
				},
			}
			inWorld(t, config, func(w *world) {
				w.Advance(time.Minute)
				w.wantReady(metav1.ConditionTrue, "Created")
				if !failed || w.maxPods() != 10 {
					t.Errorf("failed: %v, quota: %d Pods", failed, w.maxPods())
				}
			})
		})
	}
}

func TestWhatIsNoWorkspaceIsLogged(t *testing.T) {
	broken := team(func(object *unstructured.Unstructured) { object.Object["spec"] = "none" })
	inWorld(t, controllertest.Config{Objects: []runtime.Object{broken}, AllowErrors: []string{"workspace team"}}, func(w *world) {
		if writes := w.Writes(); len(writes) != 0 {
			t.Errorf("got writes %v, want none", writes)
		}
	})
}

func TestOptionsAreChecked(t *testing.T) {
	if errs := (&Options{}).Validate(nil); len(errs) != 1 {
		t.Errorf("got %v for no workers, want a mistake", errs)
	}
}
