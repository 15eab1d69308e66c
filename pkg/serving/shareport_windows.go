// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package serving

import (
	"errors"
	"syscall"
)

// sharePort fails: Windows has no way to share a port that is safe.
func sharePort(string, string, syscall.RawConn) error {
	return errors.New("--permit-port-sharing does not work on Windows; leave it out")
}
