// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package cluster

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"testing"
)

func TestCertificatesAreTrustedByTheirUsersOnly(t *testing.T) {
	p := pki{t.TempDir()}
	if err := p.create([]net.IP{net.IPv4(127, 9, 0, 1)}); err != nil {
		t.Fatal(err)
	}
	const client, server = x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth
	for _, test := range []struct {
		cert, ca string
		usage    x509.ExtKeyUsage
		name     string // of the server
		trusted  bool
	}{
		{certServing, clusterCA, server, "127.0.0.1", true},
		{certServing, clusterCA, server, "kubernetes.default.svc", true},
		{certServing, clusterCA, server, "127.9.0.1", false},
		{certServing, etcdCA, server, "127.0.0.1", false},
		{certKubelet, clusterCA, server, "127.9.0.1", true},
		{certEtcd, etcdCA, server, "127.0.0.1", true},
		{certEtcdClient, etcdCA, client, "", true},
		{certAdmin, clusterCA, client, "", true},
		{certAdmin, etcdCA, client, "", false}, // the administrator goes through the API server
		{certAdmin, clusterCA, server, "127.0.0.1", false},
		{certFrontProxy, clusterCA, client, "", false},
		{certFrontProxy, frontProxyCA, client, "", true},
		{certController, clusterCA, client, "", true},
	} {
		pair, err := tls.LoadX509KeyPair(p.cert(test.cert), p.key(test.cert))
		if err != nil {
			t.Fatal(err)
		}
		ca, err := os.ReadFile(p.cert(test.ca))
		if err != nil {
			t.Fatal(err)
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(ca)
		_, err = pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: test.name, KeyUsages: []x509.ExtKeyUsage{test.usage}})
		if (err == nil) != test.trusted {
			t.Errorf("%s by %s as %q: got %v, want trusted %v", test.cert, test.ca, test.name, err, test.trusted)
		}
		if info, err := os.Stat(p.key(test.cert)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("the key of %s has mode %v (%v)", test.cert, info.Mode(), err)
		}
	}
}
