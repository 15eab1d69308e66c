// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package serving

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/util/cert"

	"github.com/incumbent-io/incumbent/test/cluster"
)

func TestOldTLSAndPlainHTTPAreRefused(t *testing.T) {
	const namespace = "tls"
	shared.Namespace(t, namespace)
	p := launch(t, namespace)
	host := strings.TrimPrefix(p.Address, "https://")
	for name, version := range map[string]uint16{"TLS 1.0": tls.VersionTLS10, "TLS 1.1": tls.VersionTLS11} {
		conn, err := tls.Dial("tcp", host, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: version})
		if err == nil {
			_ = conn.Close()
			t.Errorf("%s is spoken, want it refused", name)
		} else if !strings.Contains(err.Error(), "protocol version") {
			t.Errorf("%s: got %v, want a refusal of the protocol version", name, err)
		}
	}
	conn, err := tls.Dial("tcp", host, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12})
	if err != nil {
		t.Errorf("TLS 1.2: %v", err)
	} else {
		_ = conn.Close()
	}
	response, err := (&http.Client{Timeout: 10 * time.Second}).Get("http://" + host + "/livez")
	if err != nil {
		return // refused without a word
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusBadRequest {
		t.Errorf("plain HTTP: got %d, want 400", response.StatusCode)
	}
}

// TestNewCertificateIsServedWithin10Seconds replaces the files as an administrator may,
// and as the kubelet does: by a symbolic link that is switched.
func TestNewCertificateIsServedWithin10Seconds(t *testing.T) {
	const namespace = "renewal"
	shared.Namespace(t, namespace)
	dir := t.TempDir()
	generation := 0
	issue := func(folder string) {
		generation++
		certificate, key, err := cert.GenerateSelfSignedCertKey(fmt.Sprintf("generation-%d", generation), nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(folder, 0o700); err != nil {
			t.Fatal(err)
		}
		for name, content := range map[string][]byte{"tls.crt": certificate, "tls.key": key} {
			if err := os.WriteFile(filepath.Join(folder, name), content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	link := func(version string) {
		issue(filepath.Join(dir, version))
		temporary := filepath.Join(dir, "..next")
		if err := os.Symlink(version, temporary); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(temporary, filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	link("..1")
	for _, name := range []string{"tls.crt", "tls.key"} {
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	p := launch(t, namespace, "--tls-cert-file="+filepath.Join(dir, "tls.crt"), "--tls-private-key-file="+filepath.Join(dir, "tls.key"))
	served := func() error {
		conn, err := tls.Dial("tcp", strings.TrimPrefix(p.Address, "https://"), &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			return err
		}
		defer conn.Close()
		name := conn.ConnectionState().PeerCertificates[0].Subject.CommonName
		if !strings.HasPrefix(name, fmt.Sprintf("generation-%d@", generation)) {
			return fmt.Errorf("it serves %s, want generation %d", name, generation)
		}
		return nil
	}
	if err := served(); err != nil {
		t.Fatal(err)
	}
	link("..2")
	t.Logf("by a link: served after %v", cluster.Eventually(t, 10*time.Second, "the second certificate", served).Round(10*time.Millisecond))
	issue(filepath.Join(dir, "..2"))
	t.Logf("in place: served after %v", cluster.Eventually(t, 10*time.Second, "the third certificate", served).Round(10*time.Millisecond))
	if strings.Count(p.Log(), "Became leader") != 1 {
		t.Error("it did not stay leader meanwhile")
	}
}
