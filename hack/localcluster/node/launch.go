// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

//go:build linux

package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"

	"github.com/incumbent-io/incumbent/hack/localcluster/containerinit"
	"github.com/incumbent-io/incumbent/hack/localcluster/process"
)

// launcher starts processes inside the roots of Pods, with as much isolation as this machine allows.
type launcher struct {
	spawner    *process.Spawner
	executable string
	isolation  containerinit.Isolation
}

// newLauncher finds out by trying what this machine allows.
func newLauncher(spawner *process.Spawner, executable, dir string) (*launcher, error) {
	options := []containerinit.Isolation{
		{Namespaces: true},
		{}, // root without the right to make namespaces, as in most containers
	}
	if os.Geteuid() != 0 {
		options = []containerinit.Isolation{{Namespaces: true, UserNamespace: true}}
	}
	var errs []error
	for _, isolation := range options {
		l := &launcher{spawner: spawner, executable: executable, isolation: isolation}
		err := l.try(dir)
		if err == nil {
			return l, nil
		}
		errs = append(errs, err)
	}
	return nil, fmt.Errorf("this machine does not let containers run in a root of their own; run as root, or allow "+
		"user namespaces (sysctl kernel.apparmor_restrict_unprivileged_userns=0, kernel.unprivileged_userns_clone=1): %w", errors.Join(errs...))
}

func (l *launcher) try(dir string) error {
	root, err := os.MkdirTemp(dir, "try-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(root)
	if err := makeRoot(root, l.isolation, nil); err != nil {
		return err
	}
	cmd, err := l.start(command{spec: containerinit.Spec{Root: root, UID: os.Getuid(), GID: os.Getgid(), TryOnly: true}, argv: []string{"try"}})
	if err != nil {
		return err
	}
	return cmd.Wait()
}

// command is a program to run in a root.
type command struct {
	spec           containerinit.Spec // Isolation is filled in
	argv, env      []string
	stdin          io.Reader
	stdout, stderr io.Writer
}

// start returns when the program runs, or has been found not to.
func (l *launcher) start(c command) (*exec.Cmd, error) {
	c.spec.Isolation = l.isolation
	encoded, err := json.Marshal(c.spec)
	if err != nil {
		return nil, err
	}
	report, reportWriter, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer report.Close()
	cmd := &exec.Cmd{
		Path: l.executable, Args: append([]string{containerinit.Arg0, string(encoded)}, c.argv...), Env: c.env,
		Stdin: c.stdin, Stdout: c.stdout, Stderr: c.stderr, ExtraFiles: []*os.File{reportWriter},
		SysProcAttr: &syscall.SysProcAttr{Cloneflags: l.isolation.Cloneflags()},
	}
	if l.isolation.UserNamespace {
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}}
	}
	err = l.spawner.Start(cmd)
	reportWriter.Close()
	if err != nil {
		return nil, err
	}
	reason, err := io.ReadAll(report)
	if err == nil && len(reason) > 0 {
		err = errors.New(string(reason))
	}
	if err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return nil, err
	}
	return cmd, nil
}
