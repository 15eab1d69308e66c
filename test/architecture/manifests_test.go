// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package architecture

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestManifestsGrantWhatTheControllersDeclare compares the RBAC of manifests/base with
// what the manager prints for the configuration there.
func TestManifestsGrantWhatTheControllersDeclare(t *testing.T) {
	content, err := os.ReadFile(filepath.Join(root(t), "manifests/base/rbac.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "go", "run", "./cmd/manager", "rbac", "--config=manifests/base/config.yaml")
	cmd.Dir = root(t)
	cmd.Stderr = os.Stderr
	want, err := cmd.Output()
	if err != nil {
		t.Fatalf("manager rbac: %v", err)
	}
	var got strings.Builder
	for line := range strings.Lines(string(content)) {
		if got.Len() > 0 || !strings.HasPrefix(line, "#") {
			got.WriteString(line)
		}
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("manifests/base/rbac.yaml is not what `manager rbac` prints; run `make manifests` (-want +got):\n%s", diff)
	}
}
