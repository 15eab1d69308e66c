// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package serving

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"

	corev1 "k8s.io/api/core/v1"

	"github.com/incumbent-io/incumbent/test/cluster"
)

// TestNoSecretIsShownOrLogged runs a manager at -v=10 that reads Secrets, with a token
// in its kubeconfig, is asked by callers with tokens of their own, good and bad, and
// looks for all of them in what it shows and logs.
func TestNoSecretIsShownOrLogged(t *testing.T) {
	const namespace = "secrets"
	shared.Namespace(t, namespace)
	kubeconfig := shared.KubeconfigFor(t, namespace, "manager")
	shared.Kubectl(t, "create", "clusterrolebinding", "secrets-manager", "--clusterrole=cluster-admin", "--serviceaccount="+namespace+":manager")
	loaded, err := clientcmd.LoadFromFile(kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	content := strings.Repeat("swordfish-", 10) // so that a dump in lines of 16 has it whole somewhere
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "planted", Annotations: map[string]string{"incumbent.io/ttl": "1h"}},
		StringData: map[string]string{"password": content},
	}
	if _, err := shared.Client.CoreV1().Secrets(namespace).Create(t.Context(), secret, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	keyFile, certFile := filepath.Join(t.TempDir(), "tls.key"), filepath.Join(t.TempDir(), "tls.crt")
	for from, to := range map[string]string{"admin.key": keyFile, "admin.crt": certFile} {
		data, err := os.ReadFile(filepath.Join(shared.Data, "pki", from))
		if err != nil || os.WriteFile(to, data, 0o600) != nil {
			t.Fatal(err)
		}
	}
	key, err := os.ReadFile(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	viewer, nobody, invented := account(t, namespace, "viewer", "get"), account(t, namespace, "nobody"), "an-invented-token-that-may-be-mistyped"
	planted := map[string]string{
		"the token of the manager's kubeconfig": loaded.AuthInfos["c"].Token,
		"a caller's token":                      viewer,
		"the token of a caller without rights":  nobody,
		"an invented token":                     invented,
		"the content of a Secret":               content,
		"the key of the serving certificate":    strings.Split(string(key), "\n")[1],
	}

	for name, format := range map[string]string{"text": "text", "JSON": "json"} {
		t.Run(name, func(t *testing.T) {
			p := shared.Launch(t, "faulty", []string{"FAULTY_NAMESPACE=" + namespace}, "--kubeconfig="+kubeconfig, "--leader-elect-resource-namespace="+namespace,
				"-v=10", "--logging-format="+format, "--profiling", "--controllers=reads-secrets", "--tls-cert-file="+certFile, "--tls-private-key-file="+keyFile)
			awaitLeader(t, p)
			p.AwaitController(t, 20*time.Second, "reads-secrets", "running")
			pages := map[string]string{}
			for _, path := range append(endpoints, open...) {
				for _, token := range []string{"", nobody, invented, viewer} {
					_, body := get(t, p.Address+path, token)
					pages[path] += body
				}
			}
			if status, _ := get(t, p.Address+"/metrics", viewer); status != http.StatusOK {
				t.Errorf("the viewer gets %d, want 200", status)
			}
			cluster.Eventually(t, 10*time.Second, "reviews and Secrets in the log", func() error {
				log := p.Log()
				if !strings.Contains(log, "tokenreviews") || !strings.Contains(log, "/secrets") || !strings.Contains(log, "Response Body") {
					return errors.New("they are not there")
				}
				return nil
			})
			p.Terminate(t)
			pages["the log"] = p.Log()
			for page, text := range pages {
				for what, secret := range planted {
					for form, hidden := range forms(secret) {
						if strings.Contains(text, hidden) {
							t.Errorf("%s: %s is there, %s", page, what, form)
						}
					}
				}
			}
			t.Logf("%d pages and %d bytes of log, of which %d lines are of bodies", len(pages)-1, len(pages["the log"]), strings.Count(pages["the log"], "Body"))
		})
	}
}

// forms are how a secret may be written down. A dump in hexadecimal has lines of 16
// characters, so a part of it must do.
func forms(secret string) map[string]string {
	part := secret[len(secret)/2:]
	part = part[:min(len(part), 12)]
	dump := strings.TrimSpace(strings.ReplaceAll(hex.EncodeToString([]byte(part[:4])), "", " "))
	pairs := strings.Fields(dump)
	var bytes []string
	for i := 0; i+1 < len(pairs); i += 2 {
		bytes = append(bytes, pairs[i]+pairs[i+1])
	}
	return map[string]string{
		"as it is":       part,
		"in base64":      base64.StdEncoding.EncodeToString([]byte(secret))[:12],
		"in hexadecimal": strings.Join(bytes, " "),
	}
}
