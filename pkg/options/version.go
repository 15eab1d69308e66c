// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package options

import (
	"runtime/debug"
	"strings"

	"k8s.io/component-base/version"
)

// Version returns the version of the running binary: what the linker was told in
// k8s.io/component-base/version, otherwise the version of the main module.
func Version() string {
	if linked := version.Get().GitVersion; !strings.Contains(linked, "$Format") {
		return linked
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
