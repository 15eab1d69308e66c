// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

//go:build linux

package node

import (
	"context"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestLogQueries(t *testing.T) {
	log, err := newLogFile(filepath.Join(t.TempDir(), "pod", "0.log"))
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	out, errs := log.stream("stdout"), log.stream("stderr")
	long := strings.Repeat("x", maxLogLine+10)
	for _, text := range []string{"one\ntw", "o\n\n", long + "\n"} {
		if _, err := io.WriteString(out, text); err != nil {
			t.Fatal(err)
		}
	}
	io.WriteString(errs, "oops\n")
	io.WriteString(out, "no end")
	out.flush()
	errs.flush()
	log.close()

	all := "one\ntwo\n\n" + long + "\noops\nno end\n"
	for _, test := range []struct {
		name string
		q    logQuery
		want string
	}{
		{"all", logQuery{tailLines: -1, limitBytes: -1}, all},
		{"following what has ended", logQuery{follow: true, tailLines: -1, limitBytes: -1}, all},
		{"tail", logQuery{tailLines: 2, limitBytes: -1}, "oops\nno end\n"},
		{"tail of nothing", logQuery{tailLines: 0, limitBytes: -1}, ""},
		{"tail of more than there is", logQuery{tailLines: 99, limitBytes: -1}, all},
		{"limit", logQuery{tailLines: -1, limitBytes: 6}, "one\ntw"},
		{"limit of nothing", logQuery{tailLines: -1, limitBytes: 0}, ""},
		{"stderr", logQuery{tailLines: -1, limitBytes: -1, stream: "Stderr"}, "oops\n"},
		{"tail of stdout", logQuery{tailLines: 1, limitBytes: -1, stream: "Stdout"}, "no end\n"},
		{"since before", logQuery{tailLines: -1, limitBytes: -1, since: begin.Add(-time.Second)}, all},
		{"since after", logQuery{tailLines: -1, limitBytes: -1, since: begin.Add(time.Hour)}, ""},
	} {
		var b strings.Builder
		if err := log.copyTo(t.Context(), &b, test.q); err != nil {
			t.Fatal(err)
		}
		if b.String() != test.want {
			t.Errorf("%s: got %.60q (%d bytes), want %.60q (%d bytes)", test.name, b.String(), b.Len(), test.want, len(test.want))
		}
	}
	var b strings.Builder
	if err := log.copyTo(t.Context(), &b, logQuery{tailLines: 1, limitBytes: -1, timestamps: true}); err != nil {
		t.Fatal(err)
	}
	at, text, _ := strings.Cut(b.String(), " ")
	if _, err := time.Parse(time.RFC3339Nano, at); err != nil || text != "no end\n" {
		t.Errorf("with timestamps: got %q", b.String())
	}
}

func TestFollowedLogEndsWithItsProcessOrItsReader(t *testing.T) {
	for _, test := range []struct {
		name string
		end  func(l *logFile, cancel context.CancelFunc)
	}{
		{"process", func(l *logFile, _ context.CancelFunc) { l.close() }},
		{"reader", func(_ *logFile, cancel context.CancelFunc) { cancel() }},
	} {
		t.Run(test.name, func(t *testing.T) {
			log, err := newLogFile(filepath.Join(t.TempDir(), "0.log"))
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			reader, writer := io.Pipe()
			done := make(chan error, 1)
			go func() { done <- log.copyTo(ctx, writer, logQuery{follow: true, tailLines: -1, limitBytes: -1}) }()
			out := log.stream("stdout")
			for _, line := range []string{"first\n", "second\n"} {
				if _, err := io.WriteString(out, line); err != nil {
					t.Fatal(err)
				}
				got := make([]byte, len(line))
				if _, err := io.ReadFull(reader, got); err != nil || string(got) != line {
					t.Fatalf("got %q, %v, want %q", got, err, line)
				}
			}
			test.end(log, cancel)
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}
