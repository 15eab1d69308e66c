// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package configpropagation_test

import (
	"fmt"

	"github.com/incumbent-io/incumbent/pkg/controllers"
	"github.com/incumbent-io/incumbent/pkg/controllers/configpropagation"
)

func ExampleDescriptor() {
	registry := controllers.NewRegistry(configpropagation.Descriptor())
	registration, _ := registry.Lookup("config-propagation")
	for _, access := range registration.Configure().Access() {
		fmt.Println(access.Resource.Resource, access.Rule().Verbs)
	}
	// Output:
	// namespaces [list watch]
	// configmaps [create delete get list patch watch]
}
