// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package manager

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
	"k8s.io/klog/v2"

	"github.com/incumbent-io/incumbent/pkg/options"
)

const (
	// settleAfter is how long the file must be left alone before it is read, and
	// between two reads that must agree: a writer may be half-way.
	settleAfter = 100 * time.Millisecond
	// settleAtMost bounds the wait for a file that never rests.
	settleAtMost = time.Second
	// pollEvery is the safety net: a notification may get lost, and a directory that
	// is not there cannot be watched.
	pollEvery = 10 * time.Second
)

// watchConfigFile calls changed for every new content of the configuration file,
// until ctx ends, and for each new reason why there is none. running is the content
// that is in use. The calls come one after another, on this goroutine.
//
// The directory is watched, not the file: editors rename over a file, and a
// Kubernetes volume swaps a symbolic link beside it.
//
//	rest ──something happened, or it is time──► settling ──two reads agree──► rest
//	                                             │    ▲                     (changed?)
//	                                             └────┘ they do not
func watchConfigFile(ctx context.Context, running *options.File, changed func(*options.File, error)) {
	w := &fileWatch{path: running.Path, poll: pollEvery, reported: reading{file: running}, changed: changed}
	w.run(ctx)
}

// reading is what one look at the file found.
type reading struct {
	file *options.File
	err  error
}

func read(path string) reading {
	file, err := options.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("--config=%s was deleted; the running configuration stays: %w", path, fs.ErrNotExist)
	}
	return reading{file: file, err: err}
}

// same tells that two readings are the same content or the same failure.
func (r reading) same(other reading) bool {
	if r.err != nil || other.err != nil {
		return r.err != nil && other.err != nil && r.err.Error() == other.err.Error()
	}
	return bytes.Equal(r.file.Content, other.file.Content)
}

// fileWatch is one watch of a file. Only run's goroutine uses it.
type fileWatch struct {
	path     string
	poll     time.Duration
	changed  func(*options.File, error)
	notifier *fsnotify.Watcher // nil if the system gives none: polling alone is left

	// Invariant: reported is what changed was last told, or what is running.
	reported reading
	// last is the reading before, while settling.
	last *reading
	// since is when the settling began; zero at rest.
	since time.Time
}

func (w *fileWatch) run(ctx context.Context) {
	logger := klog.FromContext(ctx).WithValues("file", w.path)
	var events <-chan fsnotify.Event
	var failures <-chan error
	var err error
	if w.notifier, err = fsnotify.NewWatcher(); err != nil {
		logger.Error(err, "The configuration file is only polled: no notifications of changes", "period", w.poll)
	} else {
		defer w.notifier.Close()
		events, failures = w.notifier.Events, w.notifier.Errors
	}
	w.follow()
	poll := time.NewTicker(w.poll)
	defer poll.Stop()
	settle := time.NewTimer(0) // it may have changed since it was read
	defer settle.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-events:
			settle.Reset(w.disturbed(time.Now()))
		case <-poll.C:
			if w.since.IsZero() { // otherwise a look is due anyway
				settle.Reset(w.disturbed(time.Now()))
			}
		case err := <-failures: // an overflow, for instance: something was missed
			logger.V(2).Info("Notifications of the configuration file were lost", "err", err)
			settle.Reset(w.disturbed(time.Now()))
		case <-settle.C:
			w.follow()
			found := read(w.path)
			if pause, again := w.settled(found, time.Now()); again {
				settle.Reset(pause)
			}
		}
	}
}

// follow watches the directory of the file, and if it is a symbolic link that of its
// target. To watch one again is cheap, and needed once it was removed. What cannot be
// watched, for instance a directory that is not there, is left to the poll.
func (w *fileWatch) follow() {
	if w.notifier == nil {
		return
	}
	_ = w.notifier.Add(filepath.Dir(w.path))
	if target, err := filepath.EvalSymlinks(w.path); err == nil {
		_ = w.notifier.Add(filepath.Dir(target))
	}
}

// disturbed returns how long to wait for the next look, now that something happened.
func (w *fileWatch) disturbed(now time.Time) time.Duration {
	if w.since.IsZero() {
		w.since = now
	}
	return max(0, min(settleAfter, w.since.Add(settleAtMost).Sub(now)))
}

// settled takes a reading. It reports it if it is new and final, or returns how long
// to wait for the next.
func (w *fileWatch) settled(found reading, now time.Time) (pause time.Duration, again bool) {
	final := w.last != nil && found.same(*w.last) || !w.since.IsZero() && now.Sub(w.since) >= settleAtMost
	if !final && !found.same(w.reported) {
		w.last = &found
		return w.disturbed(now), true
	}
	w.last, w.since = nil, time.Time{}
	if !found.same(w.reported) {
		w.reported = found
		w.changed(found.file, found.err)
	}
	return 0, false
}
