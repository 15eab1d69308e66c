// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package controllers

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/component-base/featuregate"
)

// Options are the settings of one controller. JSON tags name its fields in the
// configuration file.
type Options interface {
	// AddFlags adds the controller's flags, with the current values as defaults. A
	// flag "workers" of the controller "quota" is mounted as --quota-workers.
	AddFlags(flags *pflag.FlagSet)
	// Validate returns every mistake; path is where the options stand in the
	// configuration.
	Validate(path *field.Path) field.ErrorList
}

// NoOptions is for controllers that have no settings.
type NoOptions struct{}

// AddFlags adds nothing.
func (NoOptions) AddFlags(*pflag.FlagSet) {}

// Validate accepts.
func (NoOptions) Validate(*field.Path) field.ErrorList { return nil }

// Descriptor is the static description of a controller whose options are of type O.
// Name, Summary and Init are required, and Options unless O is NoOptions. The
// functions must be pure or, for Init, depend on its arguments alone: they are
// called once per build, in tests, and for subcommands that touch no cluster.
type Descriptor[O Options] struct {
	// Name is how the controller is called in flags, files, logs, metrics and
	// errors: lower-case words joined by "-".
	Name string
	// Summary is one sentence for people, shown by the controllers subcommand.
	Summary string
	// Aliases are former names; --controllers accepts them.
	Aliases []string
	// Needs names the controllers that start before this one and stop after it.
	// It is an order of start and stop only.
	Needs []string
	// DisabledByDefault leaves the controller out of "*".
	DisabledByDefault bool
	// EveryReplica runs the controller on every replica, without leading and
	// without a fence.
	EveryReplica bool
	// LeaseGroup names the lease group that the controller belongs to: the
	// controllers that share one lease, and so one leader. Empty means
	// DefaultLeaseGroup. The configuration file may say otherwise. It does not go
	// together with EveryReplica.
	LeaseGroup string
	// FeatureGates are declared to --feature-gates here; the controller is enabled
	// only if all of them are on.
	FeatureGates map[featuregate.Feature]featuregate.FeatureSpec
	// RestartCompleted starts the controller again after Run returned nil.
	RestartCompleted bool
	// Options returns fresh defaults.
	Options func() O
	// Access returns what the controller needs from the API server, given its
	// completed options. nil means nothing.
	Access func(options O) []Access
	// Init builds one Controller value for one run. It may be called before this
	// replica leads. ctx ends when that run has returned or the build is discarded.
	// It must not block on the API server; informers are synced for it afterwards.
	Init func(ctx context.Context, c *Context, options O) (Controller, error)
}

// Info is the part of a Descriptor that does not depend on its options.
type Info struct {
	Name, Summary                                     string
	Aliases, Needs                                    []string
	DisabledByDefault, EveryReplica, RestartCompleted bool
	FeatureGates                                      map[featuregate.Feature]featuregate.FeatureSpec
	// LeaseGroup is DefaultLeaseGroup where the descriptor says nothing, and empty
	// for a controller that runs on every replica.
	LeaseGroup string
}

// Registration is a Descriptor whose type of options has been forgotten. Only
// Descriptor implements it.
type Registration interface {
	// Info returns a copy of the static part.
	Info() Info
	// Configure returns the controller with fresh default options.
	Configure() *Configured

	check() error
}

// Configured is a controller with one set of options.
type Configured struct {
	// Info is the static part; its LeaseGroup is what the configuration made of it.
	Info
	// Options are this value's own; flags and files are decoded into them.
	Options Options

	access func() []Access
	init   func(context.Context, *Context) (Controller, error)
}

// Access returns what the controller needs, given its options.
func (c *Configured) Access() []Access { return c.access() }

// Init builds one Controller value for one run.
func (c *Configured) Init(ctx context.Context, cc *Context) (Controller, error) {
	controller, err := c.init(ctx, cc)
	if err == nil && controller == nil {
		return nil, fmt.Errorf("controller %q: Init returned neither a controller nor an error; to have nothing to do, return controllers.Skip(reason)", c.Name)
	}
	return controller, err
}

// Info implements Registration.
func (d Descriptor[O]) Info() Info {
	group := cmp.Or(d.LeaseGroup, DefaultLeaseGroup)
	if d.EveryReplica {
		group = ""
	}
	return Info{
		Name: d.Name, Summary: d.Summary,
		Aliases: slices.Clone(d.Aliases), Needs: slices.Clone(d.Needs), LeaseGroup: group,
		DisabledByDefault: d.DisabledByDefault, EveryReplica: d.EveryReplica, RestartCompleted: d.RestartCompleted,
		FeatureGates: maps.Clone(d.FeatureGates),
	}
}

// Configure implements Registration.
func (d Descriptor[O]) Configure() *Configured {
	var options O
	if d.Options != nil {
		options = d.Options()
	}
	return &Configured{
		Info:    d.Info(),
		Options: options,
		access: func() []Access {
			if d.Access == nil {
				return nil
			}
			return d.Access(options)
		},
		init: func(ctx context.Context, c *Context) (Controller, error) { return d.Init(ctx, c, options) },
	}
}

// DefaultLeaseGroup is the lease group of controllers that name none. Its Lease is
// the one that the leader-election flags name.
const DefaultLeaseGroup = "default"

var nameShape = regexp.MustCompile(`^[a-z]([-a-z0-9]*[a-z0-9])?$`)

// check returns a programmer's mistake in the descriptor alone.
func (d Descriptor[O]) check() error {
	for _, name := range append([]string{d.Name}, d.Aliases...) {
		if !nameShape.MatchString(name) {
			return fmt.Errorf("controller name or alias %q: want lower-case letters, digits and inner dashes (%s)", name, nameShape)
		}
	}
	if d.LeaseGroup != "" && !nameShape.MatchString(d.LeaseGroup) {
		return fmt.Errorf("controller %q: lease group %q: want lower-case letters, digits and inner dashes (%s)", d.Name, d.LeaseGroup, nameShape)
	}
	if d.LeaseGroup != "" && d.EveryReplica {
		return fmt.Errorf("controller %q runs on every replica and so belongs to no lease group, but names %q", d.Name, d.LeaseGroup)
	}
	if d.Summary == "" {
		return fmt.Errorf("controller %q has no Summary", d.Name)
	}
	if d.Init == nil {
		return fmt.Errorf("controller %q has no Init", d.Name)
	}
	if d.Options == nil && reflect.TypeFor[O]() != reflect.TypeFor[NoOptions]() {
		return fmt.Errorf("controller %q has no Options function; use controllers.NoOptions for a controller without settings", d.Name)
	}
	if d.Options != nil && reflect.TypeFor[O]().Kind() == reflect.Pointer && reflect.ValueOf(d.Options()).IsNil() {
		return fmt.Errorf("controller %q: Options returns nil", d.Name)
	}
	return nil
}
