// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package options_test

import (
	"fmt"

	"github.com/incumbent-io/incumbent/pkg/options"
)

func ExampleLoad() {
	file := &options.File{Path: "config.yaml", Content: []byte(`
apiVersion: config.incumbent.io/v1alpha1
kind: ManagerConfiguration
controllers: ["*", "-quota"]
drainTimout: 20s
`)}
	_, err := options.Load("fleet-manager", registry(), []string{"--kube-api-burst=0"}, file)
	fmt.Println(err)

	file.Content = []byte("apiVersion: config.incumbent.io/v1alpha1\nkind: ManagerConfiguration\ncontrollers: ['*', -quota]\n")
	loaded, err := options.Load("fleet-manager", registry(), nil, file)
	if err != nil {
		panic(err)
	}
	for _, row := range loaded.Table() {
		fmt.Println(row.Name, row.Enabled, row.Reason)
	}
	// Output:
	// config.yaml:5: drainTimout: unknown field "drainTimout"; did you mean "drainTimeout"? valid: apiVersion, kind, controllers, controllerOptions, standby, leaseGroups, leaderElection, drainTimeout, fencing, clientConnection, serving, tracing, featureGates, logging
	// --kube-api-burst=0 would let no request pass; use at least 1, or clientConnection.qps: 0 for no limit
	// quota false disabled by controllers in config.yaml
	// store true enabled by default
}
