// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/incumbent-io/incumbent/test/cluster"
)

// account is the user name of the manager's service account.
const account = "system:serviceaccount:incumbent-system:incumbent"

// auditEvent is the part of an audit event that is looked at.
type auditEvent struct {
	Stage      string
	Verb       string
	RequestURI string
	User       struct{ Username string }
	ObjectRef  *struct{ APIGroup, Resource, Subresource, Namespace, Name string }

	// Annotations hold the authorizer's decision. The status alone does not tell: a
	// namespace that is being removed answers 403 as well.
	Annotations map[string]string
}

// checkAudit compares what the manager did with what its rules allow: no request was
// forbidden, and every verb of every rule was used.
func checkAudit(c *cluster.Cluster) error {
	used, forbidden, err := readAudit(filepath.Join(c.Data, "audit.log"))
	if err != nil {
		return err
	}
	ctx := context.Background()
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
	for _, event := range forbidden {
		// An API server that has just been started, as some tests do, refuses for a
		// moment what the rules allow: it has not read them yet.
		inNamespace := event.ObjectRef != nil && event.ObjectRef.Namespace == system
		if !slices.ContainsFunc(clusterRole.Rules, event.granted) && !(inNamespace && slices.ContainsFunc(role.Rules, event.granted)) {
			errs = append(errs, fmt.Errorf("not allowed: %s %s", event.Verb, event.RequestURI))
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

// granted tells whether the rule allows the request.
func (e auditEvent) granted(rule rbacv1.PolicyRule) bool {
	ref := e.ObjectRef
	return ref != nil && slices.Contains(rule.Verbs, e.Verb) && slices.Contains(rule.APIGroups, ref.APIGroup) &&
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
func (e auditEvent) ownRules() bool {
	return e.ObjectRef == nil || e.ObjectRef.Resource == "selfsubjectaccessreviews"
}

// readAudit returns what the manager's account used, and the requests that were
// forbidden, but for those that the API server's own rules allowed at other times.
func readAudit(path string) (used map[string]bool, forbidden []auditEvent, err error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer file.Close()
	used = map[string]bool{}
	allowed := map[string]bool{}
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		var event auditEvent
		if err := json.Unmarshal(lines.Bytes(), &event); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", path, err)
		}
		if event.User.Username != account || event.Stage == "RequestReceived" {
			continue
		}
		if event.Annotations["authorization.k8s.io/decision"] == "allow" {
			allowed[event.RequestURI] = true
		} else {
			forbidden = append(forbidden, event)
		}
		if ref := event.ObjectRef; !event.ownRules() {
			resource := strings.TrimSuffix(ref.Resource+"/"+ref.Subresource, "/")
			used[strings.TrimSpace(event.Verb+" "+resource+" "+ref.APIGroup)] = true
			if event.Verb == "watch" {
				// An informer gets its first objects through the watch if the server can
				// send them, and lists them otherwise.
				used[strings.TrimSpace("list "+resource+" "+ref.APIGroup)] = true
			}
		}
	}
	if len(used) == 0 && lines.Err() == nil {
		return nil, nil, fmt.Errorf("%s has no request of %s", path, account)
	}
	forbidden = slices.DeleteFunc(forbidden, func(e auditEvent) bool { return e.ownRules() && allowed[e.RequestURI] })
	return used, forbidden, lines.Err()
}
