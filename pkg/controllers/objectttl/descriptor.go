// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package objectttl

import (
	"context"

	"github.com/incumbent-io/incumbent/pkg/controllers"
)

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

func access(o *Options) []controllers.Access {
	var needs []controllers.Access
	for _, gvr := range o.resourceVersions() {
		needs = append(needs, controllers.Access{Resource: gvr, Verbs: []string{"list", "watch", "delete"}})
	}
	return needs
}

func build(ctx context.Context, c *controllers.Context, o *Options) (controllers.Controller, error) {
	controller := newController(ctx, c, o.Workers)
	for _, gvr := range o.resourceVersions() {
		if err := controller.watch(gvr, c.Informers.Metadata(gvr).Informer()); err != nil {
			return nil, err
		}
	}
	return controller, nil
}
