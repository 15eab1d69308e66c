// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package preflight

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/yaml"

	"github.com/incumbent-io/incumbent/pkg/controllers"
)

// Need is an Access and who needs it: a controller's name, or a part of the manager.
type Need struct {
	Owner  string
	Access controllers.Access
}

// RolesConfig says for whom RBAC is printed.
type RolesConfig struct {
	// Name is the name of the roles and bindings.
	Name string
	// Namespace is the manager's own, and ServiceAccount its account there.
	Namespace, ServiceAccount string
}

// rule is an RBAC rule and who needs it.
type rule struct {
	rbacv1.PolicyRule
	owners []string
}

// PrintRoles writes the ClusterRole, the Roles and their bindings that grant the
// needs and nothing more, as YAML for kubectl apply. Equal needs give equal output,
// and a comment over each rule says who needs it.
func PrintRoles(out io.Writer, config RolesConfig, needs []Need) error {
	scopes := map[string][]Need{}
	for _, need := range needs {
		namespace := need.Access.Namespace
		if namespace == controllers.OwnNamespace {
			namespace = config.Namespace
		}
		scopes[namespace] = append(scopes[namespace], need)
	}
	first := true
	for _, namespace := range slices.Sorted(maps.Keys(scopes)) {
		for _, document := range config.documents(namespace, rules(scopes[namespace])) {
			if !first {
				document = "---\n" + document
			}
			first = false
			if _, err := io.WriteString(out, document); err != nil {
				return err
			}
		}
	}
	return nil
}

// rules merges needs on the same resource and names, where the union of the verbs is
// just what all of them need together.
func rules(needs []Need) []rule {
	merged := map[string]*rule{}
	for _, need := range needs {
		r := need.Access.Rule()
		slices.Sort(r.ResourceNames)
		key := fmt.Sprint(r.APIGroups, r.Resources, r.ResourceNames)
		known := merged[key]
		if known == nil {
			known = &rule{PolicyRule: r}
			merged[key] = known
		}
		known.Verbs = sortedUnion(known.Verbs, r.Verbs)
		known.owners = sortedUnion(known.owners, []string{need.Owner})
	}
	return slices.SortedFunc(func(yield func(rule) bool) {
		for _, r := range merged {
			if !yield(*r) {
				return
			}
		}
	}, func(a, b rule) int {
		return cmp.Or(
			slices.Compare(a.APIGroups, b.APIGroups),
			slices.Compare(a.Resources, b.Resources),
			slices.Compare(a.ResourceNames, b.ResourceNames),
		)
	})
}

func sortedUnion(a, b []string) []string {
	return slices.Compact(slices.Sorted(slices.Values(slices.Concat(a, b))))
}

// documents returns a role and its binding.
func (c RolesConfig) documents(namespace string, rules []rule) []string {
	kind, place := "Role", "\n  namespace: "+namespace
	if namespace == "" {
		kind, place = "ClusterRole", ""
	}
	var role strings.Builder
	fmt.Fprintf(&role, "apiVersion: rbac.authorization.k8s.io/v1\nkind: %s\nmetadata:\n  name: %s%s\nrules:\n", kind, c.Name, place)
	for _, r := range rules {
		fmt.Fprintf(&role, "  # %s\n", strings.Join(r.owners, ", "))
		text, err := yaml.Marshal([]rbacv1.PolicyRule{r.PolicyRule})
		if err != nil {
			panic(err) // strings in lists can always be written
		}
		for line := range strings.Lines(string(text)) {
			role.WriteString("  " + line)
		}
	}
	binding := fmt.Sprintf(`apiVersion: rbac.authorization.k8s.io/v1
kind: %[1]sBinding
metadata:
  name: %[2]s%[3]s
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: %[1]s
  name: %[2]s
subjects:
  - kind: ServiceAccount
    name: %[4]s
    namespace: %[5]s
`, kind, c.Name, place, c.ServiceAccount, c.Namespace)
	return []string{role.String(), binding}
}

// splitResource splits "pods/status".
func splitResource(resource string) (name, subresource string) {
	name, subresource, _ = strings.Cut(resource, "/")
	return name, subresource
}
