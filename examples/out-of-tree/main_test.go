// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package main

import (
	"bytes"
	"os"
	"testing"

	"github.com/incumbent-io/incumbent/pkg/manager"
)

// TestRBACIsCurrent compares the deployed RBAC with what the controllers declare.
func TestRBACIsCurrent(t *testing.T) {
	want, err := os.ReadFile("manifests/rbac.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	command := manager.NewCommand(name, registry())
	command.SetOut(&got)
	command.SetArgs([]string{"rbac", "--config=manifests/config.yaml", "--namespace=workspace-system"})
	if err := command.Execute(); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("manifests/rbac.yaml is not what the controllers need; write this there:\n%s", got.String())
	}
}
