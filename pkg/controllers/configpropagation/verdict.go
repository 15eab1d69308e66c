// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package configpropagation

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/labels"
)

// situation is all that decides about a target: an object of one kind, by its namespace
// and name.
type situation struct {
	kind      kind
	namespace *meta   // nil: it is not known
	there     *meta   // what is at the target; nil: nothing
	sources   []*meta // every source of that kind and name
}

// action is what is to be done about a target.
type action string

const (
	leave  action = "leave"  // nothing
	ensure action = "ensure" // there is to be the copy of a source
	remove action = "remove" // there is a copy, and there is to be none
)

type verdict struct {
	action action
	source *meta // to ensure the copy of
	// claimed tells whether a source selects the namespace, and problems, by the
	// namespace of a source, why such a source is not copied.
	claimed  bool
	problems map[string]string
}

// rules are the options that decide.
type rules struct {
	sourceNamespaces []string // none: all
}

// maySource tells whether there may be sources in a namespace.
func (r rules) maySource(namespace string) bool {
	return len(r.sourceNamespaces) == 0 || slices.Contains(r.sourceNamespaces, namespace)
}

// judge decides what is to be done.
func (r rules) judge(s situation) verdict {
	v := verdict{action: leave, problems: map[string]string{}}
	if s.namespace == nil || s.namespace.DeletionTimestamp != nil {
		return v // What is in it goes with it; and what is not known will be.
	}
	claimants := r.claimants(s)
	v.claimed = len(claimants) > 0
	switch {
	case s.there != nil && !isCopy(s.there):
		for _, c := range claimants {
			v.problems[c.Namespace] = fmt.Sprintf("there is a %s of that name that is no copy", s.kind.name)
		}
		return v
	case s.there != nil && s.there.DeletionTimestamp != nil:
		return v // Its end is an event.
	case !v.claimed && s.there != nil:
		v.action = remove
		return v
	case !v.claimed:
		return v
	}
	winner := claimants[0]
	for _, loser := range claimants[1:] {
		v.problems[loser.Namespace] = fmt.Sprintf("the %s of that name in %s, which is older, is copied there", s.kind.name, winner.Namespace)
	}
	if _, err := selectorOf(s.kind, winner); err == nil {
		v.action, v.source = ensure, winner
	}
	return v
}

// claimants returns the sources that claim the target, the one that wins first.
func (r rules) claimants(s situation) (list []*meta) {
	for _, source := range s.sources {
		if r.claims(source, s) {
			list = append(list, source)
		}
	}
	slices.SortFunc(list, older)
	return list
}

// claims tells whether a source is to be copied to the target's namespace. One whose
// selector is malformed keeps the copies that it has: a typing error takes nothing away.
func (r rules) claims(source *meta, s situation) bool {
	if source.Namespace == s.namespace.Name || source.DeletionTimestamp != nil || !r.maySource(source.Namespace) {
		return false
	}
	if refused, _ := refuses(s.namespace); refused {
		return false
	}
	selector, err := selectorOf(s.kind, source)
	if err != nil {
		return s.there != nil && isCopy(s.there) && isCopyOf(s.there, source)
	}
	return selector.Matches(labels.Set(s.namespace.Labels))
}

// older is an order of sources that only their deletion changes. Times of creation are
// in whole seconds; within one, the namespaces' names decide.
func older(a, b *meta) int {
	if order := a.CreationTimestamp.Compare(b.CreationTimestamp.Time); order != 0 {
		return order
	}
	return strings.Compare(a.Namespace, b.Namespace)
}
