// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

// Package architecture tests the shape of the tree: which package may import which,
// and that every file carries its licence.
package architecture

import (
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/incumbent-io/incumbent/"

// allowed says which packages of the module each package may import. A package that
// is missing here fails the test: whoever adds a room says where its doors are.
var allowed = map[string][]string{
	"cmd/manager":                       {"pkg/manager", "pkg/controllers", "pkg/scaffold", shipped},
	"pkg/clients":                       {},
	"pkg/controllers":                   {"pkg/clients"},
	"pkg/controllers/configpropagation": {"pkg/controllers", "pkg/reconciler"},
	"pkg/controllers/configrollout":     {"pkg/controllers", "pkg/reconciler"},
	"pkg/controllers/leaderlabel":       {"pkg/controllers", "pkg/clients", "pkg/reconciler"},
	"pkg/controllers/objectttl":         {"pkg/controllers", "pkg/clients", "pkg/reconciler"},
	"pkg/controllers/runner":            {"pkg/controllers", "pkg/clients"},
	"pkg/controllertest":                {"pkg/clients", "pkg/controllers", "pkg/controllers/runner"},
	"pkg/healthz":                       {},
	"pkg/leaderelection":                {},
	"pkg/manager":                       {"pkg/clients", "pkg/controllers", "pkg/controllers/runner", "pkg/healthz", "pkg/leaderelection", "pkg/options", "pkg/preflight", "pkg/reconciler", "pkg/serving", "pkg/status"},
	"pkg/options":                       {"pkg/controllers", "pkg/leaderelection", "pkg/serving"},
	"pkg/preflight":                     {"pkg/controllers"},
	"pkg/reconciler":                    {},
	"pkg/scaffold":                      {"manifests"},
	"pkg/serving":                       {},
	"pkg/status":                        {},
}

// shipped stands for every controller that ships with Incumbent.
const shipped = "pkg/controllers/*"

// forbidden are modules that no package of ours may import, with the reason.
var forbidden = map[string]string{
	"sigs.k8s.io/controller-runtime": "a peer; it may appear in benchmarks and in an example of its own",
	"text/template":                  "a program that can execute a template keeps every exported method: a third more binary, and 15 MiB more of it resident",
	"html/template":                  "as text/template",
	"k8s.io/kubernetes":              "not made to be imported; hack/localcluster, a module of its own, runs it",
}

type pkg struct {
	ImportPath string
	Imports    []string
}

func list(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports", "./cmd/...", "./pkg/...")
	cmd.Dir = root(t)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var packages []pkg
	for decoder := json.NewDecoder(strings.NewReader(string(out))); decoder.More(); {
		var p pkg
		if err := decoder.Decode(&p); err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
	return packages
}

func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestImportsFollowTheTable(t *testing.T) {
	seen := map[string]bool{}
	for _, p := range list(t) {
		name := strings.TrimPrefix(p.ImportPath, module)
		seen[name] = true
		may, known := allowed[name]
		if !known {
			t.Errorf("package %s is not in the table of allowed imports; add it there and in docs/architecture.md", name)
		}
		for _, imported := range p.Imports {
			for prefix, reason := range forbidden {
				if imported == prefix || strings.HasPrefix(imported, prefix+"/") {
					t.Errorf("%s imports %s: %s", name, imported, reason)
				}
			}
			target, ours := strings.CutPrefix(imported, module)
			if ours && !slices.Contains(may, target) && !(slices.Contains(may, shipped) && isShipped(target)) {
				t.Errorf("%s imports %s; it may import only %q", name, target, may)
			}
		}
	}
	for name := range allowed {
		if !seen[name] {
			t.Errorf("the table of allowed imports names %s, which does not exist", name)
		}
	}
}

func isShipped(name string) bool {
	return strings.HasPrefix(name, "pkg/controllers/") && name != "pkg/controllers/runner"
}

func TestGoFilesCarryTheLicence(t *testing.T) {
	const header = "// SPDX-License-Identifier: Apache-2.0\n// Copyright The Incumbent Authors.\n"
	files := 0
	err := filepath.WalkDir(root(t), func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && strings.HasPrefix(entry.Name(), ".") && path != root(t), entry.IsDir() && entry.Name() == "bin":
			return fs.SkipDir
		case filepath.Ext(path) != ".go":
			return nil
		}
		files++
		content, err := os.ReadFile(path)
		if err == nil && !strings.HasPrefix(string(content), header) {
			t.Errorf("%s does not begin with the licence lines", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if files == 0 {
		t.Error("found no Go files at all")
	}
}

func TestCompositionRootStaysSmall(t *testing.T) {
	content, err := os.ReadFile(filepath.Join(root(t), "cmd/manager/main.go"))
	if err != nil {
		t.Fatal(err)
	}
	if lines := strings.Count(string(content), "\n"); lines >= 40 {
		t.Errorf("cmd/manager/main.go has %d lines, want fewer than 40: it says which controllers, and nothing else", lines)
	}
}

// TestDependenciesHaveAReason compares go.mod with docs/dependencies.md.
func TestDependenciesHaveAReason(t *testing.T) {
	cmd := exec.Command("go", "list", "-m", "-f", "{{if not (or .Indirect .Main)}}{{.Path}}{{end}}", "all")
	cmd.Dir = root(t)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	page, err := os.ReadFile(filepath.Join(root(t), "docs/dependencies.md"))
	if err != nil {
		t.Fatal(err)
	}
	direct := map[string]bool{}
	for _, module := range strings.Fields(string(out)) {
		direct[module] = true
		if !strings.Contains(string(page), "`"+module+"`") {
			t.Errorf("docs/dependencies.md gives no reason for %s", module)
		}
	}
	for _, line := range strings.Split(string(page), "\n") {
		if !strings.HasPrefix(line, "| `") {
			continue
		}
		for _, module := range strings.Split(strings.Split(line, "|")[1], ",") {
			if name := strings.Trim(module, " `"); !direct[name] {
				t.Errorf("docs/dependencies.md explains %s, which go.mod does not require directly", name)
			}
		}
	}
}

// TestReadmeShowsCodeThatCompiles compares the README's example with the one that the
// tests compile.
func TestReadmeShowsCodeThatCompiles(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join(root(t), "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	example, err := os.ReadFile(filepath.Join(root(t), "pkg/manager/example_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	compiled := strings.Replace(string(example), "func Example() {", "func main() {", 1)
	for i, block := range strings.Split(string(readme), "```go\n")[1:] {
		code, _, closed := strings.Cut(block, "```")
		if !closed || !strings.Contains(compiled, code) {
			t.Errorf("Go block %d of README.md is not part of pkg/manager/example_test.go:\n%s", i+1, code)
		}
	}
}

// TestLinksLeadSomewhere follows the links of the documentation within the tree.
func TestLinksLeadSomewhere(t *testing.T) {
	link, code := regexp.MustCompile(`\]\(([^)#]+)[^)]*\)`), regexp.MustCompile("(?s)```.*?```|`[^`\n]+`")
	pages := 0
	err := filepath.WalkDir(root(t), func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && strings.HasPrefix(entry.Name(), ".") && path != root(t), entry.IsDir() && entry.Name() == "bin":
			return fs.SkipDir
		case filepath.Ext(path) != ".md":
			return nil
		}
		pages++
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, match := range link.FindAllStringSubmatch(code.ReplaceAllString(string(content), ""), -1) {
			if strings.Contains(match[1], "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(path), match[1])); err != nil {
				t.Errorf("%s links to %s, which is not there", path, match[1])
			}
		}
		return nil
	})
	if err != nil || pages < 5 {
		t.Errorf("looked at %d pages: %v", pages, err)
	}
}
