// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package options

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/pflag"
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
	drainTimeout time.Duration
	fencing      bool
}

// Election tells how the leader is elected.
type Election struct {
	// Enabled is false for --leader-elect=false: the controllers run at once, and
	// nothing keeps another replica from running them too.
	Enabled bool
	// Namespace and LeaseName say where the Lease is.
	Namespace, LeaseName string
	Timing               leaderelection.Timing
	OnLost               leaderelection.OnLost
	// IdentityDir keeps the identity over restarts of the container; "" does not.
	IdentityDir string
	// DrainTimeout bounds the stop of all controllers.
	DrainTimeout time.Duration
	// Fencing says that the fencing policy guards the writes, too.
	Fencing bool
}

func newElection(name string) election {
	timing := leaderelection.Timing{}.WithDefaults()
	e := election{onLost: string(leaderelection.Rejoin), drainTimeout: 30 * time.Second}
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
	flags.DurationVar(&e.drainTimeout, "drain-timeout", e.drainTimeout, "How long the controllers may take to stop when the process is asked to stop, before it exits with code 1 without releasing the lease. Keep it below the Pod's terminationGracePeriodSeconds.")
}

func (e *election) timing() leaderelection.Timing {
	timing := leaderelection.Timing{}.WithDefaults()
	timing.LeaseDuration = e.LeaseDuration.Duration
	timing.RenewDeadline = e.RenewDeadline.Duration
	timing.RetryPeriod = e.RetryPeriod.Duration
	return timing
}

// timingFlags names the flag that sets each field of a Timing.
var timingFlags = map[string]string{
	"LeaseDuration": "leader-elect-lease-duration",
	"RenewDeadline": "leader-elect-renew-deadline",
	"RetryPeriod":   "leader-elect-retry-period",
}

func (e *election) validate() (errs []error) {
	if e.drainTimeout <= 0 {
		errs = append(errs, fmt.Errorf("--drain-timeout=%v must be positive, for instance 30s", e.drainTimeout))
	}
	if !e.LeaderElect {
		if e.fencing {
			errs = append(errs, errors.New("--fencing needs a leader: use it with --leader-elect=true, or remove the fencing policy and the flag"))
		}
		return errs
	}
	for field, value := range map[string]time.Duration{"LeaseDuration": e.LeaseDuration.Duration, "RenewDeadline": e.RenewDeadline.Duration, "RetryPeriod": e.RetryPeriod.Duration} {
		if value <= 0 {
			errs = append(errs, fmt.Errorf("--%s=%v must be positive", timingFlags[field], value))
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
			err = fmt.Errorf("--%s: %s", timingFlags[mistake.Field], mistake.Detail)
		}
		errs = append(errs, err)
	}
	if e.ResourceLock != "leases" {
		errs = append(errs, fmt.Errorf(`--leader-elect-resource-lock=%q is not supported; the only choice is "leases"`, e.ResourceLock))
	}
	for _, problem := range validation.IsDNS1123Subdomain(e.ResourceName) {
		errs = append(errs, fmt.Errorf("--leader-elect-resource-name=%q is no name for a Lease: %s", e.ResourceName, problem))
	}
	if e.ResourceNamespace != "" {
		for _, problem := range validation.IsDNS1123Label(e.ResourceNamespace) {
			errs = append(errs, fmt.Errorf("--leader-elect-resource-namespace=%q is no name of a namespace: %s", e.ResourceNamespace, problem))
		}
	}
	choices := []string{string(leaderelection.Rejoin), string(leaderelection.Exit)}
	if !slices.Contains(choices, e.onLost) {
		errs = append(errs, fmt.Errorf("--leader-elect-on-lost=%q is not a choice; use one of %q", e.onLost, choices))
	}
	return errs
}
