// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package leaderlabel_test

import (
	"fmt"

	"github.com/incumbent-io/incumbent/pkg/controllers"
	"github.com/incumbent-io/incumbent/pkg/controllers/leaderlabel"
)

func ExampleDescriptor() {
	registry := controllers.NewRegistry(leaderlabel.Descriptor())
	registration, _ := registry.Lookup("leader-label")
	for _, access := range registration.Configure().Access() {
		fmt.Println(access.Namespace, access.Resource.Resource, access.Rule().Verbs)
	}
	// Output: {own} pods [list patch watch]
}
