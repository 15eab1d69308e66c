// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

//go:build linux

package node

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// logFile holds what one process of a container wrote, in the format of the container runtimes: a line
// "<time> <stream> <F or P> <text>" each; P marks a part of a line that is longer than maxLogLine.
type logFile struct {
	path string

	mu      sync.Mutex
	file    *os.File      // nil once closed
	changed chan struct{} // closed, and replaced, whenever the file grows; closed for good with it
}

const maxLogLine = 16 << 10

func newLogFile(path string) (*logFile, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return nil, err
	}
	return &logFile{path: path, file: f, changed: make(chan struct{})}, nil
}

func (l *logFile) append(entry []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return os.ErrClosed
	}
	_, err := l.file.Write(entry)
	close(l.changed)
	l.changed = make(chan struct{})
	return err
}

// close tells readers that no more will come.
func (l *logFile) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file != nil {
		l.file.Close()
		l.file = nil
		close(l.changed)
	}
}

// grown returns a channel that is closed when there is more to read, and whether there can be more.
func (l *logFile) grown() (<-chan struct{}, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed, l.file != nil
}

// stream is the writer for one of the process's streams. Used by one goroutine.
type stream struct {
	log  *logFile
	name string
	rest []byte
}

func (l *logFile) stream(name string) *stream { return &stream{log: l, name: name} }

func (s *stream) Write(p []byte) (int, error) {
	s.rest = append(s.rest, p...)
	var entries bytes.Buffer
	rest := s.rest
	for {
		end := bytes.IndexByte(rest, '\n')
		switch {
		case end >= 0 && end <= maxLogLine:
			s.entry(&entries, "F", rest[:end])
			rest = rest[end+1:]
			continue
		case len(rest) > maxLogLine:
			s.entry(&entries, "P", rest[:maxLogLine])
			rest = rest[maxLogLine:]
			continue
		}
		break
	}
	s.rest = append(s.rest[:0], rest...)
	if entries.Len() == 0 {
		return len(p), nil
	}
	return len(p), s.log.append(entries.Bytes())
}

// flush writes a last line that has no end.
func (s *stream) flush() {
	if len(s.rest) > 0 {
		var entries bytes.Buffer
		s.entry(&entries, "F", s.rest)
		s.rest = nil
		_ = s.log.append(entries.Bytes())
	}
}

func (s *stream) entry(b *bytes.Buffer, tag string, text []byte) {
	b.WriteString(time.Now().UTC().Format(time.RFC3339Nano))
	b.WriteString(" " + s.name + " " + tag + " ")
	b.Write(text)
	b.WriteByte('\n')
}

// logQuery says which part of a log to read, with the meaning that v1.PodLogOptions gives these fields.
type logQuery struct {
	follow     bool
	timestamps bool
	since      time.Time
	tailLines  int64  // negative: all
	limitBytes int64  // negative: all
	stream     string // empty: both
}

var errLimit = errors.New("the limit of bytes is reached")

// copyTo writes the log. When following, it ends with the process or with ctx.
func (l *logFile) copyTo(ctx context.Context, out io.Writer, q logQuery) error {
	f, err := os.Open(l.path)
	if err != nil {
		return err
	}
	defer f.Close()
	skip, err := q.linesToSkip(f)
	if err != nil {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	reader := bufio.NewReaderSize(f, 64<<10)
	var line []byte
	for {
		// Asked before reading, so that what comes in between is not missed.
		changed, more := l.grown()
		part, err := reader.ReadBytes('\n')
		line = append(line, part...)
		if err == nil {
			text := q.format(line)
			line = line[:0]
			if text == nil {
				continue
			}
			if skip > 0 {
				skip--
				continue
			}
			if err := q.write(out, text); err != nil {
				if errors.Is(err, errLimit) {
					return nil
				}
				return err
			}
			continue
		}
		if !errors.Is(err, io.EOF) {
			return err
		}
		if !q.follow || !more {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// linesToSkip returns how many selected entries come before the tail.
func (q *logQuery) linesToSkip(f io.Reader) (int64, error) {
	if q.tailLines < 0 {
		return 0, nil
	}
	var count int64
	lines := bufio.NewReaderSize(f, 64<<10)
	for {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return max(0, count-q.tailLines), nil
		}
		if err != nil {
			return 0, err
		}
		if q.format(line) != nil {
			count++
		}
	}
}

// format returns what the reader of an entry sees, or nil when the entry is not selected.
func (q *logQuery) format(entry []byte) []byte {
	fields := bytes.SplitN(entry, []byte(" "), 4)
	if len(fields) != 4 || q.stream != "" && !strings.EqualFold(q.stream, string(fields[1])) {
		return nil
	}
	if !q.since.IsZero() {
		if at, err := time.Parse(time.RFC3339Nano, string(fields[0])); err != nil || at.Before(q.since) {
			return nil
		}
	}
	text := fields[3]
	if string(fields[2]) == "P" {
		text = bytes.TrimSuffix(text, []byte("\n"))
	}
	if q.timestamps {
		text = append(append(bytes.Clone(fields[0]), ' '), text...)
	}
	return text
}

func (q *logQuery) write(out io.Writer, text []byte) error {
	if q.limitBytes >= 0 {
		if int64(len(text)) >= q.limitBytes {
			if _, err := out.Write(text[:q.limitBytes]); err != nil {
				return err
			}
			return errLimit
		}
		q.limitBytes -= int64(len(text))
	}
	_, err := out.Write(text)
	return err
}

// tail returns the end of the log, for a container's termination message.
func (l *logFile) tail(lines, bytes int64) string {
	var b strings.Builder
	if err := l.copyTo(context.Background(), &b, logQuery{tailLines: lines, limitBytes: -1}); err != nil {
		return ""
	}
	text := b.String()
	if int64(len(text)) > bytes {
		text = text[int64(len(text))-bytes:]
	}
	return text
}
