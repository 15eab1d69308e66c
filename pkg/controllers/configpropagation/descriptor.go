// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package configpropagation

import (
	"context"

	corev1 "k8s.io/api/core/v1"

	"github.com/incumbent-io/incumbent/pkg/controllers"
)

// Name is the controller's name.
const Name = "config-propagation"

var namespaces = corev1.SchemeGroupVersion.WithResource("namespaces")

// Descriptor registers the config-propagation controller.
func Descriptor() controllers.Registration {
	return controllers.Descriptor[*Options]{
		Name:              Name,
		Summary:           "Copies ConfigMaps and Secrets to the namespaces that their annotation " + AnnotationTo + " selects, and keeps the copies equal.",
		DisabledByDefault: true,
		Options:           defaults,
		Access:            access,
		Init: func(_ context.Context, c *controllers.Context, o *Options) (controllers.Controller, error) {
			return newController(c, o)
		},
	}
}

func access(o *Options) []controllers.Access {
	needs := []controllers.Access{{Resource: namespaces, Verbs: []string{"list", "watch"}}}
	for _, kind := range kindsOf(o) {
		needs = append(needs, controllers.Access{Resource: kind.resource, Verbs: []string{"get", "list", "watch", "create", "patch", "delete"}})
	}
	return needs
}
