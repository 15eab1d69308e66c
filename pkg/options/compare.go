// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package options

import (
	"fmt"
	"strings"

	"github.com/incumbent-io/incumbent/pkg/controllers"
)

// Changes tells what a new configuration changes in a running manager. Names of
// controllers are sorted; the other lists are in the order of the file.
type Changes struct {
	// Config is the running configuration with everything in it that takes effect
	// now. It is what runs from now on, and what the next one is compared with.
	Config *Config
	// Enabled, Disabled and Reconfigured are the controllers that start, that stop,
	// and that run on with other options.
	Enabled, Disabled, Reconfigured []string
	// Logging tells that the verbosity or vmodule changed.
	Logging bool
	// NeedsRestart are the fields whose new value waits for a restart, each as
	// "path: old -> new" with the values as JSON.
	NeedsRestart []string
	// Pinned are the fields of the file that a flag wins over with another value,
	// each as a sentence.
	Pinned []string
}

// Compare tells what next changes in a manager that runs with running: a Config from
// Complete, or from the Changes before, so that a restart that is due is not
// forgotten. It is pure, and changes neither.
//
// What needs a restart does not hold up the rest: gates are decided anew with the
// feature gates that are running, controllers stay in the lease groups that are
// running, and the new list and options take effect.
func Compare(running, next *Config) Changes {
	merged := *running
	merged.File, merged.options = next.File, next.options
	changes := Changes{Config: &merged, Pinned: next.options.pinned}
	reconfigured := map[string]bool{}
	merged.running = make([]setting, len(running.running))
	for i, now := range running.running {
		then := next.running[i]
		switch {
		case now.value == then.value:
		case !now.live:
			changes.NeedsRestart = append(changes.NeedsRestart, fmt.Sprintf("%s: %s -> %s", now.path, now.value, then.value))
		case strings.HasPrefix(now.path, "logging."):
			changes.Logging = true
		default:
			if rest, ok := strings.CutPrefix(now.path, controllerOptionsPath+"."); ok {
				name, _, _ := strings.Cut(rest, ".")
				reconfigured[name] = true
			}
		}
		if now.live {
			now.value = then.value
		}
		merged.running[i] = now
	}
	logging := *running.Logging
	logging.Verbosity, logging.VModule = next.Logging.Verbosity, next.Logging.VModule
	merged.Logging = &logging
	merged.Controllers = mergeControllers(running, next, reconfigured)
	changes.tellControllers(running, reconfigured)
	return changes
}

// mergeControllers returns the controllers of next as running may run them. A
// controller whose options are the same keeps its value.
func mergeControllers(running, next *Config, reconfigured map[string]bool) []Controller {
	decisions := next.options.decisions(running.Features)
	merged := make([]Controller, len(running.Controllers))
	for i, now := range running.Controllers {
		merged[i] = Controller{Configured: now.Configured, Decision: decisions[now.Name]}
		if reconfigured[now.Name] {
			then := *next.Controllers[i].Configured
			then.LeaseGroup = now.LeaseGroup
			merged[i].Configured = &then
		}
		if running.Election.Fencing && merged[i].Decision.Enabled && unfenced(merged[i].Configured) != "" {
			// It fits to what next says about fencing or feature gates, which waits.
			merged[i].Decision = controllers.Decision{Name: now.Name, Reason: "writes without leading, which fencing refuses until the manager is restarted"}
		}
	}
	return merged
}

func (c *Changes) tellControllers(running *Config, reconfigured map[string]bool) {
	before, after := map[string]bool{}, map[string]bool{}
	for i, controller := range c.Config.Controllers {
		before[controller.Name] = running.Controllers[i].Decision.Enabled
		after[controller.Name] = controller.Decision.Enabled
	}
	for _, name := range c.Config.options.registry.Names() {
		switch {
		case after[name] && !before[name]:
			c.Enabled = append(c.Enabled, name)
		case before[name] && !after[name]:
			c.Disabled = append(c.Disabled, name)
		case after[name] && reconfigured[name]:
			c.Reconfigured = append(c.Reconfigured, name)
		}
	}
}
