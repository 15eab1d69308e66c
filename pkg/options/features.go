// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package options

import (
	"fmt"
	"maps"
	"slices"

	"github.com/spf13/pflag"
	cliflag "k8s.io/component-base/cli/flag"
	"k8s.io/component-base/featuregate"
	logsapi "k8s.io/component-base/logs/api/v1"

	"github.com/incumbent-io/incumbent/pkg/controllers"
)

const gatesPath = "featureGates"

// newGates returns the feature gates of a manager with their defaults.
func newGates(name string, registry *controllers.Registry) featuregate.MutableVersionedFeatureGate {
	gates := featuregate.NewFeatureGate()
	for _, err := range []error{
		logsapi.AddFeatureGates(gates),
		gates.Add(registry.FeatureGates()),
	} {
		if err != nil {
			panic(fmt.Sprintf("manager %q: feature gates: %v", name, err)) // a gate declared twice: a programmer's mistake
		}
	}
	return gates
}

// addGatesFlag adds --feature-gates, which fills the map alone: file and flag are
// resolved together, because AllAlpha and AllBeta give way to what is set by name.
func addGatesFlag(gates featuregate.MutableVersionedFeatureGate, into *map[string]bool, section *pflag.FlagSet) {
	gates.AddFlag(section)
	section.Lookup("feature-gates").Value = cliflag.NewMapStringBool(into)
}

// resolveGates sets the gates as the file says, and over it the flag.
func (o *Options) resolveGates() (errs []error) {
	wanted := map[string]bool{}
	for _, source := range []struct {
		gates map[string]bool
		place func(name string) string
	}{
		{o.fileGates, func(name string) string { return o.places.of(join(gatesPath, name)) }},
		{o.flagGates, func(string) string { return "--feature-gates" }},
	} {
		for _, name := range slices.Sorted(maps.Keys(source.gates)) {
			on := source.gates[name]
			switch spec, known := o.features.GetAll()[featuregate.Feature(name)]; {
			case !known:
				errs = append(errs, fmt.Errorf("%s: %s", source.place(name), unknown("feature gate", name, o.gateNames())))
			case spec.LockToDefault && spec.Default != on:
				errs = append(errs, fmt.Errorf("%s: the feature gate %s is locked to %t; leave it out", source.place(name), name, spec.Default))
			default:
				wanted[name] = on
			}
		}
	}
	if err := o.features.SetFromMap(wanted); err != nil {
		errs = append(errs, fmt.Errorf("%s: %w", o.places.of(gatesPath), err))
	}
	return errs
}

func (o *Options) gateNames() []string {
	var names []string
	for name := range o.features.GetAll() {
		names = append(names, string(name))
	}
	slices.Sort(names)
	return names
}
