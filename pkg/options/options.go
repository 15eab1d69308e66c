// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package options

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/validation/field"
	cliflag "k8s.io/component-base/cli/flag"
	"k8s.io/component-base/featuregate"
	logsapi "k8s.io/component-base/logs/api/v1"

	"github.com/incumbent-io/incumbent/pkg/controllers"
	"github.com/incumbent-io/incumbent/pkg/serving"
)

// The choices of --standby.
const (
	// StandbyWarm builds the controllers and syncs their caches before leading.
	StandbyWarm = "warm"
	// StandbyCold builds and caches nothing until the replica leads.
	StandbyCold = "cold"
)

// Options are the valid settings of a manager. Load makes them. Not safe for
// concurrent use.
type Options struct {
	name        string
	registry    *controllers.Registry
	args        []string
	file        *File
	config      string // --config
	client      client
	election    election
	serving     serving.Config
	profiling   bool
	tracing     tracing
	standby     string
	list        []string
	leaseGroups []leaseGroup
	fileGates   map[string]bool
	flagGates   map[string]bool
	features    featuregate.MutableVersionedFeatureGate
	logging     *logsapi.LoggingConfiguration
	controllers map[string]*controllers.Configured

	document *document // points into the fields above
	flags    cliflag.NamedFlagSets
	places   *places
	mistakes []error // of the file
	pinned   []string
	grouping *grouping
}

// Load returns the options of the manager called name: fresh defaults, over them the
// file, which may be nil, and over it the arguments, so that a flag that is given
// always wins. The name is also the default name of its Lease. The arguments are
// flags alone; --config among them is not followed.
//
// Load is pure: equal arguments give equal options. The error holds every mistake,
// one in each line. Options of controllers that are not enabled count too: a mistake
// in them would come to light at the worst time.
func Load(name string, registry *controllers.Registry, args []string, file *File) (*Options, error) {
	o := newOptions(name, registry)
	o.args, o.file = slices.Clone(args), file
	if file != nil {
		o.read(file)
	}
	inFile := o.document.settings()
	if err := o.parse(args); err != nil {
		return nil, err
	}
	o.mistakes = append(o.mistakes, o.resolveGates()...)
	o.grouping = o.group()
	if err := o.validate(); err != nil {
		return nil, err
	}
	o.pinned = o.pinnedFields(inFile)
	return o, nil
}

// newOptions returns the defaults. The flags are made here, before a file is read:
// some of them set their default when they are made.
func newOptions(name string, registry *controllers.Registry) *Options {
	o := &Options{
		name:        name,
		registry:    registry,
		client:      newClient(),
		election:    newElection(name),
		serving:     serving.Defaults(name, DefaultSecurePort),
		tracing:     newTracing(),
		standby:     StandbyWarm,
		list:        []string{"*"},
		features:    newGates(name, registry),
		logging:     logsapi.NewLoggingConfiguration(),
		controllers: map[string]*controllers.Configured{},
	}
	for _, name := range registry.Names() {
		registration, _ := registry.Lookup(name)
		o.controllers[name] = registration.Configure()
	}
	o.document = newDocument(o)
	o.addFlags()
	o.places = &places{flags: o.document.flags(), set: o.flagSet()}
	return o
}

// addFlags makes every flag, in its section.
func (o *Options) addFlags() {
	generic := o.flags.FlagSet("generic")
	generic.StringVar(&o.config, "config", o.config, "Path of a configuration file, YAML or JSON. A flag that is given wins over the file. The file is watched; what a running manager cannot take over from it needs a restart.")
	generic.StringSliceVar(&o.list, controllers.FlagControllers, o.list, fmt.Sprintf(
		`Controllers to run: "*" stands for all that are on by default, "foo" enables the controller foo, "-foo" disables it. All: %s. Disabled by default: %s.`,
		strings.Join(o.registry.Names(), ", "), cmp.Or(strings.Join(o.disabledByDefault(), ", "), "none")))
	addGatesFlag(o.features, &o.flagGates, generic)
	generic.StringVar(&o.standby, "standby", o.standby, `What a replica that does not lead holds ready: "warm" builds the controllers and fills their caches, so that it takes over at once, "cold" does neither until it leads, which saves memory and load on the API server.`)
	o.client.addFlags(o.flags.FlagSet("API client"))
	o.election.addFlags(o.flags.FlagSet("leader election"))
	o.serving.AddFlags(&o.flags)
	o.flags.FlagSet("secure serving").BoolVar(&o.profiling, "profiling", o.profiling, "Serve profiles of the process at /debug/pprof/, to those who may get that path.")
	o.tracing.addFlags(o.flags.FlagSet("traces"))
	addLoggingFlags(o.logging, o.flags.FlagSet("logs"))
	for _, name := range o.registry.Names() {
		mountFlags(o.controllers[name], o.flags.FlagSet(name+" controller"))
	}
}

// mountFlags adds a controller's flags under its name. Two flags of one name are a
// programmer's mistake and panic, as in pflag.
func mountFlags(controller *controllers.Configured, section *pflag.FlagSet) {
	own := pflag.NewFlagSet(controller.Name, pflag.ContinueOnError)
	controller.Options.AddFlags(own)
	own.VisitAll(func(flag *pflag.Flag) {
		flag.Name = controller.Name + "-" + flag.Name
		flag.Shorthand = ""
		section.AddFlag(flag)
	})
}

func (o *Options) disabledByDefault() (names []string) {
	for _, name := range o.registry.Names() {
		if o.controllers[name].DisabledByDefault {
			names = append(names, name)
		}
	}
	return names
}

// flagSet returns the flags of all sections.
func (o *Options) flagSet() *pflag.FlagSet {
	flags := pflag.NewFlagSet(o.name, pflag.ContinueOnError)
	flags.SetNormalizeFunc(cliflag.WordSepNormalizeFunc)
	for _, section := range o.flags.Order {
		flags.AddFlagSet(o.flags.FlagSets[section])
	}
	return flags
}

func (o *Options) parse(args []string) error {
	if err := o.places.set.Parse(args); err != nil {
		return err
	}
	if rest := o.places.set.Args(); len(rest) > 0 {
		return fmt.Errorf("unexpected argument %q; want flags alone", rest[0])
	}
	return nil
}

// validate returns every mistake, joined.
func (o *Options) validate() error {
	p := o.places
	errs := slices.Concat(
		o.mistakes,
		o.validateList(),
		o.validateStandby(),
		o.client.validate(p),
		o.election.validate(p),
		o.grouping.errs,
		o.validateFencing(),
		validateServing(o.serving, p),
		o.tracing.validate(p),
		o.features.Validate(),
		validateLogging(o.logging, o.features, p),
	)
	for _, name := range o.registry.Names() {
		path := field.NewPath(controllerOptionsPath, name)
		for _, mistake := range o.controllers[name].Options.Validate(path) {
			errs = append(errs, fmt.Errorf("%s: %s", p.of(mistake.Field), mistake.ErrorBody()))
		}
	}
	return errors.Join(few(errs)...)
}

// few returns the first mistakes: nobody reads more, and a file can hold very many.
func few(mistakes []error) []error {
	const most = 100
	if len(mistakes) <= most {
		return mistakes
	}
	return append(mistakes[:most], fmt.Errorf("and %d more mistakes", len(mistakes)-most))
}

func (o *Options) validateList() []error {
	_, mistakes := o.registry.Gate(o.list, o.features)
	for i, mistake := range mistakes {
		mistakes[i] = fmt.Errorf("%s: %w", o.places.of("controllers"), mistake)
	}
	return mistakes
}

func (o *Options) validateStandby() []error {
	choices := []string{StandbyWarm, StandbyCold}
	if slices.Contains(choices, o.standby) {
		return nil
	}
	return []error{fmt.Errorf("%s is not a choice; use one of %q", o.places.at("standby", o.standby), choices)}
}

// validateFencing refuses what the fencing policy cannot fence: it knows one lease.
func (o *Options) validateFencing() []error {
	groups := o.grouping.groups(keep)
	if !o.election.fencing || !o.election.LeaderElect || len(groups) < 2 {
		return nil
	}
	var names []string
	for _, group := range groups {
		names = append(names, group.Name)
	}
	return []error{fmt.Errorf("%s guards the writes of one leader, but there are %d lease groups (%s); put all controllers into one by leaseGroups, or run each group in a Deployment of its own",
		o.places.of("fencing"), len(groups), strings.Join(names, ", "))}
}

// pinnedFields says which fields the file sets to another value than the flag that
// wins over it. inFile are the settings before the flags were parsed.
func (o *Options) pinnedFields(inFile []setting) (pinned []string) {
	say := func(path, flag, file, value string) {
		pinned = append(pinned, fmt.Sprintf("%s: the file says %s, but --%s sets %s", path, file, flag, value))
	}
	for i, now := range o.document.settings() {
		before := inFile[i]
		if o.places.lines[now.path] == 0 || before.value == now.value || now.path == gatesPath {
			continue
		}
		name := "..." // a flag of a controller that is called unlike its field
		if flag := o.places.pinned(now.path); flag != nil {
			name = flag.Name
		}
		say(now.path, name, before.value, now.value)
	}
	for _, name := range o.gateNames() {
		file, set := o.fileGates[name]
		if flag, given := o.flagGates[name]; set && given && file != flag {
			say(join(gatesPath, name), "feature-gates", fmt.Sprint(file), fmt.Sprint(flag))
		}
	}
	return pinned
}
