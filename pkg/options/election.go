// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package options

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/pflag"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	componentbaseconfig "k8s.io/component-base/config"
	componentbaseoptions "k8s.io/component-base/config/options"

	"github.com/incumbent-io/incumbent/pkg/leaderelection"
)

// election holds the leader-election flags: component-base's, with its defaults,
// and the few that Incumbent adds.
type election struct {
	componentbaseconfig.LeaderElectionConfiguration
	onLost       string
	identityDir  string
	drainTimeout metav1.Duration
	fencing      bool
}

func newElection(name string) election {
	timing := leaderelection.Timing{}.WithDefaults()
	e := election{onLost: string(leaderelection.Rejoin), drainTimeout: metav1.Duration{Duration: 30 * time.Second}}
	e.LeaderElect = true
	e.LeaseDuration.Duration = timing.LeaseDuration
	e.RenewDeadline.Duration = timing.RenewDeadline
	e.RetryPeriod.Duration = timing.RetryPeriod
	e.ResourceLock = "leases"
	e.ResourceName = name
	return e
}

func (e *election) addFlags(flags *pflag.FlagSet) {
	componentbaseoptions.BindLeaderElectionFlags(&e.LeaderElectionConfiguration, flags)
	flags.StringVar(&e.onLost, "leader-elect-on-lost", e.onLost, `What to do when the lease is lost: "rejoin" stands by again in the same process once every controller has stopped, "exit" ends the process with code 1.`)
	flags.StringVar(&e.identityDir, "leader-elect-identity-dir", e.identityDir, "Directory, on a volume that lives as long as the Pod, in which the process keeps its identity, so that a restarted container takes its own lease over at once. Empty: a restarted container waits for the lease to expire, like any other candidate.")
	flags.BoolVar(&e.fencing, "fencing", e.fencing, "The fencing policy of manifests/components/fencing is installed: the first writes of a term ride out its lag, and what it cannot fence is refused at start. Needs POD_NAME and POD_UID.")
	flags.DurationVar(&e.drainTimeout.Duration, "drain-timeout", e.drainTimeout.Duration, "How long the controllers may take to stop when the process is asked to stop, before it exits with code 1 without releasing the lease. Keep it below the Pod's terminationGracePeriodSeconds.")
}

func (e *election) timing() leaderelection.Timing {
	timing := leaderelection.Timing{}.WithDefaults()
	timing.LeaseDuration = e.LeaseDuration.Duration
	timing.RenewDeadline = e.RenewDeadline.Duration
	timing.RetryPeriod = e.RetryPeriod.Duration
	return timing
}

// timingPaths names the field of the file behind each field of a Timing.
var timingPaths = map[string]string{
	"LeaseDuration": "leaderElection.leaseDuration",
	"RenewDeadline": "leaderElection.renewDeadline",
	"RetryPeriod":   "leaderElection.retryPeriod",
}

func (e *election) validate(p *places) (errs []error) {
	if e.drainTimeout.Duration <= 0 {
		errs = append(errs, fmt.Errorf("%s must be positive, for instance 30s", p.at("drainTimeout", e.drainTimeout.Duration)))
	}
	if !e.LeaderElect {
		if e.fencing {
			errs = append(errs, fmt.Errorf("%s needs a leader: use it with %s, or remove the fencing policy and this setting", p.of("fencing"), p.hint("leaderElection.leaderElect", "true")))
		}
		return errs
	}
	errs = append(errs, e.validateTiming(p)...)
	if e.ResourceLock != "leases" {
		errs = append(errs, fmt.Errorf(`%s is not supported; the only choice is "leases"`, p.at("leaderElection.resourceLock", e.ResourceLock)))
	}
	for _, problem := range validation.IsDNS1123Subdomain(e.ResourceName) {
		errs = append(errs, fmt.Errorf("%s is no name for a Lease: %s", p.at("leaderElection.resourceName", e.ResourceName), problem))
	}
	if e.ResourceNamespace != "" {
		for _, problem := range validation.IsDNS1123Label(e.ResourceNamespace) {
			errs = append(errs, fmt.Errorf("%s is no name of a namespace: %s", p.at("leaderElection.resourceNamespace", e.ResourceNamespace), problem))
		}
	}
	choices := []string{string(leaderelection.Rejoin), string(leaderelection.Exit)}
	if !slices.Contains(choices, e.onLost) {
		errs = append(errs, fmt.Errorf("%s is not a choice; use one of %q", p.at("leaderElection.onLost", e.onLost), choices))
	}
	return errs
}

func (e *election) validateTiming(p *places) (errs []error) {
	for _, duration := range []struct {
		path  string
		value time.Duration
	}{
		{timingPaths["LeaseDuration"], e.LeaseDuration.Duration},
		{timingPaths["RenewDeadline"], e.RenewDeadline.Duration},
		{timingPaths["RetryPeriod"], e.RetryPeriod.Duration},
	} {
		if duration.value <= 0 {
			errs = append(errs, fmt.Errorf("%s must be positive", p.at(duration.path, duration.value)))
		}
	}
	if len(errs) > 0 {
		return errs
	}
	named := map[string]bool{}
	for _, err := range e.timing().Validate() {
		var mistake *leaderelection.TimingError
		if errors.As(err, &mistake) {
			if named[mistake.Field] {
				continue // what follows from the first mistake is no help
			}
			named[mistake.Field] = true
			err = fmt.Errorf("%s: %s", p.of(timingPaths[mistake.Field]), mistake.Detail)
		}
		errs = append(errs, err)
	}
	return errs
}
