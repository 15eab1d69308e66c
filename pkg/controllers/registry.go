// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package controllers

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/component-base/featuregate"
)

// Registry is the init-function map: every controller that a manager can run, by
// name. It does not change after NewRegistry and is safe for concurrent use.
type Registry struct {
	byName    map[string]Registration
	canonical map[string]string // name or alias -> name
	features  map[featuregate.Feature]featuregate.FeatureSpec
}

// NewRegistry registers controllers. It panics on a programmer's mistake: a nil
// registration, a bad or duplicate name or alias, a need that nobody answers to or
// that lies in another lease group, a cycle of needs, or one feature gate declared in
// two ways.
func NewRegistry(registrations ...Registration) *Registry {
	r := &Registry{
		byName:    map[string]Registration{},
		canonical: map[string]string{},
		features:  map[featuregate.Feature]featuregate.FeatureSpec{},
	}
	for i, registration := range registrations {
		if err := r.add(registration); err != nil {
			panic(fmt.Sprintf("controllers.NewRegistry: registration %d: %v", i, err))
		}
	}
	_, err := r.StartOrder()
	if err == nil {
		err = r.CheckGroups(func(name string) string { return r.byName[name].Info().LeaseGroup })
	}
	if err != nil {
		panic("controllers.NewRegistry: " + err.Error())
	}
	return r
}

func (r *Registry) add(registration Registration) error {
	if registration == nil {
		return fmt.Errorf("is nil")
	}
	if err := registration.check(); err != nil {
		return err
	}
	info := registration.Info()
	for _, name := range append([]string{info.Name}, info.Aliases...) {
		if owner, taken := r.canonical[name]; taken {
			return fmt.Errorf("controller %q: the name or alias %q is taken by controller %q", info.Name, name, owner)
		}
		r.canonical[name] = info.Name
	}
	for feature, spec := range info.FeatureGates {
		if known, declared := r.features[feature]; declared && known != spec {
			return fmt.Errorf("controller %q declares the feature gate %q differently than another controller", info.Name, feature)
		}
		r.features[feature] = spec
	}
	r.byName[info.Name] = registration
	return nil
}

// Names returns the names of all controllers, sorted.
func (r *Registry) Names() []string { return slices.Sorted(maps.Keys(r.byName)) }

// Lookup returns the controller with that name or alias.
func (r *Registry) Lookup(nameOrAlias string) (Registration, bool) {
	registration, ok := r.byName[r.canonical[nameOrAlias]]
	return registration, ok
}

// FeatureGates returns the feature gates that the controllers declare.
func (r *Registry) FeatureGates() map[featuregate.Feature]featuregate.FeatureSpec {
	return maps.Clone(r.features)
}

// StartOrder returns all names so that each stands after everything that it needs;
// where needs leave a choice, by name. An unknown need and a cycle are errors that
// name both ends.
func (r *Registry) StartOrder() ([]string, error) {
	const visiting, done = 1, 2
	state := map[string]int{}
	var order, path []string
	var visit func(name string) error
	visit = func(name string) error {
		switch state[name] {
		case done:
			return nil
		case visiting:
			cycle := append(path[slices.Index(path, name):], name)
			return fmt.Errorf("controllers need each other in a circle: %s", strings.Join(cycle, " needs "))
		}
		state[name] = visiting
		path = append(path, name)
		needs := r.byName[name].Info().Needs
		slices.Sort(needs)
		for _, need := range needs {
			if _, known := r.byName[need]; !known {
				return fmt.Errorf("controller %q needs %q, which is not the name of a registered controller", name, need)
			}
			if err := visit(need); err != nil {
				return err
			}
		}
		path = path[:len(path)-1]
		state[name] = done
		order = append(order, name)
		return nil
	}
	for _, name := range r.Names() {
		if err := visit(name); err != nil {
			return nil, err
		}
	}
	return order, nil
}

// CheckGroups returns an error that names both ends of a need across lease groups,
// given the lease group of each controller ("" for those on every replica): such
// controllers start and stop with different leaders, so no order between them exists.
func (r *Registry) CheckGroups(group func(name string) string) error {
	describe := func(name string) string {
		if group(name) == "" {
			return fmt.Sprintf("%q (on every replica)", name)
		}
		return fmt.Sprintf("%q in the lease group %q", name, group(name))
	}
	for _, name := range r.Names() {
		for _, need := range r.byName[name].Info().Needs {
			if group(name) != group(need) {
				return fmt.Errorf("controller %s needs controller %s; put both into one lease group", describe(name), describe(need))
			}
		}
	}
	return nil
}
