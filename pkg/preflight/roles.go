// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package preflight

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/incumbent-io/incumbent/pkg/controllers"
)

// RolesConfig says whom to grant what, and how to call it. All fields are required.
type RolesConfig struct {
	// Name is the name of every role and binding. ClusterRoles have no namespace, so
	// two managers in one cluster need two names.
	Name string
	// Namespace is the manager's own: what controllers.OwnNamespace stands for, and
	// where the service account is.
	Namespace string
	// ServiceAccount is the name of the account that the manager's Pods run as.
	ServiceAccount string
}

// Need is an access and who needs it.
type Need struct {
	// Owner is the name of a controller, or of a part of the manager ("leader
	// election"). It appears in a comment.
	Owner  string
	Access controllers.Access
}

// Grants are the RBAC objects for the needs of a manager: a Role for each namespace
// that an Access names, a ClusterRole for what names none, and a binding for each.
// They grant the sum of the needs and nothing more, with one exception that is RBAC's:
// what is created or deleted as a collection cannot be restricted by name, so a need
// for that on named objects is granted on all. Optional accesses are granted like the
// others.
type Grants struct {
	config RolesConfig
	roles  []role // that of the manager's own namespace first, the cluster's last
}

// role is a Role, or the ClusterRole if its namespace is empty.
type role struct {
	namespace string
	rules     []rule
}

// rule has the same meaning whatever the order of its parts; they are sorted.
type rule struct {
	rbacv1.PolicyRule
	owners []string
}

// Roles renders the grants for needs. The result depends on the needs alone, not on
// their order.
func Roles(config RolesConfig, needs []Need) (*Grants, error) {
	var errs field.ErrorList
	for name, value := range map[string]string{
		"name": config.Name, "namespace": config.Namespace, "serviceAccount": config.ServiceAccount,
	} {
		if value == "" {
			errs = append(errs, field.Required(field.NewPath(name), "RBAC objects cannot be rendered without it"))
		}
	}
	if len(errs) > 0 {
		slices.SortFunc(errs, func(a, b *field.Error) int { return strings.Compare(a.Field, b.Field) })
		return nil, fmt.Errorf("preflight: %w", errs.ToAggregate())
	}
	byNamespace := map[string][]Need{}
	for _, need := range needs {
		if need.Access.Namespace == controllers.OwnNamespace {
			need.Access.Namespace = config.Namespace
		}
		byNamespace[need.Access.Namespace] = append(byNamespace[need.Access.Namespace], need)
	}
	g := &Grants{config: config}
	for _, namespace := range slices.SortedFunc(maps.Keys(byNamespace), func(a, b string) int {
		return cmp.Or(cmp.Compare(g.rank(a), g.rank(b)), strings.Compare(a, b))
	}) {
		if rules := rules(byNamespace[namespace]); len(rules) > 0 {
			g.roles = append(g.roles, role{namespace: namespace, rules: rules})
		}
	}
	return g, nil
}

// rank is the order of roles.
func (g *Grants) rank(namespace string) int {
	switch namespace {
	case g.config.Namespace:
		return 0
	case "":
		return 2
	default:
		return 1
	}
}

// rules merges needs on the same objects of the same resource.
func rules(needs []Need) []rule {
	type target struct{ group, resource, names string }
	verbsOf, ownersOf := map[target]map[string]bool{}, map[target]map[string]bool{}
	for _, need := range needs {
		owner := need.Owner
		if need.Access.Optional {
			owner += " (optional)"
		}
		for _, verb := range need.Access.Verbs {
			names := slices.Sorted(slices.Values(namesFor(need.Access, verb)))
			at := target{need.Access.Resource.Group, need.Access.Resource.Resource, strings.Join(slices.Compact(names), "\x00")}
			if verbsOf[at] == nil {
				verbsOf[at], ownersOf[at] = map[string]bool{}, map[string]bool{}
			}
			verbsOf[at][verb] = true
			ownersOf[at][owner] = true
		}
	}
	var merged []rule
	for _, at := range slices.SortedFunc(maps.Keys(verbsOf), func(a, b target) int {
		return cmp.Or(strings.Compare(a.group, b.group), strings.Compare(a.resource, b.resource), strings.Compare(a.names, b.names))
	}) {
		r := rule{owners: slices.Sorted(maps.Keys(ownersOf[at])), PolicyRule: rbacv1.PolicyRule{
			APIGroups: []string{at.group},
			Resources: []string{at.resource},
			Verbs:     slices.Sorted(maps.Keys(verbsOf[at])),
		}}
		if at.names != "" {
			r.ResourceNames = strings.Split(at.names, "\x00")
		}
		merged = append(merged, r)
	}
	return merged
}

// Objects returns the roles, each followed by its binding.
func (g *Grants) Objects() (objects []runtime.Object) {
	for _, role := range g.roles {
		objects = append(objects, g.role(role), g.binding(role))
	}
	return objects
}

// Print writes the objects as YAML documents that kubectl apply accepts, with a
// comment over each rule that names who needs it.
func (g *Grants) Print(w io.Writer) error {
	var text bytes.Buffer
	for i, role := range g.roles {
		if i > 0 {
			text.WriteString("---\n")
		}
		var comments []string
		for _, rule := range role.rules {
			comments = append(comments, strings.Join(rule.owners, ", "))
		}
		if err := printYAML(&text, g.role(role), comments); err != nil {
			return err
		}
		text.WriteString("---\n")
		if err := printYAML(&text, g.binding(role), nil); err != nil {
			return err
		}
	}
	_, err := text.WriteTo(w)
	return err
}

func (g *Grants) role(r role) runtime.Object {
	var rules []rbacv1.PolicyRule
	for _, rule := range r.rules {
		rules = append(rules, *rule.DeepCopy())
	}
	if r.namespace == "" {
		return &rbacv1.ClusterRole{TypeMeta: typeMeta("ClusterRole"), ObjectMeta: g.objectMeta(r), Rules: rules}
	}
	return &rbacv1.Role{TypeMeta: typeMeta("Role"), ObjectMeta: g.objectMeta(r), Rules: rules}
}

func (g *Grants) binding(r role) runtime.Object {
	ref := rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: g.config.Name}
	subjects := []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: g.config.ServiceAccount, Namespace: g.config.Namespace}}
	if r.namespace == "" {
		ref.Kind = "ClusterRole"
		return &rbacv1.ClusterRoleBinding{TypeMeta: typeMeta("ClusterRoleBinding"), ObjectMeta: g.objectMeta(r), RoleRef: ref, Subjects: subjects}
	}
	return &rbacv1.RoleBinding{TypeMeta: typeMeta("RoleBinding"), ObjectMeta: g.objectMeta(r), RoleRef: ref, Subjects: subjects}
}

func typeMeta(kind string) metav1.TypeMeta {
	return metav1.TypeMeta{APIVersion: rbacv1.SchemeGroupVersion.String(), Kind: kind}
}

func (g *Grants) objectMeta(r role) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: g.config.Name, Namespace: r.namespace}
}
