// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package manager

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/incumbent-io/incumbent/pkg/options"
)

// patience bounds a wait for a notification. It is shorter than pollEvery, so that
// the poll cannot stand in for it.
const patience = 8 * time.Second

// watched is a watch of a real file and what it reports.
type watched struct {
	t       *testing.T
	path    string
	reports chan string
}

// watch starts a watch of path, whose running content is given, and ends it with the
// test.
func watch(t *testing.T, path, running string) *watched {
	t.Helper()
	w := &watched{t: t, path: path, reports: make(chan string, 100)}
	w.start(func(ctx context.Context) {
		watchConfigFile(ctx, &options.File{Path: path, Content: []byte(running)}, w.changed)
	})
	return w
}

func (w *watched) changed(file *options.File, err error) {
	if err != nil {
		w.reports <- "error: " + err.Error()
		return
	}
	w.reports <- string(file.Content)
}

func (w *watched) start(run func(context.Context)) {
	ctx, stop := context.WithCancel(w.t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		run(ctx)
	}()
	w.t.Cleanup(func() {
		stop()
		<-ended
		close(w.reports)
		for report := range w.reports {
			w.t.Errorf("reported too much: %q", report)
		}
	})
}

// want waits for the next report, which begins as given.
func (w *watched) want(prefix string) {
	w.t.Helper()
	select {
	case got := <-w.reports:
		if !strings.HasPrefix(got, prefix) {
			w.t.Fatalf("got report %q, want %q", got, prefix)
		}
	case <-time.After(patience):
		w.t.Fatalf("no report within %v, want %q", patience, prefix)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	must(t, os.WriteFile(path, []byte(content), 0o600))
}

// rename puts the content in place as editors do.
func rename(t *testing.T, path, content string) {
	t.Helper()
	write(t, path+"~", content)
	must(t, os.Rename(path+"~", path))
}

func TestConfigFileChangesAreReported(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.yaml")
	write(t, path, "one")
	w := watch(t, path, "one")

	write(t, path, "two")
	w.want("two")
	rename(t, path, "three")
	w.want("three")
	write(t, path, "three") // nothing new
	must(t, os.Chmod(path, 0o644))
	write(t, path, "four")
	w.want("four")
}

func TestConfigFileThatChangedBeforeTheWatchIsReported(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.yaml")
	write(t, path, "two")
	watch(t, path, "one").want("two")
}

func TestConfigFileDeletionIsReportedOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.yaml")
	write(t, path, "one")
	w := watch(t, path, "one")

	must(t, os.Remove(path))
	w.want("error: --config=" + path + " was deleted; the running configuration stays")
	write(t, filepath.Join(filepath.Dir(path), "other"), "something else happens there")
	write(t, path, "one") // the same again ends the failure
	w.want("one")
	must(t, os.Remove(path))
	w.want("error: --config=" + path + " was deleted")
	must(t, os.Mkdir(path, 0o700))
	w.want("error: --config=" + path + " is a directory")
	must(t, os.Remove(path))
	w.want("error: --config=" + path + " was deleted")
	write(t, path, strings.Repeat("x", options.MaxFileSize+1))
	w.want("error: --config=" + path + " is larger than 1 MiB")
	write(t, path, "two")
	w.want("two")
}

// TestConfigMapVolumeUpdatesAreReported does what the kubelet does: a directory for
// each version, and a symbolic link to it that is replaced in one step.
func TestConfigMapVolumeUpdatesAreReported(t *testing.T) {
	volume := t.TempDir()
	version := func(number int, content string) {
		t.Helper()
		name := fmt.Sprintf("..version_%d", number)
		must(t, os.Mkdir(filepath.Join(volume, name), 0o755))
		write(t, filepath.Join(volume, name, "config.yaml"), content)
		must(t, os.Symlink(name, filepath.Join(volume, "..data_tmp")))
		must(t, os.Rename(filepath.Join(volume, "..data_tmp"), filepath.Join(volume, "..data")))
		must(t, os.RemoveAll(filepath.Join(volume, fmt.Sprintf("..version_%d", number-1))))
	}
	version(1, "one")
	path := filepath.Join(volume, "config.yaml")
	must(t, os.Symlink(filepath.Join("..data", "config.yaml"), path))
	w := watch(t, path, "one")
	for number, content := range []string{"two", "three", "four"} {
		version(number+2, content)
		w.want(content)
	}
}

func TestConfigFileBehindALinkIsWatched(t *testing.T) {
	target := filepath.Join(t.TempDir(), "target.yaml")
	path := filepath.Join(t.TempDir(), "config.yaml")
	write(t, target, "one")
	must(t, os.Symlink(target, path))
	w := watch(t, path, "zero")
	w.want("one") // the watch has read it, and so follows the link
	write(t, target, "two")
	w.want("two")
}

func TestDirectoryOfTheConfigFileMayComeLater(t *testing.T) {
	directory := filepath.Join(t.TempDir(), "mount")
	path := filepath.Join(directory, "config.yaml")
	running := reading{file: &options.File{Path: path, Content: []byte("one")}}
	w := &watched{t: t, path: path, reports: make(chan string, 100)}
	w.start((&fileWatch{path: path, poll: 20 * time.Millisecond, reported: running, changed: w.changed}).run)
	w.want("error: --config=" + path + " was deleted")
	must(t, os.Mkdir(directory, 0o700))
	rename(t, path, "two")
	w.want("two")
	must(t, os.RemoveAll(directory))
	w.want("error: --config=" + path + " was deleted")
	must(t, os.Mkdir(directory, 0o700))
	rename(t, path, "three")
	w.want("three")
}

// TestHalfWrittenConfigFileIsReadAgain plays readings and disturbances to the watch,
// without a file and without time passing.
func TestHalfWrittenConfigFileIsReadAgain(t *testing.T) {
	content := func(text string) *reading { return &reading{file: &options.File{Content: []byte(text)}} }
	broken := &reading{err: errors.New("no permission")}
	type step struct {
		at        time.Duration
		disturbed bool
		found     *reading
		wantPause time.Duration
		wantDone  bool
	}
	look := func(at time.Duration, found *reading, pause time.Duration) step {
		return step{at: at, found: found, wantPause: pause}
	}
	done := func(at time.Duration, found *reading) step { return step{at: at, found: found, wantDone: true} }
	event := func(at, pause time.Duration) step { return step{at: at, disturbed: true, wantPause: pause} }
	const ms = time.Millisecond
	for name, tc := range map[string]struct {
		steps []step
		want  []string
	}{
		"nothing new":           {steps: []step{event(0, 100*ms), done(100*ms, content("running"))}},
		"two reads agree":       {steps: []step{event(0, 100*ms), look(100*ms, content("a"), 100*ms), done(200*ms, content("a"))}, want: []string{"a"}},
		"half, then whole":      {steps: []step{look(0, content("a"), 100*ms), look(100*ms, content("ab"), 100*ms), done(200*ms, content("ab"))}, want: []string{"ab"}},
		"back before it counts": {steps: []step{look(0, content(""), 100*ms), done(100*ms, content("running"))}},
		"gone for a moment":     {steps: []step{look(0, broken, 100*ms), look(100*ms, content("a"), 100*ms), done(200*ms, content("a"))}, want: []string{"a"}},
		"the same failure once": {steps: []step{look(0, broken, 100*ms), done(100*ms, broken), done(200*ms, broken)}, want: []string{"no permission"}},
		"never at rest": {
			steps: []step{event(0, 100*ms), event(500*ms, 100*ms), event(950*ms, 50*ms), done(1000*ms, content("a")), look(1100*ms, content("b"), 100*ms), done(1200*ms, content("b"))},
			want:  []string{"a", "b"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			w := &fileWatch{reported: *content("running"), changed: func(file *options.File, err error) {
				if err != nil {
					got = append(got, err.Error())
					return
				}
				got = append(got, string(file.Content))
			}}
			start := time.Unix(1000, 0)
			for i, step := range tc.steps {
				if step.disturbed {
					if pause := w.disturbed(start.Add(step.at)); pause != step.wantPause {
						t.Errorf("step %d: got pause %v, want %v", i, pause, step.wantPause)
					}
					continue
				}
				pause, again := w.settled(*step.found, start.Add(step.at))
				if pause != step.wantPause || again == step.wantDone {
					t.Errorf("step %d: got pause %v, again %t; want %v, %t", i, pause, again, step.wantPause, !step.wantDone)
				}
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("reports (-want +got):\n%s", diff)
			}
		})
	}
}
