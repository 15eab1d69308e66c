// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package leaderelection

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// startHolder runs such a process and returns what it printed, and its killer.
func startHolder(t *testing.T, dir string) (identity string, locked bool, kill func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), holdIdentityEnv+"="+dir)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscan(line, &identity, &locked); err != nil {
		t.Fatal(err)
	}
	killed := false
	kill = func() {
		if !killed {
			killed = true
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			_ = stdin.Close()
		}
	}
	t.Cleanup(kill)
	return identity, locked, kill
}

// releaseIdentity stands for the death of the process: no other code may close
// the descriptor.
func releaseIdentity(t *testing.T, id *Identity) {
	t.Helper()
	if err := unix.Close(id.file.fd); err != nil {
		t.Fatal(err)
	}
	id.file.fd = -1
}

// closeIdentity closes the descriptor at the end of the test.
func closeIdentity(t *testing.T, id *Identity) {
	t.Cleanup(func() {
		if id.file != nil && id.file.fd >= 0 {
			_ = unix.Close(id.file.fd)
		}
	})
}

func TestIdentityFileReplacedWhileBeingLocked(t *testing.T) {
	path := filepath.Join(t.TempDir(), identityFile)
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	if err := os.WriteFile(path+".new", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	if err := lockIdentity(fd, path); err == nil || !strings.Contains(err.Error(), "replaced") {
		t.Errorf("got %v", err)
	}
}

func TestIdentityFilesystemMustLockLocally(t *testing.T) {
	fd, err := unix.Open("/proc/self/status", unix.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	if err := lockIdentity(fd, "/proc/self/status"); err == nil || !strings.Contains(err.Error(), "not known to lock") {
		t.Errorf("got %v", err)
	}
}

func TestIdentityDescriptorIsNotInherited(t *testing.T) {
	id, _ := openLogged(t, t.TempDir())
	flags, err := unix.FcntlInt(uintptr(id.file.fd), unix.F_GETFD, 0)
	if err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("flags %#x, %v", flags, err)
	}
}

func TestIdentityProvesTheDeathOfItsPredecessor(t *testing.T) {
	dir := t.TempDir()
	first, locked, kill := startHolder(t, dir)
	if !locked {
		t.Fatal("the first process did not get the lock")
	}
	second, lockedToo, killSecond := startHolder(t, dir)
	if lockedToo {
		t.Fatal("a second process got the lock while the first lives")
	}
	if id, log := openLogged(t, dir); id.CanReclaim() || id.isDead(first) || !strings.Contains(log, "locked by a live process") {
		t.Errorf("while the holder lives: reclaim %v, dead %v, log %s", id.CanReclaim(), id.dead, log)
	}
	kill()
	id, log := openLogged(t, dir)
	if !id.CanReclaim() || !id.isDead(first) || id.isDead(second) || id.isDead(id.String()) || log != "" {
		t.Errorf("after its death: reclaim %v, dead %v, log %s", id.CanReclaim(), id.dead, log)
	}
	killSecond()
}

func TestIdentityRemembersReclaims(t *testing.T) {
	dir := t.TempDir()
	a, _ := openLogged(t, dir)
	if err := a.reclaimed(time.Now().Add(-2 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	releaseIdentity(t, a)
	b, _ := openLogged(t, dir)
	if !b.looping || !b.isDead(a.String()) {
		t.Errorf("looping %v, dead %v", b.looping, b.dead)
	}
	releaseIdentity(t, b)
	c, _ := openLogged(t, dir)
	if diff := cmp.Diff([]string{a.String(), b.String()}, c.dead); diff != "" {
		t.Errorf("dead (-want +got):\n%s", diff)
	}
}

func TestIdentityFileThatCannotBeUsed(t *testing.T) {
	tests := []struct {
		name    string
		prepare func(t *testing.T, dir string) string
		log     string
		reclaim bool // by the next process
	}{
		{"no directory", func(_ *testing.T, dir string) string { return filepath.Join(dir, "missing") }, "no such file", false},
		{"a symlink", func(t *testing.T, dir string) string {
			if err := os.Symlink("/dev/null", filepath.Join(dir, identityFile)); err != nil {
				t.Fatal(err)
			}
			return dir
		}, "too many levels", false},
		{"a filesystem without known locks", func(*testing.T, string) string { return "/proc/self" }, "", false},
		{"not ours", func(t *testing.T, dir string) string { return withFile(t, dir, "hello") }, "checksum", true},
		{"cut short", func(t *testing.T, dir string) string {
			block, err := identityState{Identities: []string{oursA}}.encode()
			if err != nil {
				t.Fatal(err)
			}
			return withFile(t, dir, string(block[:90]))
		}, "checksum", true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := test.prepare(t, t.TempDir())
			id, log := openLogged(t, dir)
			if len(id.dead) > 0 || id.CanReclaim() != test.reclaim {
				t.Errorf("dead %v, reclaim %v", id.dead, id.CanReclaim())
			}
			if !strings.Contains(log, test.log) || log == "" {
				t.Errorf("log %q does not say %q", log, test.log)
			}
		})
	}
}

func withFile(t *testing.T, dir, content string) string {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, identityFile), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}
