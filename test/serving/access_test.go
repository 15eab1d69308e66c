// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package serving

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/keyutil"

	"github.com/incumbent-io/incumbent/test/cluster"
)

// expired returns the token as if it had been issued yesterday, signed by the key of
// the cluster: nothing is wrong with it but its time.
func expired(t *testing.T, token string) string {
	t.Helper()
	parts := strings.Split(token, ".")
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	var claims map[string]any
	if err := json.Unmarshal(payload, &claims); err != nil {
		t.Fatal(err)
	}
	yesterday := time.Now().Add(-24 * time.Hour).Unix()
	claims["iat"], claims["nbf"], claims["exp"] = yesterday, yesterday, yesterday+3600
	if payload, err = json.Marshal(claims); err != nil {
		t.Fatal(err)
	}
	signed := parts[0] + "." + base64.RawURLEncoding.EncodeToString(payload)
	return signed + "." + base64.RawURLEncoding.EncodeToString(sign(t, signed))
}

func sign(t *testing.T, text string) []byte {
	t.Helper()
	key, err := keyutil.PrivateKeyFromFile(filepath.Join(shared.Data, "pki/service-account.key"))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(text))
	switch key := key.(type) {
	case *rsa.PrivateKey:
		signature, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
		if err != nil {
			t.Fatal(err)
		}
		return signature
	case *ecdsa.PrivateKey:
		r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
		if err != nil {
			t.Fatal(err)
		}
		return append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	}
	t.Fatalf("the cluster signs tokens by a %T", key)
	return nil
}

func TestEveryEndpointAsksWhoItIs(t *testing.T) {
	const namespace = "access"
	shared.Namespace(t, namespace)
	p := launch(t, namespace, "--profiling")
	viewer := account(t, namespace, "viewer", "get")
	nobody := account(t, namespace, "nobody")
	gone := account(t, namespace, "gone", "get")
	if err := shared.Client.CoreV1().ServiceAccounts(namespace).Delete(t.Context(), "gone", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	// The test is worth something only if a token made in this way is good while its
	// time lasts.
	if status, _ := get(t, p.Address+"/metrics", viewer); status != http.StatusOK {
		t.Fatalf("a good token: got %d, want 200", status)
	}
	var index struct{ Paths []string }
	if _, body := get(t, p.Address+"/", viewer); json.Unmarshal([]byte(body), &index) != nil {
		t.Fatalf("the index is no JSON: %s", body)
	}
	for _, path := range index.Paths {
		path = strings.Replace(path, "NAME", "object-ttl", 1)
		if !strings.Contains(strings.Join(endpoints, " ")+" "+strings.Join(open, " "), path) {
			t.Errorf("%s is served and not tested: add it to the endpoints", path)
		}
	}
	for name, tc := range map[string]struct {
		token   string
		refused int // 0: it is let in
	}{
		"no token":             {"", http.StatusUnauthorized},
		"a wrong token":        {"swordfish", http.StatusUnauthorized},
		"another signature":    {viewer[:len(viewer)-8] + "AAAAAAAA", http.StatusUnauthorized},
		"an expired token":     {expired(t, viewer), http.StatusUnauthorized},
		"a revoked token":      {gone, http.StatusUnauthorized},
		"a user without right": {nobody, http.StatusForbidden},
		"a user with rights":   {viewer, 0},
	} {
		for _, path := range endpoints {
			wanted := tc.refused
			if wanted == 0 {
				wanted = want(path)
			}
			if status, body := get(t, p.Address+path, tc.token); status != wanted {
				t.Errorf("%s, %s: got %d, want %d: %.200s", name, path, status, wanted, body)
			}
		}
		for _, path := range open {
			if status, body := get(t, p.Address+path, tc.token); status != http.StatusOK {
				t.Errorf("%s, %s: got %d, want 200: %.200s", name, path, status, body)
			}
		}
	}

	// To change the verbosity takes the verb put.
	put := func(token string) int {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPut, p.Address+"/debug/flags/v", strings.NewReader("4"))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Authorization", "Bearer "+token)
		response, err := anyCertificate(nil).Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		return response.StatusCode
	}
	if got := put(viewer); got != http.StatusForbidden {
		t.Errorf("PUT by a user who may get: got %d, want 403", got)
	}
	if got := put(account(t, namespace, "operator", "get", "put")); got != http.StatusOK {
		t.Errorf("PUT by a user who may put: got %d, want 200", got)
	}
	if _, body := get(t, p.Address+"/debug/flags/v", viewer); strings.TrimSpace(body) != "4" {
		t.Errorf("the verbosity is %q after PUT, want 4", body)
	}

	// A token that was good and is revoked is good for as long as the answer is kept.
	if err := shared.Client.CoreV1().ServiceAccounts(namespace).Delete(t.Context(), "viewer", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	took := cluster.Eventually(t, 15*time.Second, "the revoked token is refused", func() error {
		if status, _ := get(t, p.Address+"/metrics", viewer); status != http.StatusUnauthorized {
			return fmt.Errorf("got %d, want 401", status)
		}
		return nil
	})
	t.Logf("a token that had been used is refused %v after its account was deleted", took.Round(100*time.Millisecond))
}

// anyCertificate is a client that takes any certificate of a server, with one of its own
// or nil.
func anyCertificate(own *tls.Certificate) *http.Client {
	config := &tls.Config{InsecureSkipVerify: true}
	if own != nil {
		config.Certificates = []tls.Certificate{*own}
	}
	return &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}
}

func TestClientCertificatesCountByTheirCA(t *testing.T) {
	const namespace = "certificates"
	shared.Namespace(t, namespace)
	pki := filepath.Join(shared.Data, "pki")
	load := func(name string) *tls.Certificate {
		pair, err := tls.LoadX509KeyPair(filepath.Join(pki, name+".crt"), filepath.Join(pki, name+".key"))
		if err != nil {
			t.Fatal(err)
		}
		return &pair
	}
	knowing := launch(t, namespace, "--client-ca-file="+filepath.Join(pki, "ca.crt"))
	asking := shared.Launch(t, "manager", nil, "--kubeconfig="+shared.Kubeconfig, "--leader-elect-resource-namespace="+namespace)
	refusing := shared.Launch(t, "manager", nil, "--kubeconfig="+shared.Kubeconfig, "--leader-elect-resource-namespace="+namespace, "--authentication-skip-lookup")
	for _, p := range []*cluster.Process{asking, refusing} {
		cluster.Eventually(t, 20*time.Second, "it serves", func() error {
			_, _, err := cluster.Get(t, p.Address+"/livez", "")
			return err
		})
	}
	for name, tc := range map[string]struct {
		of          *cluster.Process
		certificate string
		want        int
	}{
		"an administrator's":      {knowing, "admin", http.StatusOK},
		"of a user without right": {knowing, "kube-scheduler", http.StatusForbidden},
		"of another CA":           {knowing, "front-proxy-client", http.StatusUnauthorized},
		"of the cluster's CA":     {asking, "admin", http.StatusOK},
		"of another than that":    {asking, "front-proxy-client", http.StatusUnauthorized},
		"where none counts":       {refusing, "admin", http.StatusUnauthorized},
	} {
		response, err := anyCertificate(load(tc.certificate)).Get(tc.of.Address + "/configz")
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		body, _ := io.ReadAll(response.Body)
		_ = response.Body.Close()
		if response.StatusCode != tc.want {
			t.Errorf("%s: got %d, want %d: %.200s", name, response.StatusCode, tc.want, body)
		}
	}
}
