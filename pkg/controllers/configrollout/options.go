// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package configrollout

import (
	"fmt"
	"time"

	"github.com/spf13/pflag"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/incumbent-io/incumbent/pkg/controllers"
)

const (
	maxWorkers = 100
	maxPeriod  = 24 * time.Hour
)

// Options are the settings of the controller.
type Options struct {
	// Secrets has changes of Secrets noticed, too. Default: false, and Secrets are
	// neither watched nor read.
	Secrets bool `json:"secrets"`
	// QuietPeriod is how long the content that a workload refers to must stay as it is
	// before the workload is rolled, so that several changes make one rollout. 0 to
	// 24 h. Default: 5 s.
	QuietPeriod metav1.Duration `json:"quietPeriod"`
	// MaxDelay is how long after the first change a workload is rolled even though the
	// changes go on. QuietPeriod to 24 h. Default: 1 min.
	MaxDelay metav1.Duration `json:"maxDelay"`
	// Workers is how many workloads are judged at the same time, 1 to 100. Default: 4.
	Workers int `json:"workers"`
}

var _ controllers.Options = (*Options)(nil)

func defaults() *Options {
	return &Options{QuietPeriod: metav1.Duration{Duration: 5 * time.Second}, MaxDelay: metav1.Duration{Duration: time.Minute}, Workers: 4}
}

// AddFlags implements controllers.Options.
func (o *Options) AddFlags(flags *pflag.FlagSet) {
	flags.BoolVar(&o.Secrets, "secrets", o.Secrets, "Whether changes of Secrets cause rollouts, too. If not, Secrets are neither watched nor read.")
	flags.DurationVar(&o.QuietPeriod.Duration, "quiet-period", o.QuietPeriod.Duration,
		"How long the content that a workload refers to must stay as it is before the workload is rolled, so that several changes make one rollout.")
	flags.DurationVar(&o.MaxDelay.Duration, "max-delay", o.MaxDelay.Duration,
		"How long after the first change a workload is rolled even though the changes go on.")
	flags.IntVar(&o.Workers, "workers", o.Workers, fmt.Sprintf("How many workloads are judged at the same time, 1 to %d.", maxWorkers))
}

// Validate implements controllers.Options.
func (o *Options) Validate(path *field.Path) field.ErrorList {
	var errs field.ErrorList
	quiet, most := o.QuietPeriod.Duration, o.MaxDelay.Duration
	if quiet < 0 || quiet > maxPeriod {
		errs = append(errs, field.Invalid(path.Child("quietPeriod"), quiet.String(), fmt.Sprintf("want a duration from 0s to %v, for example 5s", maxPeriod)))
	}
	if most < 0 || most > maxPeriod {
		errs = append(errs, field.Invalid(path.Child("maxDelay"), most.String(), fmt.Sprintf("want a duration from 0s to %v, for example 1m", maxPeriod)))
	} else if quiet <= maxPeriod && most < quiet {
		errs = append(errs, field.Invalid(path.Child("maxDelay"), most.String(), fmt.Sprintf("is shorter than %s, which is %v; want at least as long", path.Child("quietPeriod"), quiet)))
	}
	if o.Workers < 1 || o.Workers > maxWorkers {
		errs = append(errs, field.Invalid(path.Child("workers"), o.Workers, fmt.Sprintf("want a number from 1 to %d, for example 4", maxWorkers)))
	}
	return errs
}
