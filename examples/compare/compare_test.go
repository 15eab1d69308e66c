// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

// Package compare has the same small controller three times: on Incumbent, on
// controller-runtime, and on client-go alone. Its tests count their lines for the
// documentation, and run each in a Pod.
package compare

import (
	"fmt"
	"go/ast"
	"go/format"
	"go/parser"
	"go/scanner"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// programs are the folders, in the order of the table in the documentation.
var programs = []string{"incumbent", "controllerruntime", "clientgo"}

// columns is the longest line that any of them may have, with four for a tab: packing
// more into a line would make lines a poor measure.
const columns = 125

// TestOursIsAmongTheShortest compares the lines that a user writes.
func TestOursIsAmongTheShortest(t *testing.T) {
	ours, fewest := userLines(t, programs[0]), 0
	for _, program := range programs[1:] {
		if n := userLines(t, program); fewest == 0 || n < fewest {
			fewest = n
		}
	}
	if ours > fewest+2 {
		t.Errorf("on Incumbent it takes %d lines, and elsewhere %d; want at most two more", ours, fewest)
	}
}

// TestTheTableIsTrue compares the documentation with the files.
func TestTheTableIsTrue(t *testing.T) {
	page, err := os.ReadFile("../../docs/from-controller-runtime.md")
	if err != nil {
		t.Fatal(err)
	}
	goLines, yamlLines := "| lines of Go |", "| lines of RBAC, written by hand |"
	for _, program := range programs {
		goLines += fmt.Sprintf(" %d |", userLines(t, program))
		yamlLines += fmt.Sprintf(" %d |", rbacLines(t, program))
	}
	for _, row := range []string{goLines, yamlLines} {
		if !strings.Contains(string(page), row) {
			t.Errorf("docs/from-controller-runtime.md does not have the row %s", row)
		}
	}
}

// userLines counts the lines of a program that have code on them: neither blank, nor
// comment, nor package clause, nor import.
func userLines(t *testing.T, program string) int {
	t.Helper()
	lines := 0
	for _, path := range glob(t, program, "*.go") {
		lines += codeLines(t, path)
	}
	if lines == 0 {
		t.Fatalf("%s has no code", program)
	}
	return lines
}

func codeLines(t *testing.T, path string) int {
	t.Helper()
	source, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	formatted, err := format.Source(source)
	if err != nil || string(formatted) != string(source) {
		t.Errorf("%s is not as gofmt has it (%v)", path, err)
	}
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, path, source, 0)
	if err != nil {
		t.Fatal(err)
	}
	code := map[int]bool{}
	var tokens scanner.Scanner
	scanned := files.AddFile(path, files.Base(), len(source))
	tokens.Init(scanned, source, nil, 0)
	for {
		at, what, text := tokens.Scan()
		if what == token.EOF {
			break
		}
		if what == token.SEMICOLON && text == "\n" {
			continue // the end of a line, not of its code
		}
		first := scanned.Line(at)
		for line := range strings.Count(text, "\n") + 1 {
			code[first+line] = true
		}
	}
	delete(code, files.Position(file.Package).Line)
	for _, declaration := range file.Decls {
		if imports, ok := declaration.(*ast.GenDecl); ok && imports.Tok == token.IMPORT {
			for line := files.Position(imports.Pos()).Line; line <= files.Position(imports.End()).Line; line++ {
				delete(code, line)
			}
		}
	}
	for i, line := range strings.Split(string(source), "\n") {
		if width := len(strings.ReplaceAll(line, "\t", "    ")); code[i+1] && width > columns {
			t.Errorf("%s:%d has %d columns; want at most %d, or lines say nothing", path, i+1, width, columns)
		}
	}
	return len(code)
}

// rbacLines counts the lines of RBAC that somebody must write and keep true.
func rbacLines(t *testing.T, program string) (lines int) {
	t.Helper()
	for _, path := range glob(t, program, "*.yaml") {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(content)) {
			if line = strings.TrimSpace(line); line != "" && line != "---" && !strings.HasPrefix(line, "#") {
				lines++
			}
		}
	}
	return lines
}

func glob(t *testing.T, program, pattern string) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(program, pattern))
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

// TestCodeLinesCountsCode is the proof of the measure.
func TestCodeLinesCountsCode(t *testing.T) {
	for _, test := range []struct {
		name, source string
		want         int
	}{
		{"only a package", "// Package p.\npackage p\n", 0},
		{"imports", "package p\n\nimport \"os\"\n\nimport (\n\t\"fmt\"\n)\n\nvar a, b = os.Args, fmt.Sprint()\n", 1},
		{"comments and blanks", "package p\n\n// f does nothing.\nfunc f() { // not even here\n\n\t/* or\n\there */\n}\n", 2},
		{"code before a comment", "package p\n\nvar a = 1 // one\n", 1},
		{"a string over lines", "package p\n\nconst s = `a\n\n// b`\n", 3},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "p.go")
			if err := os.WriteFile(path, []byte(test.source), 0o600); err != nil {
				t.Fatal(err)
			}
			if got := codeLines(t, path); got != test.want {
				t.Errorf("got %d lines, want %d of\n%s", got, test.want, test.source)
			}
		})
	}
}
