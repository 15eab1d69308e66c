// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package options

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/component-base/featuregate"
	logsapi "k8s.io/component-base/logs/api/v1"
	tracingapi "k8s.io/component-base/tracing/api/v1"

	"github.com/incumbent-io/incumbent/pkg/controllers"
	"github.com/incumbent-io/incumbent/pkg/leaderelection"
	"github.com/incumbent-io/incumbent/pkg/serving"
)

// Config is what manager.Run needs: complete and consistent.
type Config struct {
	// Name is the manager's name, in logs and user agents.
	Name string
	// File is the configuration file that it was made from; nil without one.
	File *File
	// REST reaches the API server. Its rate limiter, if any, is shared by all
	// controllers.
	REST *rest.Config
	// Election tells how the leader of each group is elected.
	Election Election
	// Groups are the lease groups that registered controllers belong to, the default
	// group first, then by name. They mean nothing if Election.Enabled is false.
	Groups []Group
	// Standby is StandbyWarm or StandbyCold.
	Standby string
	// Pod is where the process runs.
	Pod Pod
	// Namespace is what controllers.OwnNamespace stands for: the Pod's namespace, or
	// else that of the kubeconfig file.
	Namespace string
	// Controllers are all registered controllers, each after all that it needs.
	Controllers []Controller
	// Serving says where and to whom is served; nil serves nothing.
	Serving *serving.Config
	// Tracing says where spans are sent; nil traces nothing.
	Tracing *tracingapi.TracingConfiguration
	// Profiling serves profiles of the process, too.
	Profiling bool
	// Logging is applied once per process, by manager.Main.
	Logging *logsapi.LoggingConfiguration
	// ApplyLogging, if not nil, changes the verbosity of the whole process when that of
	// the configuration file changes.
	ApplyLogging func(*logsapi.LoggingConfiguration) error
	// Features are the feature gates of this manager.
	Features featuregate.FeatureGate
	// Abort, if not nil, ends the process's work at once when it is closed: the
	// fence shuts and the lease is not released.
	Abort <-chan struct{}

	options *Options // what it was completed from
	getenv  func(string) string
	running []setting // the settings that are in effect
}

// Controller is a registered controller with its options, and its gate.
type Controller struct {
	*controllers.Configured
	Decision controllers.Decision
}

// Election tells how a leader is elected. It holds for every lease group.
type Election struct {
	// Enabled is false for --leader-elect=false: the controllers run at once, and
	// nothing keeps another replica from running them too.
	Enabled bool
	Timing  leaderelection.Timing
	OnLost  leaderelection.OnLost
	// IdentityDir keeps the identity over restarts of the container; "" does not.
	IdentityDir string
	// DrainTimeout bounds the stop of all controllers.
	DrainTimeout time.Duration
	// Fencing says that the fencing policy guards the writes, too. There is one
	// group at most then.
	Fencing bool
}

// Pod identifies the Pod of the process. All fields are empty outside a Pod.
type Pod struct{ Name, Namespace, UID string }

// Enabled returns the controllers to run, each after all that it needs.
func (c *Config) Enabled() (enabled []*controllers.Configured) {
	for _, controller := range c.Controllers {
		if controller.Decision.Enabled {
			enabled = append(enabled, controller.Configured)
		}
	}
	return enabled
}

// Reload returns the configuration that the same process would start with, were the
// file's content as given; nil stands for no file. It changes nothing in c, which
// Compare compares it with. The error holds every mistake.
func (c *Config) Reload(file *File) (*Config, error) {
	next, err := Load(c.options.name, c.options.registry, c.options.args, file)
	if err != nil {
		return nil, err
	}
	return next.Complete(c.getenv)
}

// Complete returns what manager.Run needs. It reads the kubeconfig file; getenv reads
// the environment (os.Getenv): POD_NAME, POD_NAMESPACE and POD_UID. Call it once.
func (o *Options) Complete(getenv func(string) string) (*Config, error) {
	running := o.settings() // before anything is filled in
	config, namespace, err := o.client.restConfig(o.name)
	if err != nil {
		return nil, err
	}
	pod := Pod{Name: getenv("POD_NAME"), Namespace: getenv("POD_NAMESPACE"), UID: getenv("POD_UID")}
	namespace = cmp.Or(pod.Namespace, namespace, "default")
	groups, err := o.completeGroups(namespace)
	if err != nil {
		return nil, err
	}
	c := &Config{
		Name: o.name,
		File: o.file,
		REST: config,
		Election: Election{
			Enabled:      o.election.LeaderElect,
			Timing:       o.election.timing(),
			OnLost:       leaderelection.OnLost(o.election.onLost),
			IdentityDir:  o.election.identityDir,
			DrainTimeout: o.election.drainTimeout.Duration,
			Fencing:      o.election.fencing,
		},
		Groups:      groups,
		Standby:     o.standby,
		Pod:         pod,
		Namespace:   namespace,
		Controllers: o.completeControllers(),
		Serving:     o.completeServing(config),
		Profiling:   o.profiling,
		Tracing:     o.tracing.complete(),
		Logging:     o.logging,
		Features:    o.features,
		options:     o,
		getenv:      getenv,
		running:     running,
	}
	if c.Election.Fencing {
		if err := c.fenceable(); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// completeGroups fills in the namespace of each lease. Two leases that differed until
// then may turn out to be one.
func (o *Options) completeGroups(namespace string) ([]Group, error) {
	groups := o.grouping.groups(func(own string) string { return cmp.Or(own, namespace) })
	o.grouping.checkLeases(groups)
	return groups, errors.Join(o.grouping.errs...)
}

// completeControllers returns all controllers in their order of start.
func (o *Options) completeControllers() []Controller {
	order, err := o.registry.StartOrder()
	if err != nil {
		panic(err) // NewRegistry has checked it
	}
	decisions := o.decisions(o.features)
	list := make([]Controller, len(order))
	for i, name := range order {
		o.controllers[name].LeaseGroup = o.grouping.of[name]
		list[i] = Controller{Configured: o.controllers[name], Decision: decisions[name]}
	}
	return list
}

// fenceable tells why the fencing policy, which lets the leader's Pod alone write,
// does not fit. It compares Pods, so the process must be one and know it; and it
// would refuse what a controller on every replica writes.
func (c *Config) fenceable() error {
	var errs []error
	place := c.options.places.of("fencing")
	if c.Pod.Name == "" || c.Pod.UID == "" {
		errs = append(errs, fmt.Errorf("%s needs the environment variables POD_NAME (%q) and POD_UID (%q): set them by the downward API, as manifests/base does", place, c.Pod.Name, c.Pod.UID))
	}
	for _, controller := range c.Enabled() {
		if writes := unfenced(controller); writes != "" {
			errs = append(errs, fmt.Errorf("%s lets only the leader write, but controller %q runs on every replica and needs %s; run it in a Deployment of its own with its own service account, or disable it", place, controller.Name, writes))
		}
	}
	return errors.Join(errs...)
}

// unfenced returns what a controller writes without leading, "" if nothing.
func unfenced(controller *controllers.Configured) string {
	var writes []string
	if controller.EveryReplica {
		for _, access := range controller.Access() {
			if verbs := access.WriteVerbs(); len(verbs) > 0 {
				writes = append(writes, strings.Join(verbs, ", ")+" on "+access.Resource.Resource)
			}
		}
	}
	return strings.Join(writes, "; ")
}
