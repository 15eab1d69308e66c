// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package leaderelection

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// lockingFilesystems are those whose flock is kept by this machine's kernel,
// so that holding the lock proves the death of the process that held it.
var lockingFilesystems = map[int64]string{
	unix.EXT4_SUPER_MAGIC:      "ext4",
	unix.XFS_SUPER_MAGIC:       "xfs",
	unix.BTRFS_SUPER_MAGIC:     "btrfs",
	unix.TMPFS_MAGIC:           "tmpfs",
	unix.OVERLAYFS_SUPER_MAGIC: "overlay",
}

// identityStore is the locked identity file. Its descriptor is a plain number,
// which no finalizer closes, is not inherited (O_CLOEXEC), and stays open until
// the process ends: closing it would announce a death that did not happen.
type identityStore struct {
	fd int

	mu    sync.Mutex
	state identityState
}

func openIdentityStore(dir string) (*identityStore, error) {
	path := filepath.Join(dir, identityFile)
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	if err := lockIdentity(fd, path); err != nil {
		// Nothing was locked that anybody could rely on.
		return nil, errors.Join(err, unix.Close(fd))
	}
	return &identityStore{fd: fd}, nil
}

// lockIdentity locks fd and makes sure that it still is the file at path, on a
// filesystem whose locks mean something.
func lockIdentity(fd int, path string) error {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return fmt.Errorf("statfs: %w", err)
	}
	if _, known := lockingFilesystems[int64(fs.Type)]; !known {
		return fmt.Errorf("filesystem type %#x is not known to lock locally", uint64(fs.Type))
	}
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			return errors.New("locked by a live process")
		}
		return fmt.Errorf("flock: %w", err)
	}
	var locked, named unix.Stat_t
	if err := unix.Fstat(fd, &locked); err != nil {
		return fmt.Errorf("fstat: %w", err)
	}
	if err := unix.Lstat(path, &named); err != nil {
		return fmt.Errorf("stat: %w", err)
	}
	if locked.Dev != named.Dev || locked.Ino != named.Ino {
		return errors.New("the file was replaced while it was being locked")
	}
	return nil
}

func (s *identityStore) read() (identityState, error) {
	block := make([]byte, identityBlock)
	n, err := unix.Pread(s.fd, block, 0)
	if err != nil {
		return identityState{}, os.NewSyscallError("pread", err)
	}
	return decodeIdentityState(block[:n])
}

// write replaces the content in place: a rename would leave the lock on a file
// that no later process opens.
func (s *identityStore) write(state identityState) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.writeLocked(state)
}

func (s *identityStore) writeLocked(state identityState) error {
	block, err := state.encode()
	if err != nil {
		return err
	}
	n, err := unix.Pwrite(s.fd, block, 0)
	if err != nil {
		return os.NewSyscallError("pwrite", err)
	}
	if n != len(block) {
		return fmt.Errorf("pwrite: %d of %d bytes", n, len(block))
	}
	s.state = state
	return nil
}

// update changes the content. Only this process writes the file, so what it
// wrote last is what is there.
func (s *identityStore) update(change func(*identityState)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	state := s.state
	change(&state)
	return s.writeLocked(state)
}
