// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package options

import (
	"fmt"

	"github.com/spf13/pflag"
	"k8s.io/component-base/featuregate"
	logsapi "k8s.io/component-base/logs/api/v1"
)

func addLoggingFlags(logging *logsapi.LoggingConfiguration, section *pflag.FlagSet) {
	logsapi.AddFlags(logging, section)
	vmodule := section.Lookup("vmodule")
	vmodule.Value = &replacing{Value: vmodule.Value, clear: func() { logging.VModule = nil }}
}

// replacing is a flag that collects its values. The first one replaces what was there
// before, that is the file's, as with every other flag.
type replacing struct {
	pflag.Value
	clear func()
	given bool
}

// Set implements pflag.Value.
func (r *replacing) Set(value string) error {
	if !r.given {
		r.given = true
		r.clear()
	}
	return r.Value.Set(value)
}

func validateLogging(logging *logsapi.LoggingConfiguration, features featuregate.FeatureGate, p *places) (errs []error) {
	for _, mistake := range logsapi.Validate(logging, features, nil) {
		path := "logging." + mistake.Field
		if path == "logging.format" && mistake.Detail == "Unsupported log format" {
			errs = append(errs, fmt.Errorf("%s is not supported; use text or json", p.at(path, logging.Format)))
			continue
		}
		errs = append(errs, fmt.Errorf("%s: %s", p.of(path), mistake.ErrorBody()))
	}
	return errs
}
