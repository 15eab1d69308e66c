// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

// Command stubborn is a manager whose only controller does not stop when it is told
// to: the fault that the leader watchdog is for.
package main

import (
	"context"
	"os"

	"k8s.io/klog/v2"

	"github.com/incumbent-io/incumbent/pkg/controllers"
	"github.com/incumbent-io/incumbent/pkg/manager"
)

type stubborn struct{}

// Run never returns.
func (stubborn) Run(ctx context.Context) error {
	klog.FromContext(ctx).Info("The stubborn controller runs, whatever it is told")
	select {}
}

func main() {
	os.Exit(manager.Main("stubborn", controllers.NewRegistry(controllers.Descriptor[controllers.NoOptions]{
		Name:    "stubborn",
		Summary: "Does not stop when it is told to.",
		Init: func(context.Context, *controllers.Context, controllers.NoOptions) (controllers.Controller, error) {
			return stubborn{}, nil
		},
	})))
}
