// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

// Package api has the type Workspace, as manifests/crd.yaml defines it. It needs no
// generated code: clients and caches hold workspaces untyped, and what reads them gets
// the type.
package api

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/cache"
)

var (
	// Version is the API group and version of workspaces.
	Version = schema.GroupVersion{Group: "example.com", Version: "v1alpha1"}
	// Kind is the kind Workspace.
	Kind = Version.WithKind("Workspace")
	// Resource is how the API server calls workspaces.
	Resource = Version.WithResource("workspaces")
	// Status is the subresource of it, and Finalizers that which some clusters ask about
	// when an owner reference blocks the deletion of its owner.
	Status, Finalizers = Version.WithResource("workspaces/status"), Version.WithResource("workspaces/finalizers")
)

// Ready is the type of the condition that says whether a workspace can be used.
const Ready = "Ready"

// Workspace is a namespace for a team, with a limit, and for a time. It belongs to no
// namespace.
type Workspace struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`

	Spec   WorkspaceSpec   `json:"spec"`
	Status WorkspaceStatus `json:"status"`
}

// WorkspaceSpec is what somebody wants.
type WorkspaceSpec struct {
	// MaxPods is how many Pods there may be. The API server lets nothing below 1 in.
	MaxPods int64 `json:"maxPods"`
	// ExpiresAfter is how long after its creation the workspace is deleted. Nil: never.
	ExpiresAfter *metav1.Duration `json:"expiresAfter,omitempty"`
}

// WorkspaceStatus is what there is. Each field is written by one controller.
type WorkspaceStatus struct {
	// Namespace and Conditions are written by the controller workspace.
	Namespace  string             `json:"namespace,omitempty"`
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// ExpiresAt is written by the controller workspace-expiry.
	ExpiresAt *metav1.Time `json:"expiresAt,omitempty"`
}

// NamespaceName is the name of its namespace.
func (w *Workspace) NamespaceName() string { return NamespacePrefix + w.Name }

// NamespacePrefix is what the names of all namespaces of workspaces begin with.
const NamespacePrefix = "ws-"

// Reference is what Events are about.
func (w *Workspace) Reference() *corev1.ObjectReference {
	return &corev1.ObjectReference{
		APIVersion: Version.String(), Kind: Kind.Kind, Name: w.Name, UID: w.UID, ResourceVersion: w.ResourceVersion,
	}
}

// Lister reads workspaces from the cache of an untyped informer.
type Lister struct{ cache.GenericLister }

// Get returns a workspace, which the caller may change. The error is that of the lister,
// or says that what is there is no Workspace.
func (l Lister) Get(name string) (*Workspace, error) {
	object, err := l.GenericLister.Get(name)
	if err != nil {
		return nil, err
	}
	content, ok := object.(*unstructured.Unstructured)
	if !ok {
		return nil, fmt.Errorf("workspace %s: the cache holds a %T", name, object)
	}
	workspace := &Workspace{}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(content.DeepCopy().Object, workspace); err != nil {
		return nil, fmt.Errorf("workspace %s: %w", name, err)
	}
	return workspace, nil
}
