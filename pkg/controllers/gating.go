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

// FlagControllers is the name of the flag that holds the list given to Gate.
const FlagControllers = "controllers"

// Decision is the gate of one controller: whether it is enabled, and why.
type Decision struct {
	Name    string `json:"name"`
	Enabled bool   `json:"enabled"`
	// Reason completes "the controller is enabled/disabled because: ...".
	Reason string `json:"reason"`
}

// Gate decides for every registered controller whether it is enabled. It is the
// only place where that is decided.
//
// The list has kube-controller-manager's meaning: "*" enables every controller that
// is not disabled by default, "foo" enables the controller foo, "-foo" disables it,
// and a controller that the list does not cover is disabled. A controller with a
// feature gate that is off stays disabled even if the list names it.
//
// Unlike there, a list that can only be a mistake is an error: one with nothing but
// negatives (it would disable everything), one that both enables and disables a
// controller, and one with an unknown or empty name. All mistakes are returned.
// Decisions come sorted by name, and only if there is no mistake.
func (r *Registry) Gate(list []string, features featuregate.FeatureGate) ([]Decision, []error) {
	asked, star, errs := r.parse(list)
	if len(errs) > 0 {
		return nil, errs
	}
	decisions := make([]Decision, 0, len(r.byName))
	for _, name := range r.Names() {
		decisions = append(decisions, decide(r.byName[name].Info(), asked[name], star, features))
	}
	return decisions, nil
}

func decide(info Info, asked string, star bool, features featuregate.FeatureGate) Decision {
	no := func(reason string) Decision { return Decision{Name: info.Name, Reason: reason} }
	for _, feature := range slices.Sorted(maps.Keys(info.FeatureGates)) {
		if !features.Enabled(feature) {
			return no(fmt.Sprintf("feature gate %s is off", feature))
		}
	}
	switch {
	case strings.HasPrefix(asked, "-"):
		return no("disabled by --" + FlagControllers)
	case asked != "":
		return Decision{Name: info.Name, Enabled: true, Reason: "enabled by --" + FlagControllers}
	case !star:
		return no(fmt.Sprintf(`not named in --%s, which has no "*"`, FlagControllers))
	case info.DisabledByDefault:
		return no("disabled by default")
	}
	return Decision{Name: info.Name, Enabled: true, Reason: "enabled by default"}
}

// parse resolves the list: asked holds, for every controller that the list names,
// the item as it was written.
func (r *Registry) parse(list []string) (asked map[string]string, star bool, errs []error) {
	asked = map[string]string{}
	positive := false
	for _, item := range list {
		if item == "*" {
			star = true
			continue
		}
		name := strings.TrimPrefix(item, "-")
		positive = positive || name == item
		if err := r.checkItem(item, name); err != nil {
			errs = append(errs, err)
			continue
		}
		canonical := r.canonical[name]
		if before, named := asked[canonical]; named && strings.HasPrefix(before, "-") != strings.HasPrefix(item, "-") {
			errs = append(errs, fmt.Errorf("controller %q is both enabled and disabled (by %q and %q); keep one of the two", canonical, before, item))
			continue
		}
		asked[canonical] = item
	}
	switch {
	case len(list) == 0:
		errs = append(errs, fmt.Errorf(`the list is empty, which would run nothing; use "*" for all that are on by default, or names: %s`, strings.Join(r.Names(), ", ")))
	case len(errs) == 0 && !star && !positive:
		errs = append(errs, fmt.Errorf(`%q only disables, which would run nothing; did you mean "*,%[1]s"?`, strings.Join(list, ",")))
	}
	return asked, star, errs
}

func (r *Registry) checkItem(item, name string) error {
	valid := strings.Join(r.Names(), ", ")
	switch {
	case item == "-*":
		return fmt.Errorf(`"-*" is not a name; to run only some controllers, list them without "*"; valid names: %s`, valid)
	case name == "":
		return fmt.Errorf("%q is not a name; valid names: %s", item, valid)
	}
	if _, known := r.canonical[name]; known {
		return nil
	}
	if near := Nearest(name, slices.Sorted(maps.Keys(r.canonical))); near != "" {
		return fmt.Errorf("unknown controller %q; did you mean %q? valid names: %s", name, near, valid)
	}
	return fmt.Errorf("unknown controller %q; valid names: %s", name, valid)
}

// Nearest returns the candidate with the smallest edit distance to name, or "" if
// none is close enough to be what was meant.
func Nearest(name string, candidates []string) string {
	best, distance := "", max(2, len(name)/3)+1
	for _, candidate := range candidates {
		if d := editDistance(strings.ToLower(name), strings.ToLower(candidate)); d < distance {
			best, distance = candidate, d
		}
	}
	return best
}

// editDistance is the Levenshtein distance, by the row-wise algorithm of Wagner and
// Fischer (1974).
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			substitute := diagonal
			if a[i] != b[j] {
				substitute++
			}
			diagonal = row[j+1]
			row[j+1] = min(substitute, diagonal+1, row[j]+1)
		}
	}
	return row[len(b)]
}
