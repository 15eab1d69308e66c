// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package options

import (
	"github.com/spf13/pflag"
	cliflag "k8s.io/component-base/cli/flag"

	"github.com/incumbent-io/incumbent/pkg/controllers"
)

// CommandLine is the flags of a manager, for a command to parse. Which file they are
// to win over is known only after they have been parsed, so it keeps them as they
// were given, and Load parses them again. Not safe for concurrent use.
type CommandLine struct {
	name     string
	registry *controllers.Registry
	options  *Options // for the flags' names, types and help texts alone
	args     []string
}

// NewCommandLine returns the command line of the manager called name.
func NewCommandLine(name string, registry *controllers.Registry) *CommandLine {
	c := &CommandLine{name: name, registry: registry, options: newOptions(name, registry)}
	c.options.places.set.VisitAll(func(flag *pflag.Flag) {
		flag.Value = &recorder{Value: flag.Value, name: flag.Name, args: &c.args}
		if flag.DefValue == "[]" || flag.DefValue == "0s" {
			flag.DefValue = "" // the help text leaves zero out, but knows it only by pflag's own types
		}
	})
	return c
}

// Flags returns every flag in its section, for --help and to be parsed once.
func (c *CommandLine) Flags() cliflag.NamedFlagSets { return c.options.flags }

// Args returns the flags that were parsed so far, in their order.
func (c *CommandLine) Args() []string { return c.args }

// Load reads the configuration file, if --config was given, and returns the options.
func (c *CommandLine) Load() (*Options, error) {
	var file *File
	if c.options.places.set.Lookup("config").Changed {
		var err error
		if file, err = ReadFile(c.options.config); err != nil {
			return nil, err
		}
	}
	return Load(c.name, c.registry, c.args, file)
}

// recorder is a flag that keeps what it is given.
type recorder struct {
	pflag.Value
	name string
	args *[]string
}

// Set implements pflag.Value.
func (r *recorder) Set(value string) error {
	err := r.Value.Set(value)
	if err == nil {
		*r.args = append(*r.args, "--"+r.name+"="+value)
	}
	return err
}
