// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package options

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"reflect"
)

// MaxFileSize is how large a configuration file may be, in bytes. A ConfigMap cannot
// hold more.
const MaxFileSize = 1 << 20

// File is a configuration file that was read.
type File struct {
	// Path is the file's name as it was given, for messages.
	Path string
	// Content is YAML or JSON.
	Content []byte
}

// ReadFile reads the configuration file at path, of which it never reads more than
// MaxFileSize and one byte. It does not look at the content. The errors name the path
// and the fix; they wrap those of package os.
func ReadFile(path string) (*File, error) {
	if path == "" {
		return nil, errors.New("--config is empty; give the path of a configuration file, or leave the flag out")
	}
	// A look first: to open a pipe would wait for somebody who writes to it.
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("--config=%s: there is no such file (%w); give the path of a configuration file, or leave the flag out", path, fs.ErrNotExist)
	case err != nil:
		return nil, fmt.Errorf("--config=%s cannot be read: %w", path, err)
	case info.IsDir():
		return nil, fmt.Errorf("--config=%s is a directory; give the path of a file in it", path)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("--config=%s is not a regular file, and so cannot be read again when it changes; write the configuration into a file", path)
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("--config=%s cannot be read: %w", path, err)
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, MaxFileSize+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("--config=%s cannot be read: %w", path, err)
	case len(content) > MaxFileSize:
		return nil, fmt.Errorf("--config=%s is larger than 1 MiB, more than a ConfigMap could hold; is it the right file?", path)
	}
	return &File{Path: path, Content: content}, nil
}

// read decodes the file over the defaults in o. Its mistakes, and the lines of the
// fields that it sets, are kept in o.
func (o *Options) read(file *File) {
	d := &decoder{file: file.Path, lines: map[string]int{}}
	if len(file.Content) > MaxFileSize {
		d.mistakes = append(d.mistakes, fmt.Errorf("%s: is larger than 1 MiB", file.Path))
	} else if root := d.parse(file.Content); root != nil && d.checkHeader(root) {
		d.decode("", root, reflect.ValueOf(&headed{document: o.document}).Elem())
	}
	o.places.file, o.places.lines = file.Path, d.lines
	o.mistakes = append(o.mistakes, d.mistakes...)
}
