// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package options

import (
	"fmt"
	"strings"

	"k8s.io/component-base/featuregate"

	"github.com/incumbent-io/incumbent/pkg/controllers"
)

// Row is a controller and its gate, for people and scripts.
type Row struct {
	controllers.Decision
	Summary string   `json:"summary"`
	Aliases []string `json:"aliases,omitempty"`
	Needs   []string `json:"needs,omitempty"`
	// LeaseGroup is empty for a controller that runs on every replica.
	LeaseGroup string `json:"leaseGroup,omitempty"`
}

// Table returns a row for every registered controller, sorted by name.
func (o *Options) Table() []Row {
	decisions := o.decisions(o.features)
	rows := make([]Row, 0, len(decisions))
	for _, name := range o.registry.Names() {
		info := o.controllers[name].Info
		rows = append(rows, Row{
			Decision: decisions[name], Summary: info.Summary, Aliases: info.Aliases, Needs: info.Needs,
			LeaseGroup: o.grouping.of[name],
		})
	}
	return rows
}

// decisions returns the gate of every controller, by name. The reason sends its
// reader to where the list of controllers stands.
func (o *Options) decisions(features featuregate.FeatureGate) map[string]controllers.Decision {
	decisions, mistakes := o.registry.Gate(o.list, features)
	if len(mistakes) > 0 {
		panic(fmt.Sprint(mistakes)) // Load has found them all
	}
	byName := map[string]controllers.Decision{}
	for _, decision := range decisions {
		if o.places.lines["controllers"] > 0 && o.places.pinned("controllers") == nil {
			decision.Reason = strings.ReplaceAll(decision.Reason, "--"+controllers.FlagControllers, "controllers in "+o.file.Path)
		}
		byName[decision.Name] = decision
	}
	return byName
}
