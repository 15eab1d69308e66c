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

func TestMatchImage(t *testing.T) {
	entries := map[string]string{
		"ghcr.io/x/manager:dev":      "dev",
		"ghcr.io/x/any":              "any",
		"localhost:5000/tool:v1":     "tool",
		"ghcr.io/x/two:v1":           "two-1",
		"ghcr.io/x/two:v2":           "two-2",
		"ghcr.io/x/exact@sha256:abc": "exact",
	}
	const none = "none"
	for image, want := range map[string]string{
		"ghcr.io/x/manager:dev":            "dev",
		"ghcr.io/x/manager:dev@sha256:0":   "dev",
		"ghcr.io/x/manager":                "dev", // the only tag there is
		"ghcr.io/x/manager@sha256:0":       "dev",
		"ghcr.io/x/manager:prod":           none,
		"ghcr.io/x/any":                    "any",
		"ghcr.io/x/any:v9":                 "any",
		"ghcr.io/x/any:v9@sha256:0":        "any",
		"localhost:5000/tool:v1":           "tool",
		"localhost:5000/tool":              "tool",
		"localhost:5000/tool:v2":           none,
		"localhost":                        none, // a port is not a tag
		"ghcr.io/x/two":                    none, // two tags to choose from
		"ghcr.io/x/two:v2":                 "two-2",
		"ghcr.io/x/exact@sha256:abc":       "exact",
		"ghcr.io/x/exact@sha256:def":       none,
		"ghcr.io/x/manager-other:dev":      none,
		"docker.io/ghcr.io/x/manager:dev":  none,
		"ghcr.io/x/manager:dev/subfolder":  none,
		"ghcr.io/x/any/deeper:v9":          none,
		"ghcr.io/x/any-but-another:latest": none,
	} {
		got, ok := matchImage(entries, image)
		if !ok {
			got = none
		}
		if got != want {
			t.Errorf("matchImage(%q) = %q, want %q", image, got, want)
		}
	}
}

func TestImagesFollowTheirFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "images")
	program := filepath.Join(dir, "program")
	images, err := NewImages([]string{"fixed:v1=" + program}, file)
	if err != nil {
		t.Fatalf("a file that does not exist yet: %v", err)
	}
	for _, test := range []struct{ name, image, want string }{
		{"program missing", "fixed:v1", "no such file"},
		{"unknown image", "late:v1", "add a line late:v1=/path/to/program to " + file},
	} {
		if _, err := images.Resolve(test.image); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %q", test.name, err, test.want)
		}
	}
	if err := os.WriteFile(program, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := images.Resolve("fixed:v1"); err == nil || !strings.Contains(err.Error(), "not an executable file") {
		t.Errorf("a file that is not executable: got %v", err)
	}
	if err := os.Chmod(program, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("# comment\n\n late = program \n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got, err := images.Resolve("late:v1"); err != nil || got != program {
		t.Errorf("got %q, %v, want %q, relative to the file", got, err, program)
	}
	if err := os.WriteFile(file, []byte("late program\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := images.Resolve("late:v1"); err == nil || !strings.Contains(err.Error(), file+":1: ") {
		t.Errorf("a bad line: got %v, want its place", err)
	}
}

func TestNewImagesReportsAllMistakes(t *testing.T) {
	_, err := NewImages([]string{"a", "=b", "c="}, "")
	if err == nil || strings.Count(err.Error(), "is not of the form NAME=PATH") != 3 {
		t.Errorf("got %v, want three mistakes", err)
	}
}
