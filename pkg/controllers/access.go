// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package controllers

import (
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// OwnNamespace as the Namespace of an Access stands for the namespace that the
// manager runs in.
const OwnNamespace = "{own}"

// Access is a resource with the verbs that a controller needs on it: a discovery
// check, a permission check and an RBAC rule in one.
type Access struct {
	// Resource is what is accessed. Resource.Resource may name a subresource
	// ("pods/status"), or be RESOURCE/finalizers, which is served by nobody: to set an
	// owner reference that blocks deletion, some clusters want "update" on it.
	Resource schema.GroupVersionResource
	// Verbs are the Kubernetes verbs: get, list, watch, create, update, patch,
	// delete, deletecollection.
	Verbs []string
	// Names restricts the access to objects of these names. Empty means all.
	Names []string
	// Namespace is "" for all namespaces (a ClusterRole), OwnNamespace, or a
	// namespace's name (a Role).
	Namespace string
	// Optional means that the controller runs without it: Context.Served tells Init
	// whether it is there, and the controller is built anew when that changes.
	Optional bool
}

// Rule returns the RBAC rule that grants a. Verbs come sorted, so that equal needs
// print as equal rules.
func (a Access) Rule() rbacv1.PolicyRule {
	verbs := slices.Clone(a.Verbs)
	slices.Sort(verbs)
	return rbacv1.PolicyRule{
		APIGroups:     []string{a.Resource.Group},
		Resources:     []string{a.Resource.Resource},
		ResourceNames: slices.Clone(a.Names),
		Verbs:         slices.Compact(verbs),
	}
}

// WriteVerbs returns those of the verbs that change something.
func (a Access) WriteVerbs() (verbs []string) {
	for _, verb := range a.Verbs {
		switch verb {
		case "get", "list", "watch":
		default:
			verbs = append(verbs, verb)
		}
	}
	return verbs
}
