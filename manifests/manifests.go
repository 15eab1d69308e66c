// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

// Package manifests holds the files of manifests/base, for pkg/scaffold, which gives a
// new manager its own copy of them.
package manifests

import "embed"

// Base is the folder base.
//
//go:embed base
var Base embed.FS
