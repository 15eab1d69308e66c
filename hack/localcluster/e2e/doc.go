// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

// Package e2e tests the built program on a real control plane. It is a package apart from the program, so that its tests are
// compiled, vetted and linked without all of Kubernetes.
package e2e
