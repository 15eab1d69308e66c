// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

// Command manager hosts the controllers that ship with Incumbent.
package main

import (
	"os"

	"github.com/incumbent-io/incumbent/pkg/controllers"
	"github.com/incumbent-io/incumbent/pkg/controllers/configpropagation"
	"github.com/incumbent-io/incumbent/pkg/controllers/configrollout"
	"github.com/incumbent-io/incumbent/pkg/controllers/leaderlabel"
	"github.com/incumbent-io/incumbent/pkg/controllers/objectttl"
	"github.com/incumbent-io/incumbent/pkg/manager"
	"github.com/incumbent-io/incumbent/pkg/scaffold"
)

func main() {
	os.Exit(manager.Main("incumbent", controllers.NewRegistry(
		configpropagation.Descriptor(),
		configrollout.Descriptor(),
		leaderlabel.Descriptor(),
		objectttl.Descriptor(),
	), scaffold.NewCommand()))
}
