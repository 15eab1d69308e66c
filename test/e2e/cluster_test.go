// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

// Package e2e runs the shipped binary on a real control plane, as its users do: it
// starts a local cluster, applies the manifests, and does to it what happens to
// clusters. `go test` in this folder builds everything that it needs.
package e2e

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"github.com/incumbent-io/incumbent/test/cluster"
)

// shared is the local cluster of all tests of this package.
var shared *cluster.Cluster

func TestMain(m *testing.M) {
	config := cluster.Config{Programs: []string{"./test/e2e/stubborn", "./test/e2e/faulty"}}
	os.Exit(cluster.Main(config, func(c *cluster.Cluster) int {
		shared = c
		code := m.Run()
		if code == 0 && flag.Lookup("test.run").Value.String() == "" {
			// What no single test sees: over a run of all tests, the manager did what its
			// RBAC rules allow and used all of them.
			if err := checkAudit(c); err != nil {
				fmt.Fprintln(os.Stderr, "FAIL: audit log:", err)
				return 1
			}
		}
		return code
	}))
}
