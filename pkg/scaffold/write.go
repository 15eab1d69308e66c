// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package scaffold

import (
	"embed"
	"errors"
	"fmt"
	"go/format"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/incumbent-io/incumbent/manifests"
)

// File is one file to write.
type File struct {
	Path    string // below Config.Dir, with slashes
	Content string
	Mode    fs.FileMode
}

//go:embed all:templates
var templates embed.FS

// Files returns what Write writes, sorted by path. The configuration must be valid.
func (c Config) Files() ([]File, error) {
	source, err := c.replacement()
	if err != nil {
		return nil, err
	}
	version, replace := c.Version, ""
	if source != "" {
		version, replace = "v0.0.0", "\nreplace github.com/incumbent-io/incumbent => "+source+"\n"
	}
	files, err := rendered(c.packageName(), strings.NewReplacer(
		"{{.Name}}", c.Name, "{{.Controller}}", c.Controller, "{{.Package}}", c.packageName(),
		"{{.Module}}", c.modulePath(), "{{.Require}}", version, "{{.Replacement}}\n", replace,
	))
	if err != nil {
		return nil, err
	}
	base, err := c.manifests()
	if err != nil {
		return nil, err
	}
	files = append(files, base...)
	slices.SortFunc(files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	return files, nil
}

// replacement is Config.Replace as go.mod has it: relative to Dir unless it is absolute.
func (c Config) replacement() (string, error) {
	if c.Replace == "" || filepath.IsAbs(c.Replace) {
		return c.Replace, nil
	}
	from, err := filepath.Abs(c.Dir)
	if err != nil {
		return "", err
	}
	to, err := filepath.Abs(c.Replace)
	if err != nil {
		return "", err
	}
	relative, err := filepath.Rel(from, to)
	if err != nil {
		return "", err
	}
	if !strings.HasPrefix(relative, "../") {
		relative = "./" + relative // without it go.mod would have a module's path
	}
	return filepath.ToSlash(relative), nil
}

// rendered returns the templates, filled in. "controller" in a path stands for the
// package of the controller.
func rendered(pkg string, values *strings.Replacer) (files []File, err error) {
	err = fs.WalkDir(templates, "templates", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		source, err := templates.ReadFile(name)
		if err != nil {
			return err
		}
		content := values.Replace(string(source))
		target := strings.TrimSuffix(strings.TrimPrefix(name, "templates/"), ".tmpl")
		file := File{Path: strings.ReplaceAll(target, "controller", pkg), Content: content, Mode: 0o644}
		switch path.Ext(target) {
		case ".sh":
			file.Mode = 0o755
		case ".go": // where gofmt breaks lines depends on the length of names
			formatted, err := format.Source([]byte(content))
			if err != nil {
				return fmt.Errorf("%s: %w", target, err)
			}
			file.Content = string(formatted)
		}
		files = append(files, file)
		return nil
	})
	return files, err
}

// manifests returns manifests/base, with everything in it named after the new manager.
// Its RBAC is that of the new controller, and so a template.
func (c Config) manifests() (files []File, err error) {
	rename := strings.NewReplacer(
		"config.incumbent.io", "config.incumbent.io", // an API group, not a name
		"manifests/base", "manifests",
		"docs/configuration.md", "https://"+incumbent+"/blob/main/docs/configuration.md",
		"Incumbent", c.Name,
		"incumbent-io/manager", c.Name,
		"incumbent", c.Name,
	)
	err = fs.WalkDir(manifests.Base, "base", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || path.Base(name) == "rbac.yaml" {
			return err
		}
		content, err := manifests.Base.ReadFile(name)
		files = append(files, File{Path: "manifests/" + path.Base(name), Content: rename.Replace(string(content)), Mode: 0o644})
		return err
	})
	return files, err
}

// Write writes all files, or none if one of them is there already.
func (c Config) Write() error {
	files, err := c.Files()
	if err != nil {
		return err
	}
	var there []string
	for _, file := range files {
		if _, err := os.Lstat(filepath.Join(c.Dir, file.Path)); err == nil {
			there = append(there, file.Path)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if len(there) > 0 {
		return fmt.Errorf("%s has %s already, and nothing is overwritten; choose another folder, or move them away", c.Dir, strings.Join(there, ", "))
	}
	for _, file := range files {
		if err := create(filepath.Join(c.Dir, file.Path), file); err != nil {
			return err
		}
	}
	return nil
}

func create(name string, file File) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	out, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, file.Mode)
	if err != nil {
		return err
	}
	_, err = out.WriteString(file.Content)
	return errors.Join(err, out.Close())
}
