// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package architecture

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/incumbent-io/incumbent/pkg/scaffold"
)

// tutorials are the pages whose code is that of files which the tests compile. Where it
// is from stands before each block:
//
//	<!-- from PATH -->                a part of that file
//	<!-- from manager init: PATH -->  a part of a file that manager init writes
//	<!-- change -->                   a patch to such files, which test/tutorial applies
var tutorials = []string{
	"docs/from-controller-runtime.md",
	"docs/from-kube-controller-manager-style.md",
	"docs/writing-a-controller.md",
}

// block is a piece of code in a page, with what stands on the line before it.
var block = regexp.MustCompile("(?m)^(?:<!-- (.*) -->\n)?```([a-z]+)\n((?s:.*?))^```$")

// TestTutorialsShowCodeThatCompiles compares each block of code with where it is from.
func TestTutorialsShowCodeThatCompiles(t *testing.T) {
	written := scaffolded(t)
	for _, page := range tutorials {
		content, err := os.ReadFile(filepath.Join(root(t), page))
		if err != nil {
			t.Error(err)
			continue
		}
		compared := 0
		for _, found := range block.FindAllStringSubmatch(string(content), -1) {
			origin, language, code := found[1], found[2], found[3]
			if language == "console" || language == "diff" && origin == "change" {
				continue
			}
			source, known := written[origin], true
			if source == "" {
				source, known = fileNamed(t, strings.TrimPrefix(origin, "from "))
			}
			switch {
			case !known:
				t.Errorf("%s does not say from which file this is, or there is none (%q):\n%s", page, origin, code)
			case !strings.Contains(source, code):
				t.Errorf("%s shows what is not in its source any more (%s):\n%s", page, origin, code)
			}
			compared++
		}
		if compared == 0 {
			t.Errorf("%s has no code to compare", page)
		}
	}
}

// scaffolded returns what manager init writes in the tutorial, by the marks of blocks.
func scaffolded(t *testing.T) map[string]string {
	t.Helper()
	files, err := scaffold.Config{Dir: t.TempDir(), Name: "acme-manager", Controller: "team-label", Replace: root(t)}.Files()
	if err != nil {
		t.Fatal(err)
	}
	written := map[string]string{}
	for _, file := range files {
		written["from manager init: "+file.Path] = file.Content
	}
	return written
}

func fileNamed(t *testing.T, path string) (content string, there bool) {
	t.Helper()
	if !filepath.IsLocal(path) {
		return "", false
	}
	data, err := os.ReadFile(filepath.Join(root(t), path))
	return string(data), err == nil
}
