// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

// Command out-of-tree is a manager with two controllers of its own, for a resource of its
// own. It is written as it would be in another repository.
package main

import (
	"os"

	"github.com/incumbent-io/incumbent/pkg/controllers"
	"github.com/incumbent-io/incumbent/pkg/manager"

	"example.com/workspace-manager/expiry"
	"example.com/workspace-manager/workspace"
)

const name = "workspace-manager"

// registry returns every controller that this manager can run.
func registry() *controllers.Registry {
	return controllers.NewRegistry(
		workspace.Descriptor(),
		expiry.Descriptor(),
	)
}

func main() { os.Exit(manager.Main(name, registry())) }
