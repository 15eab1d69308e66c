// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

// Package serving tests on a real control plane who may see what of a manager, that
// nothing it shows or logs is a secret, and that no client can keep it from its work.
// SERVING_ABUSE, a duration such as 60s, sets how long each abuse goes on.
package serving

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/incumbent-io/incumbent/test/cluster"
)

// shared is the local cluster of all tests of this package.
var shared *cluster.Cluster

func TestMain(m *testing.M) {
	os.Exit(cluster.Main(cluster.Config{Programs: []string{"./test/e2e/faulty"}}, func(c *cluster.Cluster) int {
		shared = c
		return m.Run()
	}))
}

// launch starts the shipped manager with a lease of its own and waits until it leads.
func launch(t *testing.T, namespace string, args ...string) *cluster.Process {
	t.Helper()
	p := shared.Launch(t, "manager", nil, append([]string{
		"--kubeconfig=" + shared.Kubeconfig, "--leader-elect-resource-namespace=" + namespace,
	}, args...)...)
	awaitLeader(t, p)
	return p
}

func awaitLeader(t *testing.T, p *cluster.Process) {
	t.Helper()
	cluster.Eventually(t, 30*time.Second, "the manager leads", func() error {
		_, body, err := cluster.Get(t, p.Address+"/readyz?verbose", "")
		if err == nil && !strings.Contains(body, "leader, epoch") {
			err = fmt.Errorf("/readyz says: %s", body)
		}
		return err
	})
}

// account makes a service account that may use the verbs on every endpoint, and
// returns a token of it.
func account(t *testing.T, namespace, name string, verbs ...string) string {
	t.Helper()
	if len(verbs) > 0 {
		role := namespace + "-" + name
		shared.Kubectl(t, "create", "clusterrole", role, "--verb="+strings.Join(verbs, ","), "--non-resource-url=/*", "--non-resource-url=/")
		shared.Kubectl(t, "create", "clusterrolebinding", role, "--clusterrole="+role, "--serviceaccount="+namespace+":"+name)
		t.Cleanup(func() {
			_, _ = shared.Run(context.Background(), "kubectl", "delete", "clusterrole,clusterrolebinding", role)
		})
	}
	accounts := shared.Client.CoreV1().ServiceAccounts(namespace)
	if _, err := accounts.Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	token, err := accounts.CreateToken(t.Context(), name, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return token.Status.Token
}

// get fetches a page and returns the status and the body.
func get(t *testing.T, url, token string) (int, string) {
	t.Helper()
	status, body, err := cluster.Get(t, url, token)
	if err != nil {
		t.Fatalf("%s: %v", url, err)
	}
	return status, body
}

// endpoints are all that a manager serves, but for the open ones. The test that uses
// them compares them with the list that the manager itself has.
var endpoints = []string{
	"/", "/configz", "/controllers", "/controllers?format=html", "/controllers?format=text",
	"/debug/controllers/object-ttl/", "/debug/flags/v", "/debug/pprof/", "/debug/pprof/goroutine?debug=1",
	"/debug/pprof/heap", "/debug/pprof/cmdline", "/debug/pprof/symbol", "/flagz", "/metrics", "/metrics/slis", "/statusz", "/nothing",
}

// open are those that everybody may see.
var open = []string{"/livez", "/livez?verbose", "/livez/ping", "/readyz", "/readyz?exclude=caches", "/readyz/leader-election", "/healthz", "/healthz?verbose", "/healthz/object-ttl"}

// notThere are the endpoints above that nothing is behind.
var notThere = map[string]bool{"/nothing": true, "/debug/controllers/object-ttl/": true, "/debug/pprof/cmdline": true}

// want is what a caller with the rights gets.
func want(path string) int {
	if notThere[path] {
		return http.StatusNotFound
	}
	return http.StatusOK
}
