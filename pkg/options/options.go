// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package options

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/validation/field"
	genericoptions "k8s.io/apiserver/pkg/server/options"
	"k8s.io/client-go/rest"
	cliflag "k8s.io/component-base/cli/flag"
	"k8s.io/component-base/featuregate"
	logsapi "k8s.io/component-base/logs/api/v1"

	"github.com/incumbent-io/incumbent/pkg/controllers"
	"github.com/incumbent-io/incumbent/pkg/leaderelection"
)

// DefaultSecurePort is where health is served by default, over HTTPS.
const DefaultSecurePort = 10257

// Options are the settings of a manager as its user gave them. Use New, then parse
// the Flags. Not safe for concurrent use.
type Options struct {
	name        string
	registry    *controllers.Registry
	client      client
	election    election
	serving     *genericoptions.SecureServingOptions
	list        []string
	features    featuregate.MutableVersionedFeatureGate
	logging     *logsapi.LoggingConfiguration
	controllers map[string]*controllers.Configured
}

// Config is what manager.Run needs: complete and consistent.
type Config struct {
	// Name is the manager's name, in logs and user agents.
	Name string
	// REST reaches the API server. Its rate limiter, if any, is shared by all
	// controllers.
	REST *rest.Config
	// Election tells how the leader is elected.
	Election Election
	// Pod is where the process runs.
	Pod Pod
	// Decisions has one entry for every registered controller, sorted by name.
	Decisions []controllers.Decision
	// Enabled are the controllers to run, each after all that it needs.
	Enabled []*controllers.Configured
	// Serving is where health is served; nil serves nothing.
	Serving *genericoptions.SecureServingOptions
	// Logging is applied once per process, by manager.Main.
	Logging *logsapi.LoggingConfiguration
	// Features are the feature gates of this manager.
	Features featuregate.FeatureGate
	// Abort, if not nil, ends the process's work at once when it is closed: the
	// fence shuts and the lease is not released.
	Abort <-chan struct{}
}

// Pod identifies the Pod of the process. All fields are empty outside a Pod.
type Pod struct{ Name, Namespace, UID string }

// New returns the default options of the manager called name. The name is also the
// default name of its Lease.
func New(name string, registry *controllers.Registry) *Options {
	o := &Options{
		name:        name,
		registry:    registry,
		client:      newClient(),
		election:    newElection(name),
		serving:     genericoptions.NewSecureServingOptions(),
		list:        []string{"*"},
		features:    featuregate.NewFeatureGate(),
		logging:     logsapi.NewLoggingConfiguration(),
		controllers: map[string]*controllers.Configured{},
	}
	o.serving.BindPort = DefaultSecurePort
	o.serving.ServerCert = genericoptions.GeneratableKeyCert{PairName: name} // in memory unless --cert-dir says otherwise
	for _, err := range []error{
		logsapi.AddFeatureGates(o.features),
		o.features.Add(registry.FeatureGates()),
	} {
		if err != nil {
			panic(fmt.Sprintf("manager %q: feature gates: %v", name, err)) // a gate declared twice: a programmer's mistake
		}
	}
	for _, name := range registry.Names() {
		registration, _ := registry.Lookup(name)
		o.controllers[name] = registration.Configure()
	}
	return o
}

// Flags returns every flag in its section. Parsing them changes o.
func (o *Options) Flags() cliflag.NamedFlagSets {
	var sections cliflag.NamedFlagSets
	generic := sections.FlagSet("generic")
	generic.StringSliceVar(&o.list, controllers.FlagControllers, o.list, fmt.Sprintf(
		`Controllers to run: "*" stands for all that are on by default, "foo" enables the controller foo, "-foo" disables it. All: %s. Disabled by default: %s.`,
		strings.Join(o.registry.Names(), ", "), cmp.Or(strings.Join(o.disabledByDefault(), ", "), "none")))
	o.features.AddFlag(generic)
	o.client.addFlags(sections.FlagSet("API client"))
	o.election.addFlags(sections.FlagSet("leader election"))
	o.serving.AddFlags(sections.FlagSet("secure serving"))
	logsapi.AddFlags(o.logging, sections.FlagSet("logs"))
	for _, name := range o.registry.Names() {
		mountFlags(o.controllers[name], sections.FlagSet(name+" controller"))
	}
	return sections
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

// Decisions returns the gate of every controller, or every mistake in --controllers.
func (o *Options) Decisions() ([]controllers.Decision, error) {
	decisions, mistakes := o.registry.Gate(o.list, o.features)
	for i, mistake := range mistakes {
		mistakes[i] = fmt.Errorf("--%s: %w", controllers.FlagControllers, mistake)
	}
	return decisions, errors.Join(mistakes...)
}

// Row is a controller and its gate, for people and scripts.
type Row struct {
	controllers.Decision
	Summary string   `json:"summary"`
	Aliases []string `json:"aliases,omitempty"`
	Needs   []string `json:"needs,omitempty"`
}

// Table returns a row for every registered controller, sorted by name.
func (o *Options) Table() ([]Row, error) {
	decisions, err := o.Decisions()
	rows := make([]Row, len(decisions))
	for i, decision := range decisions {
		info := o.controllers[decision.Name].Info
		rows[i] = Row{Decision: decision, Summary: info.Summary, Aliases: info.Aliases, Needs: info.Needs}
	}
	return rows, err
}

// Validate returns every mistake in the options, joined. Options of controllers that
// are not enabled count too: a mistake in them would come to light at the worst time.
func (o *Options) Validate() error {
	var errs []error
	if _, err := o.Decisions(); err != nil {
		errs = append(errs, err)
	}
	errs = append(errs, o.client.validate()...)
	errs = append(errs, o.election.validate()...)
	errs = append(errs, o.serving.Validate()...)
	errs = append(errs, o.features.Validate()...)
	if err := logsapi.Validate(o.logging, o.features, nil).ToAggregate(); err != nil {
		errs = append(errs, fmt.Errorf("logging flags: %w", err))
	}
	for _, name := range o.registry.Names() {
		if err := o.controllers[name].Options.Validate(field.NewPath("controllers").Key(name)).ToAggregate(); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Complete validates the options and returns what manager.Run needs. getenv reads
// the environment (os.Getenv): POD_NAME, POD_NAMESPACE and POD_UID.
func (o *Options) Complete(getenv func(string) string) (*Config, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	decisions, err := o.Decisions()
	if err != nil {
		return nil, err
	}
	config, namespace, err := o.client.restConfig(o.name)
	if err != nil {
		return nil, err
	}
	pod := Pod{Name: getenv("POD_NAME"), Namespace: getenv("POD_NAMESPACE"), UID: getenv("POD_UID")}
	enabled := o.enabled(decisions)
	if o.election.fencing {
		if err := fenceable(pod, enabled); err != nil {
			return nil, err
		}
	}
	return &Config{
		Name: o.name,
		REST: config,
		Election: Election{
			Enabled:      o.election.LeaderElect,
			Namespace:    cmp.Or(o.election.ResourceNamespace, pod.Namespace, namespace, "default"),
			LeaseName:    o.election.ResourceName,
			Timing:       o.election.timing(),
			OnLost:       leaderelection.OnLost(o.election.onLost),
			IdentityDir:  o.election.identityDir,
			DrainTimeout: o.election.drainTimeout,
			Fencing:      o.election.fencing,
		},
		Pod:       pod,
		Decisions: decisions,
		Enabled:   enabled,
		Serving:   o.completeServing(),
		Logging:   o.logging,
		Features:  o.features,
	}, nil
}

// enabled returns the enabled controllers in their order of start.
func (o *Options) enabled(decisions []controllers.Decision) (list []*controllers.Configured) {
	order, err := o.registry.StartOrder()
	if err != nil {
		panic(err) // NewRegistry has checked it
	}
	for _, name := range order {
		if slices.ContainsFunc(decisions, func(d controllers.Decision) bool { return d.Name == name && d.Enabled }) {
			list = append(list, o.controllers[name])
		}
	}
	return list
}

// fenceable tells why the fencing policy, which lets the leader's Pod alone write,
// does not fit. It compares Pods, so the process must be one and know it; and it
// would refuse what a controller on every replica writes.
func fenceable(pod Pod, enabled []*controllers.Configured) error {
	var errs []error
	if pod.Name == "" || pod.UID == "" {
		errs = append(errs, fmt.Errorf("--fencing needs the environment variables POD_NAME (%q) and POD_UID (%q): set them by the downward API, as manifests/base does", pod.Name, pod.UID))
	}
	for _, controller := range enabled {
		if !controller.EveryReplica {
			continue
		}
		for _, access := range controller.Access() {
			if verbs := access.WriteVerbs(); len(verbs) > 0 {
				errs = append(errs, fmt.Errorf("--fencing lets only the leader write, but controller %q runs on every replica and needs %s on %s; run it in a Deployment of its own with its own service account, or disable it", controller.Name, strings.Join(verbs, ", "), access.Resource.Resource))
			}
		}
	}
	return errors.Join(errs...)
}

func (o *Options) completeServing() *genericoptions.SecureServingOptions {
	if o.serving.BindPort == 0 {
		return nil
	}
	if o.serving.BindAddress == nil {
		o.serving.BindAddress = net.IPv4zero
	}
	return o.serving
}
