// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

//go:build linux

package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestWriteAtomically(t *testing.T) {
	dir := t.TempDir()
	for i, step := range []map[string]string{
		{"a": "1", "b": "2"},
		{"a": "one", "sub/dir/c": "3"},
		{},
		{"a": "again"},
	} {
		files := map[string]file{}
		for name, text := range step {
			files[name] = file{[]byte(text), 0o640}
		}
		before, _ := os.Readlink(filepath.Join(dir, dataLink))
		if err := writeAtomically(dir, files, -1); err != nil {
			t.Fatal(err)
		}
		if after, err := os.Readlink(filepath.Join(dir, dataLink)); err != nil || after == before {
			t.Errorf("step %d: ..data led to %q and now to %q (%v)", i, before, after, err)
		}
		for name, want := range step {
			path := filepath.Join(dir, name)
			if got, err := os.ReadFile(path); err != nil || string(got) != want {
				t.Errorf("step %d: %s holds %q (%v), want %q", i, name, got, err, want)
			}
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o640 {
				t.Errorf("step %d: %s has mode %v (%v)", i, name, info.Mode(), err)
			}
		}
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		versions := 0
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), "..version-") {
				versions++
				continue
			}
			_, isFile := step[e.Name()]
			if e.Name() != dataLink && e.Name() != "sub" && !isFile {
				t.Errorf("step %d: %s is left", i, e.Name())
			}
			if e.Name() == "sub" && step["sub/dir/c"] == "" {
				t.Errorf("step %d: sub is left", i)
			}
		}
		if versions != 1 {
			t.Errorf("step %d: %d versions are there, want 1", i, versions)
		}
	}
}
