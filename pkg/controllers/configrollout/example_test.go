// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package configrollout_test

import (
	"fmt"

	"github.com/incumbent-io/incumbent/pkg/controllers"
	"github.com/incumbent-io/incumbent/pkg/controllers/configrollout"
)

func ExampleDescriptor() {
	registry := controllers.NewRegistry(configrollout.Descriptor())
	registration, _ := registry.Lookup("config-rollout")
	for _, access := range registration.Configure().Access() {
		fmt.Println(access.Resource.Resource, access.Rule().Verbs)
	}
	// Output:
	// configmaps [get list watch]
	// deployments [get list patch watch]
	// statefulsets [get list patch watch]
	// daemonsets [get list patch watch]
}
