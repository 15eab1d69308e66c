// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package preflight

import (
	"fmt"
	"slices"
	"strings"

	"github.com/incumbent-io/incumbent/pkg/controllers"
)

// Entry is what was found out about one Access.
type Entry struct {
	controllers.Access
	// Served tells whether discovery lists the resource.
	Served bool
	// NotGranted are the verbs that the manager's account may not use, sorted. Nothing
	// is known of them while the resource is not served.
	NotGranted []string
}

// OK tells whether nothing is missing.
func (e Entry) OK() bool { return e.Served && len(e.NotGranted) == 0 }

// Missing says in a few words what is missing, and where; "" if nothing is.
func (e Entry) Missing() string {
	switch {
	case !e.Served:
		return fmt.Sprintf("the API server does not serve %s", e.resource())
	case len(e.NotGranted) > 0:
		return fmt.Sprintf("not granted: %s on %s%s", strings.Join(e.NotGranted, ", "), e.resource(), e.where())
	}
	return ""
}

// resource is spelled as in "deployments.apps/v1".
func (e Entry) resource() string {
	text := e.Resource.Resource
	if e.Resource.Group != "" {
		text += "." + e.Resource.Group
	}
	return text + "/" + e.Resource.Version
}

func (e Entry) where() string {
	var where string
	if len(e.Names) > 0 {
		where = fmt.Sprintf(" named %s", strings.Join(e.Names, ", "))
	}
	if e.Namespace != "" {
		where += " in the namespace " + e.Namespace
	}
	return where
}

// Report is what was found out about the Access of one controller, an Entry for each.
type Report []Entry

// Missing says in one line what keeps the controller from running; "" if nothing
// does. What is optional does not count.
func (r Report) Missing() string {
	var missing []string
	for _, entry := range r {
		if text := entry.Missing(); text != "" && !entry.Optional {
			missing = append(missing, text)
		}
	}
	return strings.Join(slices.Compact(missing), "; ")
}

// Complete tells whether nothing is missing, not even what is optional.
func (r Report) Complete() bool {
	return !slices.ContainsFunc(r, func(e Entry) bool { return !e.OK() })
}
