// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package options

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// secretive matches the names of options whose value may be a secret. Secrets belong
// into files and Secrets, never into options; but the options are their authors'.
var secretive = regexp.MustCompile(`(?i)(password|passwd|passphrase|secret|token|credential|private_?key|api_?key|access_?key)$`)

// masked stands for a value that is not shown.
const masked = "***"

// Effective returns the settings in force in the shape of the configuration file,
// ready for JSON. A controller's option whose name sounds like a secret shows only
// whether it is set.
func (c *Config) Effective() map[string]any {
	tree := map[string]any{"apiVersion": APIVersion, "kind": Kind}
	for _, s := range c.running {
		path := strings.Split(s.path, ".")
		node := tree
		for _, name := range path[:len(path)-1] {
			child, ok := node[name].(map[string]any)
			if !ok {
				child = map[string]any{}
				node[name] = child
			}
			node = child
		}
		node[path[len(path)-1]] = revealed(s, path)
	}
	return tree
}

func revealed(s setting, path []string) json.RawMessage {
	empty := slices.Contains([]string{`""`, "null", "[]", "{}", "0"}, s.value)
	if path[0] == controllerOptionsPath && !empty && secretive.MatchString(path[len(path)-1]) {
		return json.RawMessage(`"` + masked + `"`)
	}
	return json.RawMessage(s.value)
}

// FlagValues returns every flag with its value in this process, by its name. One that
// is annotated as classified, or whose name sounds like a secret, is masked.
func (c *Config) FlagValues() map[string]string {
	values := map[string]string{}
	for _, section := range c.options.flags.FlagSets {
		section.VisitAll(func(flag *pflag.Flag) {
			value := flag.Value.String()
			classified := flag.Annotations["classified"] != nil || secretive.MatchString(strings.ReplaceAll(flag.Name, "-", "_"))
			if classified && value != "" {
				value = masked
			}
			values[flag.Name] = value
		})
	}
	return values
}
