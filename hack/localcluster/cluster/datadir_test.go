// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package cluster

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestDataDirServesOneClusterAtATime(t *testing.T) {
	path := t.TempDir()
	first, err := openDataDir(path, false)
	if err != nil {
		t.Fatal(err)
	}
	if second, err := openDataDir(path, false); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "choose another folder with --data") {
		t.Errorf("a second cluster: got %v, %v, want ErrInUse", second, err)
	}
	first.close()
	third, err := openDataDir(path, false)
	if err != nil {
		t.Fatalf("after the first has ended: %v", err)
	}
	third.close()
}

func TestDataDirKeepsOnlyWhatItShould(t *testing.T) {
	for _, test := range []struct {
		keep bool
		left []string
	}{
		{false, []string{"kubeconfig", "notes.txt"}},
		{true, []string{"audit.log", "etcd/member", "kubeconfig", "notes.txt", "ports.json"}},
	} {
		path := t.TempDir()
		for _, name := range []string{"audit.log", "etcd/member", "kubeconfig", "notes.txt", "pods/u-1/file", "ports.json"} {
			file := filepath.Join(path, name)
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte("{}"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		d, err := openDataDir(path, test.keep)
		if err != nil {
			t.Fatal(err)
		}
		d.close()
		var left []string
		err = filepath.WalkDir(path, func(file string, e os.DirEntry, err error) error {
			if name, _ := filepath.Rel(path, file); err == nil && !e.IsDir() && name != "lock" {
				left = append(left, name)
			}
			return err
		})
		if err != nil || !slices.Equal(left, test.left) {
			t.Errorf("keep %v: %q is left (%v), want %q", test.keep, left, err, test.left)
		}
	}
}

func TestControlSocketFitsAnyPath(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("long/", 40))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	var listener *net.UnixListener
	err := withSocket(dir, func(addr *net.UnixAddr) (err error) {
		listener, err = net.ListenUnix("unix", addr)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	listener.SetUnlinkOnClose(false)
	defer listener.Close()
	if _, err := os.Stat(filepath.Join(dir, "control.sock")); err != nil {
		t.Error(err)
	}
	err = withSocket(dir, func(addr *net.UnixAddr) error {
		conn, err := net.DialUnix("unix", nil, addr)
		if err == nil {
			conn.Close()
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestCallWithoutClusterSaysWhatToDo(t *testing.T) {
	for name, dir := range map[string]string{"no folder": filepath.Join(t.TempDir(), "none"), "no cluster": t.TempDir()} {
		if _, err := Call(t.Context(), dir, "GET", "/status"); err == nil || !strings.Contains(err.Error(), "no local cluster runs in "+dir) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestPortsAreKept(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ports.json")
	first, err := loadPorts(file)
	if err != nil {
		t.Fatal(err)
	}
	if second, err := loadPorts(file); err != nil || second != first {
		t.Errorf("got %+v (%v) and then %+v", first, err, second)
	}
}

func TestValidateReportsAllMistakes(t *testing.T) {
	err := Config{Nodes: -1, Images: []string{"nonsense"}}.Validate()
	if err == nil || !strings.Contains(err.Error(), "--nodes: -1 is not between 1 and 100") || !strings.Contains(err.Error(), `--image: "nonsense"`) {
		t.Errorf("got %v", err)
	}
}
