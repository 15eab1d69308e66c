// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

//go:build race

package leaderelection

const raceEnabled = true
