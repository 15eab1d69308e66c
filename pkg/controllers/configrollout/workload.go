// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package configrollout

import (
	"context"
	"encoding/json"
	"maps"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	appsinformers "k8s.io/client-go/informers/apps/v1"
	"k8s.io/client-go/kubernetes"
	appsclient "k8s.io/client-go/kubernetes/typed/apps/v1"
	"k8s.io/client-go/tools/cache"
)

// fieldManager owns what the controller writes.
const fieldManager = "incumbent-" + Name

// id is the key of the queue: one workload.
type id struct {
	kind string
	name cache.ObjectName
}

// String names the workload in logs.
func (i id) String() string { return i.kind + " " + i.name.String() }

// workload is what the controller looks at, of whatever kind it is.
type workload struct {
	runtime.Object
	metav1.ObjectMeta
	kind     string
	template *corev1.PodTemplateSpec
	paused   bool
}

// workloadOf returns false for objects that are no workloads.
func workloadOf(object any) (workload, bool) {
	switch o := object.(type) {
	case *appsv1.Deployment:
		return workload{o, o.ObjectMeta, deployment, &o.Spec.Template, o.Spec.Paused}, true
	case *appsv1.StatefulSet:
		return workload{o, o.ObjectMeta, statefulSet, &o.Spec.Template, false}, true
	case *appsv1.DaemonSet:
		return workload{o, o.ObjectMeta, daemonSet, &o.Spec.Template, false}, true
	}
	return workload{}, false
}

// The kinds of workloads.
const (
	deployment  = "Deployment"
	statefulSet = "StatefulSet"
	daemonSet   = "DaemonSet"
)

func lower(kind string) string { return strings.ToLower(kind) }

// kind is how workloads of one kind are watched, read and written.
type kind struct {
	resource schema.GroupVersionResource
	informer func(informers.SharedInformerFactory) cache.SharedIndexInformer
	get      func(ctx context.Context, c kubernetes.Interface, name cache.ObjectName) (any, error)
	patch    func(ctx context.Context, c kubernetes.Interface, name cache.ObjectName, patch []byte) (metav1.Object, error)
}

// kinds returns all kinds of workloads.
func kinds() map[string]kind {
	return map[string]kind{
		deployment: newKind("deployments",
			func(f appsinformers.Interface) cache.SharedIndexInformer { return f.Deployments().Informer() },
			func(c appsclient.AppsV1Interface, namespace string) client[*appsv1.Deployment] {
				return c.Deployments(namespace)
			}),
		statefulSet: newKind("statefulsets",
			func(f appsinformers.Interface) cache.SharedIndexInformer { return f.StatefulSets().Informer() },
			func(c appsclient.AppsV1Interface, namespace string) client[*appsv1.StatefulSet] {
				return c.StatefulSets(namespace)
			}),
		daemonSet: newKind("daemonsets",
			func(f appsinformers.Interface) cache.SharedIndexInformer { return f.DaemonSets().Informer() },
			func(c appsclient.AppsV1Interface, namespace string) client[*appsv1.DaemonSet] {
				return c.DaemonSets(namespace)
			}),
	}
}

// client is what the controller needs of the client of one kind in one namespace.
type client[T metav1.Object] interface {
	Get(ctx context.Context, name string, options metav1.GetOptions) (T, error)
	Patch(ctx context.Context, name string, form types.PatchType, patch []byte, options metav1.PatchOptions, subresources ...string) (T, error)
}

func newKind[T metav1.Object](resource string, informer func(appsinformers.Interface) cache.SharedIndexInformer, in func(c appsclient.AppsV1Interface, namespace string) client[T]) kind {
	return kind{
		resource: appsv1.SchemeGroupVersion.WithResource(resource),
		informer: func(f informers.SharedInformerFactory) cache.SharedIndexInformer { return informer(f.Apps().V1()) },
		get: func(ctx context.Context, c kubernetes.Interface, name cache.ObjectName) (any, error) {
			return in(c.AppsV1(), name.Namespace).Get(ctx, name.Name, metav1.GetOptions{})
		},
		patch: func(ctx context.Context, c kubernetes.Interface, name cache.ObjectName, patch []byte) (metav1.Object, error) {
			options := metav1.PatchOptions{FieldManager: fieldManager}
			return in(c.AppsV1(), name.Namespace).Patch(ctx, name.Name, types.MergePatchType, patch, options)
		},
	}
}

// concerns says whether an update of a workload may call for anything: updates of its
// status do not.
func concerns[T metav1.Object](before, after T) bool {
	return before.GetUID() != after.GetUID() ||
		before.GetGeneration() != after.GetGeneration() ||
		!maps.Equal(before.GetAnnotations(), after.GetAnnotations()) ||
		!maps.Equal(before.GetLabels(), after.GetLabels()) ||
		(before.GetDeletionTimestamp() == nil) != (after.GetDeletionTimestamp() == nil)
}

// sourceIndex finds workloads by what they refer to.
const sourceIndex = "config-rollout/source"

// indexed returns the sources that a workload refers to, if it is annotated at all.
func indexed(object any) ([]string, error) {
	w, ok := workloadOf(object)
	if !ok || w.Annotations[AnnotationOptIn] == "" {
		return nil, nil
	}
	var values []string
	for _, from := range sourcesOf(referencesOf(&w.template.Spec)) {
		values = append(values, from.in(w.Namespace))
	}
	return values, nil
}

// marked tells whether the workload carries what the controller writes on it.
func (w workload) marked() bool {
	_, record := w.Annotations[AnnotationRecord]
	_, seal := w.Labels[LabelSeal]
	return record || seal
}

// marks is what the controller writes on a workload. A nil record is removed.
type marks struct {
	record record
	hash   string // of the Pod template; "" leaves it as it is
}

// patch returns a JSON merge patch of marks that the API server refuses with a conflict
// if the workload is not what it was when it was judged: not the same object, or
// changed since.
func (w workload) patch(m marks) []byte {
	annotations, labels := map[string]any{AnnotationRecord: nil}, map[string]any{LabelSeal: nil}
	if m.record != nil {
		annotations[AnnotationRecord] = m.record.encode()
		labels[LabelSeal] = sealOf(w.UID, m.record)
	}
	content := map[string]any{"metadata": map[string]any{
		"uid": w.UID, "resourceVersion": w.ResourceVersion, "annotations": annotations, "labels": labels,
	}}
	if m.hash != "" {
		content["spec"] = map[string]any{"template": map[string]any{"metadata": map[string]any{
			"annotations": map[string]any{AnnotationHash: m.hash},
		}}}
	}
	patch, err := json.Marshal(content)
	if err != nil {
		panic(err) // Strings and nils can be encoded.
	}
	return patch
}
