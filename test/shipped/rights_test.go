// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package shipped

import (
	"context"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/incumbent-io/incumbent/test/cluster"
)

// account is a service account that may do what `manager rbac` prints for the flags of
// a manager, and nothing else.
type account struct {
	kubeconfig, user string
	rules            []rbacv1.PolicyRule
}

// newAccount makes one in the namespace, with roles of the same name.
func newAccount(t *testing.T, namespace string, flags ...string) account {
	t.Helper()
	const name = "manager"
	a := account{kubeconfig: shared.KubeconfigFor(t, namespace, name), user: "system:serviceaccount:" + namespace + ":" + name}
	roles, err := shared.Run(t.Context(), "manager", append([]string{"rbac", "--namespace=" + namespace, "--service-account=" + name, "--role=" + namespace}, flags...)...)
	if err != nil {
		t.Fatalf("manager rbac: %v\n%s", err, roles)
	}
	file := filepath.Join(t.TempDir(), "roles.yaml")
	if err := os.WriteFile(file, []byte(roles), 0o600); err != nil {
		t.Fatal(err)
	}
	shared.Kubectl(t, "apply", "-f", file)
	t.Cleanup(func() { // The namespace goes, and takes its own along.
		for _, kind := range []string{"clusterrole", "clusterrolebinding"} {
			shared.Run(t.Context(), "kubectl", "delete", "--ignore-not-found", kind, namespace)
		}
	})
	documents := yaml.NewYAMLOrJSONDecoder(strings.NewReader(roles), 1<<16)
	for {
		var role rbacv1.ClusterRole
		if err := documents.Decode(&role); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		a.rules = append(a.rules, role.Rules...)
	}
	cluster.Eventually(t, 20*time.Second, "the roles are in force", func() error {
		_, err := shared.Run(t.Context(), "kubectl", "auth", "can-i", "create", "events.events.k8s.io", "--as="+a.user)
		if err != nil {
			return err
		}
		_, err = shared.Run(t.Context(), "kubectl", "auth", "can-i", "create", "leases.coordination.k8s.io", "-n", namespace, "--as="+a.user)
		return err
	})
	return a
}

// requests returns what the account has asked of the API server.
func (a account) requests(t *testing.T) []cluster.Request {
	t.Helper()
	all, err := shared.Audit(time.Time{}, a.user).Requests(context.WithoutCancel(t.Context())) // also when the test is over
	if err != nil {
		t.Fatal(err)
	}
	all = slices.DeleteFunc(all, func(r cluster.Request) bool { return r.User.Username != a.user })
	if len(all) == 0 {
		t.Fatalf("the audit log has no request of %s", a.user)
	}
	return all
}

// check fails if the account was refused anything, or was granted a verb on one of the
// resources that it never used.
func (a account) check(t *testing.T, resources ...string) {
	t.Helper()
	used := map[string]bool{}
	for _, r := range a.requests(t) {
		if !r.Allowed() {
			t.Errorf("not allowed: %v", r)
		}
		used[r.Verb+" "+r.ObjectRef.Resource] = true
		if r.Verb == "watch" { // which brings the first objects, too, if the server can
			used["list "+r.ObjectRef.Resource] = true
		}
	}
	granted := map[string]bool{}
	for _, rule := range a.rules {
		for _, resource := range rule.Resources {
			for _, verb := range rule.Verbs {
				granted[verb+" "+resource] = slices.Contains(resources, resource)
			}
		}
	}
	for _, right := range slices.Sorted(maps.Keys(granted)) {
		if granted[right] && !used[right] {
			t.Errorf("the right to %s is granted and was never used", right)
		}
	}
}
