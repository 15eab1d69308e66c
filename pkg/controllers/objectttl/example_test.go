// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package objectttl_test

import (
	"fmt"

	"github.com/incumbent-io/incumbent/pkg/controllers"
	"github.com/incumbent-io/incumbent/pkg/controllers/objectttl"
)

func ExampleDescriptor() {
	registry := controllers.NewRegistry(objectttl.Descriptor())
	registration, _ := registry.Lookup("object-ttl")
	for _, access := range registration.Configure().Access() {
		fmt.Println(access.Resource.Resource, access.Rule().Verbs)
	}
	// Output: configmaps [delete list watch]
}
