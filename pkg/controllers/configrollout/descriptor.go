// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package configrollout

import (
	"context"

	corev1 "k8s.io/api/core/v1"

	"github.com/incumbent-io/incumbent/pkg/controllers"
)

// Name is the controller's name.
const Name = "config-rollout"

var (
	configMaps = corev1.SchemeGroupVersion.WithResource("configmaps")
	secrets    = corev1.SchemeGroupVersion.WithResource("secrets")
)

// Descriptor registers the config-rollout controller.
func Descriptor() controllers.Registration {
	return controllers.Descriptor[*Options]{
		Name:              Name,
		Summary:           "Rolls workloads annotated " + AnnotationOptIn + "=true when the content of a ConfigMap or Secret that they refer to changes.",
		DisabledByDefault: true,
		Options:           defaults,
		Access:            access,
		Init: func(_ context.Context, c *controllers.Context, o *Options) (controllers.Controller, error) {
			return newController(c, o)
		},
	}
}

// access declares each kind of workloads as optional: where one is not served, or not
// granted, the others are rolled.
func access(o *Options) []controllers.Access {
	needs := []controllers.Access{{Resource: configMaps, Verbs: []string{"get", "list", "watch"}}}
	for _, name := range []string{deployment, statefulSet, daemonSet} {
		needs = append(needs, controllers.Access{Resource: kinds()[name].resource, Verbs: []string{"get", "list", "watch", "patch"}, Optional: true})
	}
	if o.Secrets {
		needs = append(needs,
			controllers.Access{Resource: secrets, Verbs: []string{"get", "list", "watch"}},
			controllers.Access{Resource: secrets, Verbs: []string{"create"}, Namespace: controllers.OwnNamespace})
	}
	return needs
}
