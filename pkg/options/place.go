// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package options

import (
	"fmt"
	"regexp"
	"strings"
	"unicode"

	"github.com/spf13/pflag"
)

// places knows where each setting was made, so that a message sends its reader there:
// to the flag that was given, else to the file, else to the flag that would do.
type places struct {
	file  string            // "" without a file
	lines map[string]int    // path -> line, of what the file sets
	flags map[string]string // path -> the flag for it, without "--"
	set   *pflag.FlagSet    // which flags were given
}

// flagFor returns the flag for a field, or nil: that of the tag, or for the options of
// a controller the one of the same name.
func (p *places) flagFor(path string) *pflag.Flag {
	path, _, _ = strings.Cut(path, "[")
	name := p.flags[path]
	if name == "" {
		if rest, ok := strings.CutPrefix(path, controllerOptionsPath+"."); ok {
			controller, field, _ := strings.Cut(rest, ".")
			name = controller + "-" + kebab(field)
		}
	}
	return p.set.Lookup(name)
}

// pinned returns the flag that was given for a field, or nil.
func (p *places) pinned(path string) *pflag.Flag {
	if flag := p.flagFor(path); flag != nil && flag.Changed {
		return flag
	}
	return nil
}

// of returns where the field is set.
func (p *places) of(path string) string {
	flag := p.pinned(path)
	if flag == nil && p.file == "" {
		flag = p.flagFor(path)
	}
	switch {
	case flag != nil:
		return "--" + flag.Name
	case p.file == "":
		return path
	}
	if line := p.line(path); line > 0 {
		return fmt.Sprintf("%s:%d: %s", p.file, line, path)
	}
	return p.file + ": " + path
}

// at returns where the field is set and its value.
func (p *places) at(path string, value any) string {
	place := p.of(path)
	if s, ok := value.(fmt.Stringer); ok {
		value = s.String()
	} else if s, ok := value.(string); ok {
		value = fmt.Sprintf("%q", s)
	}
	if strings.HasPrefix(place, "--") {
		return fmt.Sprintf("%s=%v", place, value)
	}
	return fmt.Sprintf("%s: %v", place, value)
}

// hint returns how the field is set to another value: as a flag or as in the file,
// whichever is in use.
func (p *places) hint(path, value string) string {
	if p.file == "" || p.pinned(path) != nil {
		return "--" + p.flagFor(path).Name + "=" + value
	}
	return path + ": " + value
}

// line returns the line of a field, or of the item of a list that it belongs to. 0
// means that the file says nothing about it.
func (p *places) line(path string) int {
	for {
		if line := p.lines[path]; line > 0 {
			return line
		}
		end := strings.LastIndexAny(path, ".[")
		if end < 0 || path[end] == '.' && !strings.HasSuffix(path[:end], "]") {
			return 0
		}
		path = path[:end]
	}
}

var wordStart = regexp.MustCompile(`([a-z0-9])([A-Z])`)

// kebab turns a field's name into a flag's: "maxAge" into "max-age".
func kebab(name string) string {
	name = wordStart.ReplaceAllString(name, "$1-$2")
	return strings.Map(unicode.ToLower, strings.ReplaceAll(name, ".", "-"))
}
