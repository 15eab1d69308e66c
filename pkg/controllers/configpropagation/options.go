// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package configpropagation

import (
	"fmt"
	"strings"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/incumbent-io/incumbent/pkg/controllers"
)

const maxWorkers = 100

// Options are the settings of the controller.
type Options struct {
	// Secrets has Secrets copied, too. Default: false, and Secrets are neither watched
	// nor read.
	Secrets bool `json:"secrets"`
	// SourceNamespaces are the namespaces whose ConfigMaps and Secrets are copied.
	// Default: none are named, and it is those of all namespaces.
	SourceNamespaces []string `json:"sourceNamespaces"`
	// Workers is how many copies are written at the same time, 1 to 100. Default: 4.
	Workers int `json:"workers"`
}

var _ controllers.Options = (*Options)(nil)

func defaults() *Options { return &Options{Workers: 4} }

// AddFlags implements controllers.Options.
func (o *Options) AddFlags(flags *pflag.FlagSet) {
	flags.BoolVar(&o.Secrets, "secrets", o.Secrets, "Whether Secrets are copied, too. If not, Secrets are neither watched nor read.")
	flags.StringSliceVar(&o.SourceNamespaces, "source-namespaces", o.SourceNamespaces,
		"The namespaces whose ConfigMaps and Secrets are copied, separated by commas. If none is named, those of all namespaces are.")
	flags.IntVar(&o.Workers, "workers", o.Workers, fmt.Sprintf("How many copies are written at the same time, 1 to %d.", maxWorkers))
}

// Validate implements controllers.Options.
func (o *Options) Validate(path *field.Path) field.ErrorList {
	var errs field.ErrorList
	seen := map[string]bool{}
	for i, name := range o.SourceNamespaces {
		at := path.Child("sourceNamespaces").Index(i)
		if problems := validation.IsDNS1123Label(name); len(problems) > 0 {
			errs = append(errs, field.Invalid(at, name, "want the name of a namespace, for example platform: "+strings.Join(problems, "; ")))
		} else if seen[name] {
			errs = append(errs, field.Duplicate(at, name))
		}
		seen[name] = true
	}
	if o.Workers < 1 || o.Workers > maxWorkers {
		errs = append(errs, field.Invalid(path.Child("workers"), o.Workers, fmt.Sprintf("want a number from 1 to %d, for example 4", maxWorkers)))
	}
	return errs
}
