// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package preflight

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/incumbent-io/incumbent/pkg/controllers"
)

// Report is what was found out about the needs of one controller, in the order of its
// Access. It is not changed once made. The zero value is that of a controller which
// needs nothing.
type Report struct{ Results []Result }

// Result is what was found out about one entry of Access.
type Result struct {
	// Access is the entry, with the manager's own namespace put in.
	Access controllers.Access
	// Served says whether the API server knows the resource.
	Served bool
	// Missing are the verbs that are not there: all, if the resource is not served. It
	// is empty if the entry is there as a whole.
	Missing []string
	// Reason says, for people, what is missing and how to get it; empty if nothing is.
	Reason string

	// problem and fix make up Reason; reports of several entries say a fix once.
	problem, fix string
	// refused are the reviews that said no.
	refused []review
	// clusterScoped is false if nobody knows.
	clusterScoped bool
}

// Blocked says whether anything is missing that is not optional, and what, in one line.
func (r Report) Blocked() (reason string, blocked bool) {
	var problems, fixes []string
	for _, result := range r.Results {
		if result.ok() || result.Access.Optional {
			continue
		}
		problems = append(problems, result.problem)
		if result.fix != "" && !slices.Contains(fixes, result.fix) {
			fixes = append(fixes, result.fix)
		}
	}
	return sentence(strings.Join(problems, "; "), strings.Join(fixes, "; ")), len(problems) > 0
}

// Has says whether the resource is served and all verbs are granted that Access
// declares for it, in all entries that name it. It is false for a resource that none
// names. "pods" and "pods/status" are two resources.
func (r Report) Has(gvr schema.GroupVersionResource) bool {
	named := false
	for _, result := range r.Results {
		if result.Access.Resource != gvr {
			continue
		}
		if !result.ok() {
			return false
		}
		named = true
	}
	return named
}

// Equal says whether a controller is to be treated alike by both: Blocked and Has
// give the same answers.
func (r Report) Equal(other Report) bool {
	mine, blocked := r.Blocked()
	theirs, otherBlocked := other.Blocked()
	if blocked != otherBlocked || mine != theirs {
		return false
	}
	for _, result := range slices.Concat(r.Results, other.Results) {
		if gvr := result.Access.Resource; r.Has(gvr) != other.Has(gvr) {
			return false
		}
	}
	return true
}

func (r Result) ok() bool { return r.problem == "" }

// because returns r with what is missing. fix may be empty.
func (r Result) because(problem, fix string) Result {
	r.problem, r.fix = problem, fix
	r.Reason = sentence(problem, fix)
	return r
}

// unplaced is the result where the manager's own namespace is needed and unknown.
func (r Result) unplaced() Result {
	r.Missing = verbs(r.Access)
	return r.because(
		fmt.Sprintf("%s is needed in the manager's own namespace, which is unknown", r.resource()),
		"a Pod learns it from the environment variable POD_NAMESPACE",
	)
}

// unserved is the result for a resource that the API server does not know. hasParent
// is set for a subresource that is all that is missing.
func (r Result) unserved(hasParent bool) Result {
	r.Missing = verbs(r.Access)
	resource, subresource := split(r.Access.Resource)
	problem := fmt.Sprintf("%s is not served in version %s", r.resource(), r.Access.Resource.Version)
	if hasParent {
		problem = fmt.Sprintf("%s has no subresource %q in version %s", resource, subresource, r.Access.Resource.Version)
	}
	switch {
	case scheme.Scheme.IsGroupRegistered(resource.Group):
		return r.because(problem, "this API server is of another release, or has it switched off")
	case hasParent:
		return r.because(problem, "its CustomResourceDefinition can switch it on")
	default:
		return r.because(problem, fmt.Sprintf("the customresourcedefinition %s is not installed, or lacks the version", resource))
	}
}

// reviewed is the result for a resource that is served.
func (r Result) reviewed(refused []review) Result {
	r.refused, r.Missing = refused, nil
	if len(refused) == 0 {
		return r.because("", "")
	}
	for _, review := range refused {
		if !slices.Contains(r.Missing, review.verb) {
			r.Missing = append(r.Missing, review.verb)
		}
	}
	problem := "not granted: " + strings.Join(r.phrases(), " and ") + r.place()
	if r.misplaced() {
		return r.because(problem, r.resource()+" is cluster-scoped, so its Access must name no namespace")
	}
	return r.because(problem, "the rbac subcommand prints the rules that grant it")
}

// phrases say which verbs are refused on what: once per set of verbs, for objects
// that are named.
func (r Result) phrases() (phrases []string) {
	for _, name := range append([]string{""}, r.Access.Names...) {
		var missing []string
		for _, review := range r.refused {
			if review.object == name {
				missing = append(missing, review.verb)
			}
		}
		phrase := strings.Join(missing, ", ") + " on " + r.resource()
		last := len(phrases) - 1
		switch {
		case len(missing) == 0:
		case name == "":
			phrases = append(phrases, phrase)
		case last >= 0 && strings.HasPrefix(phrases[last], phrase+" \""):
			phrases[last] += fmt.Sprintf(", %q", name)
		default:
			phrases = append(phrases, fmt.Sprintf("%s %q", phrase, name))
		}
	}
	return phrases
}

// misplaced says whether the entry names a namespace for what is in none, so that a
// Role cannot grant it.
func (r Result) misplaced() bool {
	return r.clusterScoped && r.Access.Namespace != "" && !r.isNamespace()
}

func (r Result) place() string {
	switch {
	case r.clusterScoped && !r.isNamespace():
		return ""
	case r.Access.Namespace != "":
		return " in namespace " + r.Access.Namespace
	default:
		return " in all namespaces"
	}
}

func (r Result) resource() string { return nameOf(split(r.Access.Resource)) }

// isNamespace says whether r is about the one cluster-scoped resource whose requests
// carry a namespace: each is within itself.
func (r Result) isNamespace() bool {
	resource, _ := split(r.Access.Resource)
	return resource == schema.GroupResource{Resource: "namespaces"}
}

// reviews are the questions to ask, in the form that the API server gives to the
// actual requests: those for cluster-scoped resources have no namespace, and some verbs
// never have a name.
func (r Result) reviews() []review {
	resource, subresource := split(r.Access.Resource)
	template := review{resource: resource, version: r.Access.Resource.Version, subresource: subresource, ns: r.Access.Namespace}
	if r.misplaced() {
		template.ns = ""
	}
	var all []review
	for _, verb := range verbs(r.Access) {
		for _, name := range namesFor(r.Access, verb) {
			question := template
			question.verb, question.object = verb, name
			all = append(all, question)
		}
	}
	return all
}

// verbs returns those of a, without doubles.
func verbs(a controllers.Access) (verbs []string) {
	for _, verb := range a.Verbs {
		if !slices.Contains(verbs, verb) {
			verbs = append(verbs, verb)
		}
	}
	return verbs
}

// namesFor returns the names that a request with the verb can be restricted to; "" is
// all. The API server does not know the name of what is created or deleted as a
// collection when it authorizes that, only what a subresource is created of.
func namesFor(a controllers.Access, verb string) []string {
	_, subresource := split(a.Resource)
	if len(a.Names) == 0 || verb == "create" && subresource == "" || verb == "deletecollection" {
		return []string{""}
	}
	return a.Names
}

func sentence(problem, fix string) string {
	if fix == "" {
		return problem
	}
	return problem + " (" + fix + ")"
}
