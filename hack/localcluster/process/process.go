// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

//go:build linux

// Package process starts child processes that cannot outlive this one, even when it is killed with SIGKILL.
package process

import (
	"context"
	"os/exec"
	"runtime"
	"syscall"
)

// Spawner starts processes from one operating-system thread. The kernel sends a child's parent-death signal when the
// thread that started it ends, not the process, so that thread must live as long as the process does.
//
// Safe for concurrent use. The zero value is not usable; see NewSpawner.
type Spawner struct {
	requests chan request
	done     <-chan struct{}
}

type request struct {
	cmd  *exec.Cmd
	done chan<- error
}

// NewSpawner starts the spawner's thread, which ends with ctx: cancel ctx only when no child is wanted any more, since
// the end of the thread kills those that are left.
func NewSpawner(ctx context.Context) *Spawner {
	s := &Spawner{requests: make(chan request), done: ctx.Done()}
	go func() {
		// Never unlocked: the thread ends with the goroutine instead of serving others.
		runtime.LockOSThread()
		for {
			select {
			case r := <-s.requests:
				r.done <- r.cmd.Start()
			case <-ctx.Done():
				return
			}
		}
	}()
	return s
}

// Start starts cmd as the leader of a process group of its own (a Ctrl-C at the terminal reaches only this process,
// which stops its children in order) that is killed when this process ends.
func (s *Spawner) Start(cmd *exec.Cmd) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	done := make(chan error, 1)
	select {
	case s.requests <- request{cmd, done}:
		return <-done
	case <-s.done:
		return context.Canceled
	}
}
