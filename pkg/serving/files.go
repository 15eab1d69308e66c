// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package serving

import (
	"bytes"
	"context"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/klog/v2"
)

// rereadPeriod is the least time between two readings of the same files.
const rereadPeriod = time.Second

// files are files and what they mean. Nobody watches them: who needs the meaning has
// them read again, so a server that nobody asks does nothing. What replaces them, be it a
// link on the way to them, makes no difference.
type files[T any] struct {
	paths   []string
	meaning func(contents [][]byte) (T, error)

	current atomic.Pointer[T] // Invariant: not nil

	reading   sync.Mutex // held by who reads, never waited for
	read      time.Time
	contents  [][]byte
	complaint string // why the files of the last reading mean nothing
}

// newFiles reads paths, and fails if they mean nothing.
func newFiles[T any](meaning func(contents [][]byte) (T, error), paths ...string) (*files[T], error) {
	f := &files[T]{paths: paths, meaning: meaning}
	if err := f.load(); err != nil {
		return nil, err
	}
	f.read = time.Now()
	return f, nil
}

// get returns what the files mean, or have meant when they last meant something. It may
// be called by many at a time.
func (f *files[T]) get(ctx context.Context) T {
	if f.reading.TryLock() {
		f.refresh(klog.FromContext(ctx))
		f.reading.Unlock()
	}
	return *f.current.Load()
}

// refresh reads the files if it is time. It tells of each mistake once.
func (f *files[T]) refresh(logger klog.Logger) {
	if time.Since(f.read) < rereadPeriod {
		return
	}
	complaint := ""
	if err := f.load(); err != nil {
		complaint = err.Error()
		if complaint != f.complaint {
			logger.Error(err, "Files cannot be used, so their last content stays in use", "files", f.paths)
		}
	} else if f.complaint != "" {
		logger.Info("Files can be used again", "files", f.paths)
	}
	f.read, f.complaint = time.Now(), complaint
}

func (f *files[T]) load() error {
	contents := make([][]byte, len(f.paths))
	for i, path := range f.paths {
		var err error
		if contents[i], err = os.ReadFile(path); err != nil {
			return err
		}
	}
	if f.contents != nil && slices.EqualFunc(contents, f.contents, bytes.Equal) {
		return nil
	}
	current, err := f.meaning(contents)
	if err != nil {
		return err
	}
	f.contents = contents
	f.current.Store(&current)
	return nil
}
