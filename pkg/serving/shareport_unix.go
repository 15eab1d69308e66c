// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

//go:build unix

package serving

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// sharePort lets further processes bind the port of a socket.
func sharePort(_, _ string, conn syscall.RawConn) error {
	var err error
	failed := conn.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	})
	return errors.Join(failed, err)
}
