// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package cluster

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// pki names the files of the cluster's certificates: <name>.crt and <name>.key in one folder.
type pki struct{ dir string }

func (p pki) cert(name string) string { return filepath.Join(p.dir, name+".crt") }
func (p pki) key(name string) string  { return filepath.Join(p.dir, name+".key") }

// The certificate authorities. They are separate because each one's users trust every certificate that it signed.
const (
	clusterCA    = "ca"
	etcdCA       = "etcd-ca"
	frontProxyCA = "front-proxy-ca"
)

// The leaf certificates.
const (
	certServing       = "serving" // of the API server, controller manager and scheduler
	certKubelet       = "kubelet" // of the process nodes' endpoint
	certKubeletClient = "apiserver-kubelet-client"
	certEtcd          = "etcd"
	certEtcdClient    = "apiserver-etcd-client"
	certFrontProxy    = "front-proxy-client"
	certAdmin         = "admin"
	certController    = "kube-controller-manager"
	certScheduler     = "kube-scheduler"
	certNode          = "process-node"
	keyServiceAccount = "service-account"
)

// kubeletClientName is the user that the API server is for the nodes.
const kubeletClientName = "kube-apiserver-kubelet-client"

type leaf struct {
	name, ca   string
	user       string
	groups     []string
	ips        []net.IP
	dnsNames   []string
	serverAuth bool
}

// create writes all authorities, certificates and keys. nodes are the addresses of the process nodes.
func (p pki) create(nodes []net.IP) error {
	type authority struct {
		cert *x509.Certificate
		key  *ecdsa.PrivateKey
	}
	authorities := map[string]authority{}
	for _, name := range []string{clusterCA, etcdCA, frontProxyCA} {
		template := certificate("localcluster-" + name)
		template.IsCA = true
		template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
		key, cert, err := p.write(name, template, nil, nil)
		if err != nil {
			return err
		}
		authorities[name] = authority{cert, key}
	}
	loopback := []net.IP{net.IPv4(127, 0, 0, 1)}
	for _, l := range []leaf{
		{name: certServing, ca: clusterCA, user: "kube-apiserver", serverAuth: true,
			ips: append([]net.IP{net.ParseIP(serviceIP)}, loopback...),
			dnsNames: []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc",
				"kubernetes.default.svc.cluster.local"}},
		{name: certKubelet, ca: clusterCA, user: "process-node", ips: nodes, serverAuth: true},
		{name: certKubeletClient, ca: clusterCA, user: kubeletClientName},
		{name: certEtcd, ca: etcdCA, user: "etcd", ips: loopback, serverAuth: true},
		{name: certEtcdClient, ca: etcdCA, user: "kube-apiserver"},
		{name: certFrontProxy, ca: frontProxyCA, user: "front-proxy-client"},
		{name: certAdmin, ca: clusterCA, user: "kubernetes-admin", groups: []string{"system:masters"}},
		{name: certController, ca: clusterCA, user: "system:kube-controller-manager"},
		{name: certScheduler, ca: clusterCA, user: "system:kube-scheduler"},
		// One user for all nodes, so that no NodeRestriction has to be satisfied by a process that plays them all.
		{name: certNode, ca: clusterCA, user: "localcluster:process-node", groups: []string{"system:masters"}},
	} {
		template := certificate(l.user)
		template.Subject.Organization = l.groups
		template.IPAddresses, template.DNSNames = l.ips, l.dnsNames
		template.KeyUsage = x509.KeyUsageDigitalSignature
		// The etcd server's certificate is its client certificate too: its gateway dials itself.
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		if l.serverAuth {
			template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
		}
		ca := authorities[l.ca]
		if _, _, err := p.write(l.name, template, ca.cert, ca.key); err != nil {
			return err
		}
	}
	// kube-apiserver verifies tokens with this certificate's public key; only the key pair matters.
	_, _, err := p.write(keyServiceAccount, certificate("service-account"), nil, nil)
	return err
}

func certificate(commonName string) *x509.Certificate {
	now := time.Now()
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		panic(err) // The random source of the system never fails.
	}
	return &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: commonName},
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.AddDate(1, 0, 0),
		BasicConstraintsValid: true,
	}
}

// write makes a key, signs the certificate with the authority (or itself) and writes both.
func (p pki) write(name string, template, ca *x509.Certificate, caKey *ecdsa.PrivateKey) (*ecdsa.PrivateKey, *x509.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	if ca == nil {
		ca, caKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca, &key.PublicKey, caKey)
	if err != nil {
		return nil, nil, fmt.Errorf("certificate %s: %w", name, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, err
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	if err := writePEM(p.key(name), "EC PRIVATE KEY", keyDER); err != nil {
		return nil, nil, err
	}
	return key, cert, writePEM(p.cert(name), "CERTIFICATE", der)
}

func writePEM(path, kind string, der []byte) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}

// file returns the path of another file that belongs to the credentials.
func (p pki) file(name string) string { return filepath.Join(p.dir, name) }
