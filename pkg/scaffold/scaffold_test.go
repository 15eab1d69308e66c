// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package scaffold_test

import (
	"bytes"
	"errors"
	"go/format"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/incumbent-io/incumbent/pkg/scaffold"
)

// acme is a configuration that is right.
func acme(t *testing.T) scaffold.Config {
	return scaffold.Config{
		Dir: filepath.Join(t.TempDir(), "acme"), Name: "acme-manager", Controller: "team-label",
		Module: "example.com/acme", Version: "v0.1.0",
	}
}

func TestMistakesAreNamedWithTheFix(t *testing.T) {
	other := t.TempDir()
	if err := os.WriteFile(filepath.Join(other, "go.mod"), []byte("module example.com/other\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name   string
		change func(*scaffold.Config)
		want   []string // parts of the error; none: no error
	}{
		{"nothing is wrong", func(*scaffold.Config) {}, nil},
		{"a pre-release", func(c *scaffold.Config) { c.Version = "v0.2.0-rc.1" }, nil},
		{"a checkout instead of a release", func(c *scaffold.Config) { c.Version, c.Replace = "(devel)", "../.." }, nil},
		{"the module's default", func(c *scaffold.Config) { c.Module = "" }, nil},
		{"a controller of one word", func(c *scaffold.Config) { c.Controller = "foo" }, nil},
		{"no name", func(c *scaffold.Config) { c.Name = "" }, []string{"--name is required", "acme-manager"}},
		{"an impossible name", func(c *scaffold.Config) { c.Name = "Acme_Manager" }, []string{`--name="Acme_Manager"`, "lower-case", `"acme-manager"`}},
		{"a name beyond repair", func(c *scaffold.Config) { c.Name = "Ü" }, []string{`--name="Ü"`, `"acme-manager"`}},
		{"a long name", func(c *scaffold.Config) { c.Name = strings.Repeat("a", 48) }, []string{"48 characters", "at most 47"}},
		{"a name that YAML takes for a truth", func(c *scaffold.Config) { c.Name = "off" }, []string{`--name="off"`, `"off-manager"`}},
		{"no controller", func(c *scaffold.Config) { c.Controller = "" }, []string{"--controller is required"}},
		{"an impossible controller", func(c *scaffold.Config) { c.Controller = "Foo Bar" }, []string{`--controller="Foo Bar"`, `"foo-bar"`}},
		{"a controller with a path", func(c *scaffold.Config) { c.Controller = "../x" }, []string{`--controller="../x"`, `"x"`}},
		{"a long controller", func(c *scaffold.Config) { c.Controller = strings.Repeat("a", 41) }, []string{"41 characters", "at most 40"}},
		{"a keyword", func(c *scaffold.Config) { c.Controller = "func" }, []string{`--controller="func"`, "reserved", `"func-controller"`}},
		{"a keyword once its dash is gone", func(c *scaffold.Config) { c.Controller = "de-fault" }, []string{`--controller="de-fault"`, `"default"`}},
		{"a package that main.go imports", func(c *scaffold.Config) { c.Controller = "manager" }, []string{`--controller="manager"`, "reserved"}},
		{"a folder that means something to Go", func(c *scaffold.Config) { c.Controller = "internal" }, []string{`--controller="internal"`, "reserved"}},
		{"a module without a host", func(c *scaffold.Config) { c.Module = "acme" }, []string{`--module="acme"`, "host name", "example.com/acme"}},
		{"a module with a space", func(c *scaffold.Config) { c.Module = "example.com/a b" }, []string{`--module="example.com/a b"`}},
		{"a module that climbs", func(c *scaffold.Config) { c.Module = "example.com/../a" }, []string{`--module="example.com/../a"`}},
		{"Incumbent's own module", func(c *scaffold.Config) { c.Module = "github.com/incumbent-io/incumbent/x" }, []string{"belongs to Incumbent"}},
		{"neither release nor checkout", func(c *scaffold.Config) { c.Version = "v0.1.0-dev+abc" }, []string{"v0.1.0-dev+abc", "--replace=PATH"}},
		{"a checkout that is not there", func(c *scaffold.Config) { c.Replace = "/nowhere" }, []string{`--replace="/nowhere"`, "no such file"}},
		{"a checkout of something else", func(c *scaffold.Config) { c.Replace = other }, []string{"example.com/other"}},
		{"everything", func(c *scaffold.Config) { *c = scaffold.Config{Module: "x", Version: "y"} }, []string{"--name", "--controller", "--module", "--replace"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := acme(t)
			test.change(&c)
			err := c.Validate()
			if (err != nil) != (len(test.want) > 0) {
				t.Fatalf("got %v, want an error with %q", err, test.want)
			}
			for _, part := range test.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("got %v, want it to say %q", err, part)
				}
			}
		})
	}
}

func TestFilesAreWellFormed(t *testing.T) {
	for _, controller := range []string{"x", "team-label", "a-very-long-name-for-a-small-controller"} {
		c := acme(t)
		c.Controller = controller
		files, err := c.Files()
		if err != nil {
			t.Fatal(err)
		}
		if len(files) < 15 {
			t.Fatalf("got %d files, want all", len(files))
		}
		for _, file := range files {
			if strings.Contains(file.Content, "<no value>") || file.Path != "Makefile" && strings.Contains(file.Content, "{{.") {
				t.Errorf("%s is not filled in:\n%s", file.Path, file.Content)
			}
			switch filepath.Ext(file.Path) {
			case ".go":
				formatted, err := format.Source([]byte(file.Content))
				if err != nil || string(formatted) != file.Content {
					t.Errorf("%s is not as gofmt has it (%v):\n%s", file.Path, err, cmp.Diff(file.Content, string(formatted)))
				}
			case ".yaml":
				for _, document := range strings.Split(file.Content, "\n---\n") {
					var object map[string]any
					if err := yaml.Unmarshal([]byte(document), &object); err != nil || object["kind"] == nil {
						t.Errorf("%s: %v (%v)", file.Path, object, err)
					}
				}
			}
		}
	}
}

// TestManifestsNameNothingOfIncumbent finds what a second manager in the same cluster
// would share with the first.
func TestManifestsNameNothingOfIncumbent(t *testing.T) {
	files, err := acme(t).Files()
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, file := range files {
		if !strings.HasPrefix(file.Path, "manifests/") {
			continue
		}
		found++
		rest := strings.NewReplacer("config.incumbent.io", "", "https://github.com/incumbent-io/incumbent/", "").Replace(file.Content)
		if at := strings.Index(strings.ToLower(rest), "incumbent"); at >= 0 {
			t.Errorf("%s: %q", file.Path, rest[max(0, at-40):min(len(rest), at+40)])
		}
	}
	if base, err := filepath.Glob("../../manifests/base/*.yaml"); err != nil || len(base) != found {
		t.Errorf("got %d manifests, want the %d of manifests/base (%v)", found, len(base), err)
	}
}

func TestGoModNamesTheReleaseOrTheCheckout(t *testing.T) {
	checkout, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(checkout) // a relative path is relative to where the user stands
	for _, test := range []struct {
		name, dir, replace string
		want               []string
	}{
		{"a release", "/elsewhere/acme", "", []string{"module example.com/acme", "require github.com/incumbent-io/incumbent v0.1.0"}},
		{"an absolute checkout", "/elsewhere/acme", checkout, []string{"v0.0.0", "replace github.com/incumbent-io/incumbent => " + checkout}},
		{"a checkout beside", "../acme", ".", []string{"=> ../" + filepath.Base(checkout)}},
		{"a checkout around", "examples/acme", ".", []string{"=> ../.."}},
		{"a checkout below", "..", ".", []string{"=> ./" + filepath.Base(checkout)}},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := acme(t)
			c.Dir, c.Replace = test.dir, test.replace
			files, err := c.Files()
			if err != nil {
				t.Fatal(err)
			}
			for _, file := range files {
				if file.Path != "go.mod" {
					continue
				}
				for _, part := range test.want {
					if !strings.Contains(file.Content+"\n", part+"\n") {
						t.Errorf("got\n%s\nwant a line that ends in %q", file.Content, part)
					}
				}
				if test.replace == "" && strings.Contains(file.Content, "replace") {
					t.Errorf("got\n%s\nwant no replacement", file.Content)
				}
			}
		})
	}
}

// TestNothingIsOverwritten puts one of the files there before.
func TestNothingIsOverwritten(t *testing.T) {
	c := acme(t)
	if err := c.Write(); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(c.Dir, "hack/run.sh")); err != nil || info.Mode().Perm()&0o100 == 0 {
		t.Errorf("hack/run.sh cannot be executed: %v, %v", info, err)
	}
	if err := c.Write(); err == nil || !strings.Contains(err.Error(), "main.go") || !strings.Contains(err.Error(), "nothing is overwritten") {
		t.Errorf("the second time: got %v, want a refusal that names the files", err)
	}

	c = acme(t)
	mine := filepath.Join(c.Dir, "README.md")
	if err := os.MkdirAll(c.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/nowhere/else", mine); err != nil { // a link that leads nowhere is a file, too
		t.Fatal(err)
	}
	if err := c.Write(); err == nil || !strings.Contains(err.Error(), "README.md") {
		t.Errorf("with one file there: got %v, want a refusal that names it", err)
	}
	entries, err := os.ReadDir(c.Dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("got %v (%v), want nothing but the file that was there", entries, err)
	}

	// Other files do not matter.
	if err := os.Rename(mine, filepath.Join(c.Dir, "notes.txt")); err != nil {
		t.Fatal(err)
	}
	if err := c.Write(); err != nil {
		t.Errorf("beside another file: %v", err)
	}
}

func TestAFileInTheWayIsAnError(t *testing.T) {
	c := acme(t)
	if err := os.WriteFile(c.Dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var wrong *fs.PathError
	if err := c.Write(); !errors.As(err, &wrong) {
		t.Errorf("got %v, want the path that is in the way", err)
	}
}

func TestCommandReportsEveryMistake(t *testing.T) {
	root := scaffold.NewCommand()
	var out bytes.Buffer
	root.SetOut(&out)
	root.SetErr(&out)
	root.SilenceUsage, root.SilenceErrors = true, true
	root.SetArgs([]string{t.TempDir(), "--name=a b", "--controller=init"})
	err := root.Execute()
	for _, part := range []string{`"a b"`, `"a-b"`, `"init"`, "--replace"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("got %v, want it to say %s", err, part)
		}
	}
	root.SetArgs([]string{"a", "b"})
	if err := root.Execute(); err == nil || !strings.Contains(err.Error(), "one argument") {
		t.Errorf("got %v, want a complaint about two arguments", err)
	}
}
