// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package cluster

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

const (
	// DefaultDataDir is the data folder, relative to the working directory.
	DefaultDataDir = ".localcluster"
	// KubeconfigName is the administrator's kubeconfig inside the data folder.
	KubeconfigName = "kubeconfig"
)

// ErrInUse says that another `up` holds the data folder.
var ErrInUse = errors.New("the data folder is in use")

// dataDir is the folder that holds everything of one cluster.
type dataDir struct {
	path string
	lock *os.File
}

// state lists what a start removes unless it keeps the cluster's state. Named one by one: the folder may be a wrong
// one, given by mistake.
var state = []string{"audit.log", "etcd", "kubelet", "logs", "pki", "pods", "ports.json"}

// openDataDir creates and locks the folder. The lock ends with the process.
func openDataDir(path string, keep bool) (*dataDir, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(path, 0o755); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(path, "lock"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		holder, _ := os.ReadFile(lock.Name())
		lock.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w: a local cluster (process %s) runs in %s; stop it first or choose another folder with --data",
				ErrInUse, strings.TrimSpace(string(holder)), path)
		}
		return nil, fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	d := &dataDir{path: path, lock: lock}
	if err := d.prepare(keep); err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

func (d *dataDir) prepare(keep bool) error {
	if err := d.lock.Truncate(0); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(d.lock, "%d\n", os.Getpid()); err != nil {
		return err
	}
	// Pods do not outlive the cluster process, so their folders are never kept.
	remove := []string{"pods", "control.sock"}
	if !keep {
		remove = append(remove, state...)
	}
	for _, name := range remove {
		if err := os.RemoveAll(d.file(name)); err != nil {
			return err
		}
	}
	for _, name := range []string{"etcd", "logs", "pki"} {
		if err := os.MkdirAll(d.file(name), 0o700); err != nil {
			return err
		}
	}
	return nil
}

func (d *dataDir) file(elem ...string) string {
	return filepath.Join(append([]string{d.path}, elem...)...)
}

func (d *dataDir) close() { d.lock.Close() }

// withSocket calls f with an address of the control socket that fits into the 107 bytes that the kernel allows,
// however long the data folder's path is.
func withSocket(dir string, f func(addr *net.UnixAddr) error) error {
	folder, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer folder.Close()
	return f(&net.UnixAddr{Net: "unix", Name: fmt.Sprintf("/proc/self/fd/%d/control.sock", folder.Fd())})
}
