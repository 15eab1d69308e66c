// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

//go:build linux

// Package containerinit is the short life of a container's process between fork and exec: it enters the container's
// root and identity, then becomes the container's program, keeping its process id.
//
// A program that links this package becomes a launcher for itself: started with Arg0 as its argv[0], it never reaches
// main. The work is done in init so that a program as large as localcluster does not first initialise all of
// Kubernetes for every container and exec probe (Go initialises a package as soon as its imports are, in the order of
// import paths, so this one comes before k8s.io).
//
// The caller starts the process with the namespaces of Spec.Isolation, the container's environment and arguments, and
// the write end of a pipe as file descriptor 3. When exec succeeds the pipe closes without a byte; otherwise it carries the reason.
package containerinit

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
	"unsafe"
)

// Arg0 is the argv[0] that makes a process a container launcher. Its arguments are the Spec as JSON, then the
// program and the arguments of the container.
const Arg0 = "localcluster-container"

// Isolation says what this machine lets us separate a container with.
type Isolation struct {
	// Namespaces: the process is in PID, mount and UTS namespaces of its own (they end with it).
	Namespaces bool
	// UserNamespace: the caller is not root, so root of a new user namespace stands for it.
	UserNamespace bool
}

// Cloneflags returns the namespaces that the process must be started in.
func (i Isolation) Cloneflags() uintptr {
	var flags uintptr
	if i.Namespaces {
		flags |= syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWUTS
	}
	if i.UserNamespace {
		flags |= syscall.CLONE_NEWUSER
	}
	return flags
}

// Spec describes the container's process.
type Spec struct {
	Isolation  Isolation
	Root       string // the folder that becomes /
	Hostname   string
	WorkingDir string // inside the root; default /
	UID, GID   int    // ignored in a user namespace, where only one identity exists
	Groups     []int
	NoNewPrivs bool

	// TryOnly ends the process successfully where it would become the program, to learn whether it can get there.
	TryOnly bool
}

const reportFD = 3

func init() {
	if len(os.Args) == 0 || os.Args[0] != Arg0 {
		return
	}
	// Credentials, parent-death signal and exec concern the thread.
	runtime.LockOSThread()
	syscall.CloseOnExec(reportFD)
	err := enter()
	fmt.Fprint(os.NewFile(reportFD, "report"), err)
	os.Exit(128)
}

// enter returns only on failure.
func enter() error {
	if len(os.Args) < 3 {
		return fmt.Errorf("%s is started by the process node only", Arg0)
	}
	var spec Spec
	if err := json.Unmarshal([]byte(os.Args[1]), &spec); err != nil {
		return err
	}
	if spec.Isolation.Namespaces {
		if err := mounts(spec.Root); err != nil {
			return err
		}
		if err := syscall.Sethostname([]byte(spec.Hostname)); err != nil {
			return fmt.Errorf("hostname: %w", err)
		}
	}
	if err := syscall.Chroot(spec.Root); err != nil {
		return fmt.Errorf("chroot: %w", err)
	}
	dir := spec.WorkingDir
	if dir == "" {
		dir = "/"
	}
	if err := syscall.Chdir(dir); err != nil {
		return fmt.Errorf("working directory %s: %w", dir, err)
	}
	if !spec.Isolation.UserNamespace {
		if err := syscall.Setgroups(spec.Groups); err != nil {
			return fmt.Errorf("groups: %w", err)
		}
		if err := syscall.Setgid(spec.GID); err != nil {
			return fmt.Errorf("group: %w", err)
		}
		if err := syscall.Setuid(spec.UID); err != nil {
			return fmt.Errorf("user: %w", err)
		}
	}
	// A change of credentials clears the signal that the caller had set, so it is set (again) here. The pipe tells
	// whether the caller died in between: in a PID namespace getppid would not.
	if _, _, e := syscall.RawSyscall(syscall.SYS_PRCTL, syscall.PR_SET_PDEATHSIG, uintptr(syscall.SIGKILL), 0); e != 0 {
		return fmt.Errorf("parent-death signal: %w", e)
	}
	if orphaned() {
		return fmt.Errorf("the node is gone")
	}
	if spec.NoNewPrivs {
		const prSetNoNewPrivs = 38
		if _, _, e := syscall.RawSyscall6(syscall.SYS_PRCTL, prSetNoNewPrivs, 1, 0, 0, 0, 0); e != 0 {
			return fmt.Errorf("no_new_privs: %w", e)
		}
	}
	if spec.TryOnly {
		os.Exit(0)
	}
	argv := os.Args[2:]
	program, err := lookPath(argv[0])
	if err != nil {
		return err
	}
	if err := syscall.Exec(program, argv, os.Environ()); err != nil {
		return fmt.Errorf("exec %q: %w", argv[0], err)
	}
	return nil
}

// mounts lays /proc and the devices that programs expect into the root, seen by this process only.
func mounts(root string) error {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("private mounts: %w", err)
	}
	proc := root + "/proc"
	if err := syscall.Mount("proc", proc, "proc", syscall.MS_NOSUID|syscall.MS_NODEV|syscall.MS_NOEXEC, ""); err != nil {
		// Where the host's /proc is partly covered (in a container) a new one is refused; the host's serves as well.
		if err := syscall.Mount("/proc", proc, "", syscall.MS_BIND|syscall.MS_REC, ""); err != nil {
			return fmt.Errorf("/proc: %w", err)
		}
	}
	for _, device := range Devices {
		if err := syscall.Mount(device, root+device, "", syscall.MS_BIND, ""); err != nil {
			return fmt.Errorf("%s: %w", device, err)
		}
	}
	return nil
}

// Devices are bound over the empty files of the same names, which the caller has made in the root.
var Devices = []string{"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"}

// orphaned tells whether the reading end of the report pipe is closed.
func orphaned() bool {
	type pollFd struct {
		fd      int32
		events  int16
		revents int16
	}
	const pollErr = 0x8
	p := pollFd{fd: reportFD}
	var zero syscall.Timespec
	n, _, _ := syscall.Syscall6(syscall.SYS_PPOLL, uintptr(unsafe.Pointer(&p)), 1, uintptr(unsafe.Pointer(&zero)), 0, 0, 0)
	return n == 1 && p.revents&pollErr != 0
}

func lookPath(name string) (string, error) {
	if strings.Contains(name, "/") {
		if _, err := os.Stat(name); err != nil {
			return "", fmt.Errorf("exec: %q: stat %s: no such file or directory", name, name)
		}
		return name, nil
	}
	for _, dir := range strings.Split(os.Getenv("PATH"), ":") {
		path := dir + "/" + name
		if info, err := os.Stat(path); err == nil && !info.IsDir() && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", fmt.Errorf("exec: %q: executable file not found in $PATH", name)
}
