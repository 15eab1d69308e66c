// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

//go:build linux

package node

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Images maps names of images to programs of this machine.
type Images struct {
	fixed map[string]string
	file  string
}

// NewImages returns the images given as NAME=PATH, and those in the file (a line NAME=PATH each; # begins a comment),
// which need not exist yet. Relative paths are relative to the working directory, or to the file's folder.
func NewImages(list []string, file string) (*Images, error) {
	images := &Images{fixed: map[string]string{}}
	var errs []error
	for _, entry := range list {
		name, path, err := parseImage(entry, "")
		if err != nil {
			errs = append(errs, fmt.Errorf("--image: %w", err))
			continue
		}
		images.fixed[name] = path
	}
	if file != "" {
		var err error
		if images.file, err = filepath.Abs(file); err != nil {
			errs = append(errs, err)
		} else if _, err := readImages(images.file); err != nil {
			errs = append(errs, err)
		}
	}
	return images, errors.Join(errs...)
}

func parseImage(entry, dir string) (name, path string, err error) {
	name, path, ok := strings.Cut(strings.TrimSpace(entry), "=")
	name, path = strings.TrimSpace(name), strings.TrimSpace(path)
	if !ok || name == "" || path == "" {
		return "", "", fmt.Errorf("%q is not of the form NAME=PATH, as in example.com/manager:dev=bin/manager", entry)
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(dir, path)
	}
	path, err = filepath.Abs(path)
	return name, path, err
}

func readImages(file string) (map[string]string, error) {
	images := map[string]string{}
	f, err := os.Open(file)
	if errors.Is(err, os.ErrNotExist) {
		return images, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for number := 1; lines.Scan(); number++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, path, err := parseImage(line, filepath.Dir(file))
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", file, number, err)
		}
		images[name] = path
	}
	return images, lines.Err()
}

// Resolve returns the program of an image. Entries of the file win: they can change while the cluster runs.
func (i *Images) Resolve(image string) (string, error) {
	if i.file != "" {
		entries, err := readImages(i.file)
		if err != nil {
			return "", err
		}
		if path, ok := matchImage(entries, image); ok {
			return executable(image, path)
		}
	}
	if path, ok := matchImage(i.fixed, image); ok {
		return executable(image, path)
	}
	how := fmt.Sprintf("start the cluster with --image %s=/path/to/program", image)
	if i.file != "" {
		how = fmt.Sprintf("add a line %s=/path/to/program to %s", image, i.file)
	}
	return "", fmt.Errorf("no program is mapped to the image %q: %s", image, how)
}

func executable(image, path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("the program of the image %q: %w", image, err)
	}
	if info.IsDir() || info.Mode()&0o111 == 0 {
		return "", fmt.Errorf("the program of the image %q: %s is not an executable file", image, path)
	}
	return path, nil
}

// matchImage finds the entry for an image: the very name first, then the one without the image's digest, then an entry
// without a tag, which stands for all tags.
func matchImage(entries map[string]string, image string) (string, bool) {
	name, _, _ := strings.Cut(image, "@")
	untagged := name
	if colon := strings.LastIndex(name, ":"); colon > strings.LastIndex(name, "/") {
		untagged = name[:colon]
	}
	for _, candidate := range []string{image, name, untagged} {
		if path, ok := entries[candidate]; ok {
			return path, true
		}
	}
	// An image without a tag means the tag latest; here, any tag of the entry serves, if there is one only.
	if untagged != name {
		return "", false
	}
	var found []string
	for entry, path := range entries {
		if strings.HasPrefix(entry, untagged+":") && !strings.Contains(entry[len(untagged)+1:], "/") {
			found = append(found, path)
		}
	}
	if len(found) != 1 {
		return "", false
	}
	return found[0], true
}
