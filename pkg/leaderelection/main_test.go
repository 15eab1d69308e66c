// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package leaderelection

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(holdIdentityEnv); dir != "" {
		holdIdentity(dir)
		return
	}
	goleak.VerifyTestMain(m)
}
