// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

//go:build !linux

package leaderelection

import (
	"strings"
	"testing"
)

func closeIdentity(*testing.T, *Identity) {}

func TestIdentityFilesAreRefusedWithAReason(t *testing.T) {
	if id, log := openLogged(t, t.TempDir()); id.CanReclaim() || !strings.Contains(log, "Linux only") {
		t.Errorf("reclaim %v, log %q", id.CanReclaim(), log)
	}
}
