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
	os.Exit(run(m))
}

func run(m *testing.M) (code int) {
	c, err := cluster.Start(cluster.Config{Programs: []string{"./test/e2e/stubborn", "./test/e2e/faulty"}})
	if err != nil {
		fmt.Fprintln(os.Stderr, "the local cluster does not start:", err)
		return 1
	}
	shared = c
	code = m.Run()
	if code == 0 && flag.Lookup("test.run").Value.String() == "" {
		// What no single test sees: over a run of all tests, the manager did what its
		// RBAC rules allow and used all of them.
		if err := checkAudit(c); err != nil {
			fmt.Fprintln(os.Stderr, "FAIL: audit log:", err)
			code = 1
		}
	}
	if err := c.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, "FAIL: the local cluster does not stop cleanly:", err)
		code = 1
	}
	return code
}
