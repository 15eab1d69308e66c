// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

//go:build linux

package node

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// file is one file of a volume.
type file struct {
	data []byte
	mode fs.FileMode
}

const dataLink = "..data"

// writeAtomically makes files (by path relative to dir) the visible content of dir, all at once, in the layout of the
// kubelet: the files are in a folder of their own, the symbolic link ..data leads to it, and each visible name leads
// through ..data. The switch is one rename of ..data; programs watch that. group, if not negative, owns the files.
func writeAtomically(dir string, files map[string]file, group int) error {
	old, err := os.Readlink(filepath.Join(dir, dataLink))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	version, err := os.MkdirTemp(dir, "..version-")
	if err != nil {
		return err
	}
	if err := writeFiles(version, files, group); err != nil {
		os.RemoveAll(version)
		return err
	}
	link := filepath.Join(dir, "..data-new")
	_ = os.Remove(link)
	if err := os.Symlink(filepath.Base(version), link); err != nil {
		return err
	}
	if err := os.Rename(link, filepath.Join(dir, dataLink)); err != nil {
		return err
	}
	if err := updateVisible(dir, files); err != nil {
		return err
	}
	if old != "" {
		return os.RemoveAll(filepath.Join(dir, old))
	}
	return nil
}

func writeFiles(dir string, files map[string]file, group int) error {
	if err := own(dir, 0o755, group); err != nil {
		return err
	}
	for name, f := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, f.data, f.mode); err != nil {
			return err
		}
		mode := f.mode
		if group >= 0 {
			mode |= 0o440
		}
		if err := own(path, mode, group); err != nil {
			return err
		}
	}
	return nil
}

// own sets the mode, free of the umask, and the group.
func own(path string, mode fs.FileMode, group int) error {
	if group >= 0 {
		if err := os.Chown(path, -1, group); err != nil {
			return err
		}
	}
	return os.Chmod(path, mode)
}

// updateVisible makes a link for the first element of each path and removes those without a file.
func updateVisible(dir string, files map[string]file) error {
	visible := map[string]bool{}
	for name := range files {
		first, _, _ := strings.Cut(name, "/")
		visible[first] = true
	}
	for name := range visible {
		err := os.Symlink(filepath.Join(dataLink, name), filepath.Join(dir, name))
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !visible[e.Name()] && !strings.HasPrefix(e.Name(), "..") {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}
