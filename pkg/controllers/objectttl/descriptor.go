// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package objectttl

import "github.com/incumbent-io/incumbent/pkg/controllers"

// Name is the controller's name.
const Name = "object-ttl"

// Descriptor registers the object-ttl controller.
func Descriptor() controllers.Registration {
	return controllers.Descriptor[*Options]{
		Name:    Name,
		Summary: "Deletes objects whose " + AnnotationTTL + " or " + AnnotationExpiresAt + " annotation has run out.",
		Options: defaults,
		Access:  access,
		Init:    build,
	}
}

// access makes resources optional beside each other, so that one that is missing does not
// hold up the others. One alone is needed.
func access(o *Options) []controllers.Access {
	var needs []controllers.Access
	resources := o.resourceVersions()
	for _, gvr := range resources {
		needs = append(needs, controllers.Access{Resource: gvr, Verbs: []string{"list", "watch", "delete"}, Optional: len(resources) > 1})
	}
	return needs
}
