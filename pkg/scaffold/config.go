// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package scaffold

import (
	"errors"
	"fmt"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// incumbent is the path of the module that the new one is built on.
const incumbent = "github.com/incumbent-io/incumbent"

// maxName leaves room for "-leader-election" in the 63 characters of a Kubernetes name.
const maxName = 63 - len("-leader-election")

// Config says what to write.
type Config struct {
	// Dir is the folder of the new module. It may exist, as long as it has none of the
	// files that are to be written.
	Dir string
	// Name is the manager's: that of the binary, the Deployment, the Lease, the service
	// account, and of the namespace, with -system after it.
	Name string
	// Controller is the name of its first controller.
	Controller string
	// Module is the path of the new module. Default: example.com/NAME.
	Module string
	// Replace is a checkout of Incumbent to build with, in place of a release. A path
	// that is not absolute is relative to the working directory.
	Replace string
	// Version is the release of Incumbent to build with. It must be one that the module
	// proxy has, unless Replace is set.
	Version string
}

var (
	nameShape    = regexp.MustCompile(`^[a-z]([-a-z0-9]*[a-z0-9])?$`)
	moduleShape  = regexp.MustCompile(`^[a-z0-9][-a-z0-9]*(\.[a-z0-9][-a-z0-9]*)+(/[A-Za-z0-9_~]([-A-Za-z0-9._~]*[-A-Za-z0-9_~])?)*$`)
	releaseShape = regexp.MustCompile(`^v[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?$`)
)

// yamlWords are names that YAML reads as something else than text.
var yamlWords = []string{"y", "n", "yes", "no", "on", "off", "true", "false", "null"}

// taken are the names that a package of a controller cannot have: main.go has other uses
// for them, or the go command, or the module has such a folder.
var taken = []string{"bin", "controllers", "hack", "init", "internal", "main", "manager", "manifests", "os", "testdata", "vendor"}

// Validate returns every mistake, or nil.
func (c Config) Validate() error {
	return errors.Join(c.checkName(), c.checkController(), c.checkModule(), c.checkSource())
}

func (c Config) checkName() error {
	switch {
	case c.Name == "":
		return errors.New("--name is required: the name of the new manager, for example acme-manager")
	case !nameShape.MatchString(c.Name):
		return fmt.Errorf("--name=%q cannot name Kubernetes objects; want lower-case letters, digits and inner dashes, a letter first, for example %q", c.Name, repair(c.Name, "acme-manager"))
	case len(c.Name) > maxName:
		return fmt.Errorf("--name=%q has %d characters; want at most %d, for the names of Kubernetes objects begin with it", c.Name, len(c.Name), maxName)
	case slices.Contains(yamlWords, c.Name):
		return fmt.Errorf("--name=%q means something else in YAML; want another, for example %q", c.Name, c.Name+"-manager")
	}
	return nil
}

func (c Config) checkController() error {
	switch {
	case c.Controller == "":
		return errors.New("--controller is required: the name of the first controller, for example team-label")
	case !nameShape.MatchString(c.Controller):
		return fmt.Errorf("--controller=%q cannot name a controller; want lower-case letters, digits and inner dashes, a letter first, for example %q", c.Controller, repair(c.Controller, "team-label"))
	case len(c.Controller) > 40:
		return fmt.Errorf("--controller=%q has %d characters; want at most 40, for it begins flags and names metrics", c.Controller, len(c.Controller))
	case token.IsKeyword(c.packageName()), slices.Contains(taken, c.packageName()):
		return fmt.Errorf("--controller=%q would need the Go package %q, a name that is reserved; want another, for example %q", c.Controller, c.packageName(), c.Controller+"-controller")
	}
	return nil
}

func (c Config) checkModule() error {
	path := c.modulePath()
	switch {
	case !moduleShape.MatchString(path):
		return fmt.Errorf("--module=%q is not the path of a Go module; want a host name (Go keeps paths without a dot for itself), and elements of letters, digits and -._~ after slashes, for example %q", path, "example.com/acme")
	case path == incumbent || strings.HasPrefix(path, incumbent+"/"):
		return fmt.Errorf("--module=%q belongs to Incumbent; want a path of your own, for example %q", path, "example.com/acme")
	}
	return nil
}

// checkSource finds out whether there is an Incumbent to build with.
func (c Config) checkSource() error {
	if c.Replace == "" {
		if !releaseShape.MatchString(c.Version) {
			return fmt.Errorf("this is version %s, not a release, so no module proxy has it; add --replace=PATH with a checkout of %s", c.Version, incumbent)
		}
		return nil
	}
	content, err := os.ReadFile(filepath.Join(c.Replace, "go.mod"))
	if err != nil {
		return fmt.Errorf("--replace=%q is not a checkout of %s: %w", c.Replace, incumbent, err)
	}
	if line, _, _ := strings.Cut(string(content), "\n"); strings.TrimSpace(line) != "module "+incumbent {
		return fmt.Errorf("--replace=%q is not a checkout of %s: its go.mod begins with %q", c.Replace, incumbent, line)
	}
	return nil
}

func (c Config) modulePath() string {
	if c.Module == "" {
		return "example.com/" + c.Name
	}
	return c.Module
}

// packageName is the controller's name without its dashes.
func (c Config) packageName() string { return strings.ReplaceAll(c.Controller, "-", "") }

// repair returns a valid name that is close to the given one, or else the example.
func repair(name, example string) string {
	fixed := regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(strings.ToLower(name), "-")
	if fixed = strings.Trim(fixed, "-0123456789"); !nameShape.MatchString(fixed) {
		return example
	}
	return fixed
}
