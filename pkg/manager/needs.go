// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package manager

import (
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/incumbent-io/incumbent/pkg/controllers"
	"github.com/incumbent-io/incumbent/pkg/options"
	"github.com/incumbent-io/incumbent/pkg/preflight"
)

var (
	leaseResource = schema.GroupVersionResource{Group: "coordination.k8s.io", Version: "v1", Resource: "leases"}
	// Who asks for metrics and status, and may they?
	tokenReviewResource  = schema.GroupVersionResource{Group: "authentication.k8s.io", Version: "v1", Resource: "tokenreviews"}
	accessReviewResource = schema.GroupVersionResource{Group: "authorization.k8s.io", Version: "v1", Resource: "subjectaccessreviews"}
	// It tells whose client certificates count.
	configMapResource = schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}
	eventResource     = schema.GroupVersionResource{Group: "events.k8s.io", Version: "v1", Resource: "events"}
)

// needs returns what the manager and its enabled controllers need of the API server.
func needs(outline *options.Outline) []preflight.Need {
	list := []preflight.Need{
		{Owner: "serving", Access: controllers.Access{Resource: tokenReviewResource, Verbs: []string{"create"}}},
		{Owner: "serving", Access: controllers.Access{Resource: accessReviewResource, Verbs: []string{"create"}}},
		{Owner: "events", Access: controllers.Access{Resource: eventResource, Verbs: []string{"create", "patch"}}},
	}
	if outline.ClientCALookup {
		// It is in kube-system. A rule for all namespaces allows nothing else that
		// anybody would have, and stays where kustomize sets one namespace for all.
		list = append(list, preflight.Need{Owner: "serving", Access: controllers.Access{
			Resource: configMapResource, Names: []string{"extension-apiserver-authentication"}, Verbs: []string{"get"}, Optional: true,
		}})
	}
	for _, group := range outline.Groups {
		if !outline.Elected || !anyEnabled(desired(outline.Controllers, group.Name)) {
			continue
		}
		list = append(list,
			// "create" cannot be restricted to a name.
			preflight.Need{Owner: "leader election", Access: controllers.Access{
				Resource: leaseResource, Namespace: group.LeaseNamespace, Verbs: []string{"create"},
			}},
			preflight.Need{Owner: "leader election", Access: controllers.Access{
				Resource: leaseResource, Namespace: group.LeaseNamespace, Names: []string{group.LeaseName}, Verbs: []string{"get", "list", "update", "watch"},
			}})
	}
	for _, c := range outline.Controllers {
		if !c.Decision.Enabled {
			continue
		}
		for _, access := range c.Access() {
			list = append(list, preflight.Need{Owner: c.Name, Access: access})
		}
	}
	return list
}
