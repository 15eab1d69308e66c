// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package serving

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/keyutil"
	cliflag "k8s.io/component-base/cli/flag"
)

// certificates are what the server shows, and whose certificates it asks clients for.
type certificates struct {
	pair   func(context.Context) *tls.Certificate // nil before makeDefault
	others []*namedPair
	asked  *credentials
}

// namedPair is a certificate for some names.
type namedPair struct {
	names []string // those in the certificate if empty
	*files[*tls.Certificate]
}

// tlsConfig returns what does not change while the server runs.
func (s *SecureServing) tlsConfig() (*tls.Config, error) {
	version, err := cliflag.TLSVersion(s.MinTLSVersion)
	if err != nil {
		return nil, fmt.Errorf("--tls-min-version=%s: %w", s.MinTLSVersion, err)
	}
	suites, err := cliflag.TLSCipherSuites(s.CipherSuites)
	if err != nil {
		return nil, fmt.Errorf("--tls-cipher-suites=%s: %w", s.CipherSuites, err)
	}
	curves, err := cliflag.TLSCurvePreferences(s.CurvePreferences)
	if err != nil {
		return nil, fmt.Errorf("--tls-curve-preferences=%v: %w", s.CurvePreferences, err)
	}
	protocols := []string{"h2", "http/1.1"}
	if s.DisableHTTP2 {
		protocols = protocols[1:]
	}
	return &tls.Config{MinVersion: version, CipherSuites: suites, CurvePreferences: curves, NextProtos: protocols}, nil
}

// certificates loads the certificates that flags name.
func (s *SecureServing) certificates(asked *credentials) (*certificates, error) {
	c := &certificates{asked: asked}
	var errs []error
	if s.CertFile != "" || s.KeyFile != "" {
		pair, err := newFiles(keyPair, s.CertFile, s.KeyFile)
		if err != nil {
			errs = append(errs, fmt.Errorf("--tls-cert-file=%s --tls-private-key-file=%s: %w", s.CertFile, s.KeyFile, err))
		} else {
			c.pair = pair.get
		}
	}
	for _, other := range s.SNICertKeys {
		pair, err := newFiles(keyPair, other.CertFile, other.KeyFile)
		if err != nil {
			errs = append(errs, fmt.Errorf("--tls-sni-cert-key=%s,%s: %w", other.CertFile, other.KeyFile, err))
			continue
		}
		c.others = append(c.others, &namedPair{other.Names, pair})
	}
	return c, errors.Join(errs...)
}

// keyPair is what the files of a certificate, with its chain, and of its key mean.
func keyPair(contents [][]byte) (*tls.Certificate, error) {
	pair, err := tls.X509KeyPair(contents[0], contents[1])
	if err != nil {
		return nil, err
	}
	return &pair, nil
}

// makeDefault has the pair in --cert-dir, made if it is not there, or one that lives in
// memory stand in for one that no flag names.
func (c *certificates) makeDefault(options *SecureServing) error {
	if c.pair != nil {
		return nil
	}
	if options.CertDirectory == "" {
		certificate, key, err := selfSigned(options.BindAddress)
		if err != nil {
			return err
		}
		pair, err := keyPair([][]byte{certificate, key})
		c.pair = func(context.Context) *tls.Certificate { return pair }
		return err
	}
	base := filepath.Join(options.CertDirectory, options.PairName)
	there, err := cert.CanReadCertAndKey(base+".crt", base+".key")
	if err != nil {
		return err
	}
	if !there {
		certificate, key, err := selfSigned(options.BindAddress)
		if err := errors.Join(err, keyutil.WriteKey(base+".key", key), cert.WriteCert(base+".crt", certificate)); err != nil {
			return err
		}
	}
	pair, err := newFiles(keyPair, base+".crt", base+".key")
	if err != nil {
		return err
	}
	c.pair = pair.get
	return nil
}

// selfSigned returns a new certificate for this host and address, and its key, in PEM.
func selfSigned(address net.IP) (certificate, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: fmt.Sprintf("localhost@%d", now.Unix())},
		NotBefore:             now.Add(-time.Hour), // for clients whose clock is behind
		NotAfter:              now.AddDate(1, 0, 0),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		IsCA:                  true, // so that a client can be told to trust it
		DNSNames:              []string{"localhost"},
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	if address != nil && !address.IsUnspecified() {
		template.IPAddresses = append(template.IPAddresses, address)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		return nil, nil, err
	}
	if key, err = keyutil.MarshalPrivateKeyToPEM(private); err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: cert.CertificateBlockType, Bytes: der}), key, nil
}

// follow returns base with the certificates, as they are when a client connects.
func (c *certificates) follow(base *tls.Config) *tls.Config {
	served := base.Clone()
	served.GetCertificate = c.choose
	if len(c.asked.clientCAs) == 0 {
		return served
	}
	served.ClientAuth = tls.RequestClientCert // whose it is, the guard decides
	asking := served.Clone()
	served.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		config := asking.Clone()
		config.ClientCAs = pool(c.asked.known(hello.Context())) // which of theirs clients show
		return config, nil
	}
	return served
}

// choose returns the certificate for the name that a client wants, or for the address
// that it has come to if it names none. A name that is given wins over one that only the
// certificate has, and a whole name over a wildcard.
func (c *certificates) choose(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	ctx := hello.Context()
	if len(c.others) == 0 {
		return c.pair(ctx), nil
	}
	wanted := strings.ToLower(strings.TrimSuffix(hello.ServerName, "."))
	if wanted == "" {
		wanted, _, _ = net.SplitHostPort(hello.Conn.LocalAddr().String()) // "" is nobody's name
	}
	_, domain, _ := strings.Cut(wanted, ".")
	for _, name := range []string{wanted, "*." + domain} {
		for _, given := range []bool{true, false} {
			for _, other := range c.others {
				pair := other.get(ctx)
				names := other.names
				if len(names) == 0 {
					names = namesOf(pair)
				}
				if given == (len(other.names) > 0) && slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, name) }) {
					return pair, nil
				}
			}
		}
	}
	return c.pair(ctx), nil
}

// namesOf returns the names and addresses that a certificate is for.
func namesOf(pair *tls.Certificate) []string {
	names := slices.Clone(pair.Leaf.DNSNames)
	for _, address := range pair.Leaf.IPAddresses {
		names = append(names, address.String())
	}
	return names
}
