// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package preflight_test

import (
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
