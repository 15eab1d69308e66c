// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/incumbent-io/incumbent/test/cluster"
)

// account is the user name of the manager's service account.
const account = "system:serviceaccount:incumbent-system:incumbent"

// checkAudit compares what the manager did with what its rules allow: no request was
// forbidden, and every verb of every rule was used.
func checkAudit(c *cluster.Cluster) error {
	ctx := context.Background()
	used, forbidden, err := readAudit(ctx, c)
	if err != nil {
		return err
	}
	role, err := c.Client.RbacV1().Roles(system).Get(ctx, "incumbent", metav1.GetOptions{})
	if err != nil {
		return err
	}
	clusterRole, err := c.Client.RbacV1().ClusterRoles().Get(ctx, "incumbent", metav1.GetOptions{})
	if err != nil {
		return err
	}
	granted := map[string]bool{}
	for _, rule := range slices.Concat(role.Rules, clusterRole.Rules) {
		grant(granted, rule)
	}
	var errs []error
	for _, r := range forbidden {
		// An API server that has just been started, as some tests do, refuses for a
		// moment what the rules allow: it has not read them yet.
		rules := clusterRole.Rules
		if r.ObjectRef.Namespace == system {
			rules = slices.Concat(rules, role.Rules)
		}
		if !slices.ContainsFunc(rules, func(rule rbacv1.PolicyRule) bool { return grants(rule, r) }) {
			errs = append(errs, fmt.Errorf("not allowed: %v", r))
		}
	}
	for _, need := range slices.Sorted(maps.Keys(used)) {
		if !granted[need] {
			errs = append(errs, fmt.Errorf("the manager did %q, which no rule of manifests/base grants", need))
		}
	}
	for _, right := range slices.Sorted(maps.Keys(granted)) {
		if !used[right] {
			errs = append(errs, fmt.Errorf("manifests/base grants %q, which the manager never needed", right))
		}
	}
	return errors.Join(errs...)
}

// grants tells whether the rule allows the request.
func grants(rule rbacv1.PolicyRule, r cluster.Request) bool {
	ref := r.ObjectRef
	return slices.Contains(rule.Verbs, r.Verb) && slices.Contains(rule.APIGroups, ref.APIGroup) &&
		slices.Contains(rule.Resources, ref.Resource) && ref.Subresource == "" &&
		(len(rule.ResourceNames) == 0 || slices.Contains(rule.ResourceNames, ref.Name))
}

func grant(granted map[string]bool, rule rbacv1.PolicyRule) {
	for _, group := range rule.APIGroups {
		for _, resource := range rule.Resources {
			for _, verb := range rule.Verbs {
				granted[strings.TrimSpace(verb+" "+resource+" "+group)] = true
			}
		}
	}
}

// ownRules tells whether the rules for the request are the API server's own: whoever is
// authenticated may read /version and ask what it may do.
func ownRules(r cluster.Request) bool {
	return r.ObjectRef.Resource == "" || r.ObjectRef.Resource == "selfsubjectaccessreviews"
}

// readAudit returns what the manager's account used, and the requests that were
// forbidden, but for those that the API server's own rules allowed at other times.
func readAudit(ctx context.Context, c *cluster.Cluster) (used map[string]bool, forbidden []cluster.Request, err error) {
	requests, err := c.Audit(time.Time{}, account).Requests(ctx)
	if err != nil {
		return nil, nil, err
	}
	used = map[string]bool{}
	allowed := map[string]bool{}
	for _, r := range requests {
		if r.User.Username != account {
			continue
		}
		if r.Allowed() {
			allowed[r.RequestURI] = true
		} else {
			forbidden = append(forbidden, r)
		}
		if !ownRules(r) {
			resource := strings.TrimSuffix(r.ObjectRef.Resource+"/"+r.ObjectRef.Subresource, "/")
			used[strings.TrimSpace(r.Verb+" "+resource+" "+r.ObjectRef.APIGroup)] = true
			if r.Verb == "watch" {
				// An informer gets its first objects through the watch if the server can
				// send them, and lists them otherwise.
				used[strings.TrimSpace("list "+resource+" "+r.ObjectRef.APIGroup)] = true
			}
		}
	}
	if len(used) == 0 {
		return nil, nil, fmt.Errorf("the audit log has no request of %s", account)
	}
	forbidden = slices.DeleteFunc(forbidden, func(r cluster.Request) bool { return ownRules(r) && allowed[r.RequestURI] })
	return used, forbidden, nil
}
