// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package e2e

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestStatusShowsAllReplicas asks the replicas of the Deployment as an operator does:
// by a port-forward, directly, and with credentials that are not enough.
func TestStatusShowsAllReplicas(t *testing.T) {
	d := deploy(t)
	const namespace = "operator"
	shared.Namespace(t, namespace)
	issued, err := shared.Client.CoreV1().ServiceAccounts(namespace).CreateToken(t.Context(), "default", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	shared.Kubectl(t, "create", "clusterrole", "status-reader", "--verb=get", "--non-resource-url=/controllers")
	shared.Kubectl(t, "create", "clusterrolebinding", "status-reader", "--clusterrole=status-reader", "--serviceaccount="+namespace+":default")
	t.Cleanup(func() {
		_, _ = shared.Run(context.Background(), "kubectl", "delete", "clusterrole,clusterrolebinding", "status-reader")
	})
	status := func(args ...string) (string, error) {
		return shared.Run(t.Context(), "manager", append([]string{"status", "--kubeconfig=" + shared.Kubeconfig, "--namespace=" + system}, args...)...)
	}
	address := d.pod(t, d.leader(t)).Status.PodIP + ":10257"
	token := "--token-file=" + file(t, issued.Status.Token)
	for name, tc := range map[string]struct {
		args     []string
		replicas string
		leader   string
	}{
		"an administrator's certificate": {replicas: "3 replicas", leader: d.leader(t)},
		"port-forward":                   {args: []string{token}, replicas: "3 replicas", leader: d.leader(t)},
		"direct":                         {args: []string{token, "--direct", "--insecure-skip-tls-verify"}, replicas: "3 replicas", leader: d.leader(t)},
		"address":                        {args: []string{token, "--address=" + address, "--insecure-skip-tls-verify"}, replicas: "1 replica"},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := status(tc.args...)
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			t.Logf("\n%s", out)
			leads := 0
			for line := range strings.Lines(out) {
				if fields := strings.Fields(line); len(fields) > 2 && fields[0] == "default" && fields[1] == "leader" {
					leads++
					if tc.leader != "" && fields[2] != tc.leader {
						t.Errorf("%s is shown to lead, want %s", fields[2], tc.leader)
					}
				}
			}
			if leads != 1 || !strings.Contains(out, tc.replicas) || !strings.Contains(out, "object-ttl") {
				t.Errorf("want %s, one of them leading, and the controllers:\n%s", tc.replicas, out)
			}
		})
	}
	out, err := status(token, "--output=json")
	var all []struct{ Pod string }
	if err != nil || json.Unmarshal([]byte(out), &all) != nil || len(all) != 3 || all[0].Pod == "" {
		t.Errorf("JSON: got %v (%v), want an object of each of three Pods\n%s", all, err, out)
	}
	for name, tc := range map[string]struct {
		args []string
		want []string
	}{
		"a token without permission": {args: []string{"--token-file=" + without(t)}, want: []string{"403", "/controllers"}},
		"another place":              {args: []string{"--namespace=default"}, want: []string{"default", "app.kubernetes.io/name=incumbent"}},
		"nobody there":               {args: []string{"--address=127.0.0.1:1", "--insecure-skip-tls-verify"}, want: []string{"127.0.0.1:1", "refused"}},
		"nobody to trust":            {args: []string{"--direct"}, want: []string{"--certificate-authority"}},
		"another form":               {args: []string{"--output=xml"}, want: []string{`"xml"`, "text or json"}},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := status(tc.args...)
			for _, want := range tc.want {
				if err == nil || !strings.Contains(out, want) {
					t.Errorf("got %v and\n%s\nwant a failure that says %q", err, out, want)
				}
			}
		})
	}
}

// without returns the file of a token of an account that may do nothing.
func without(t *testing.T) string {
	t.Helper()
	token, err := shared.Client.CoreV1().ServiceAccounts("default").CreateToken(t.Context(), "default", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return file(t, token.Status.Token)
}

// file returns the path of a file with the token.
func file(t *testing.T, token string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
