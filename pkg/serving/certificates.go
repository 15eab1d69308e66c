// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package serving

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"time"

	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/keyutil"
	cliflag "k8s.io/component-base/cli/flag"
)

// rereadPeriod is how often the files of certificates are read without a sign that they
// have changed.
const rereadPeriod = 5 * time.Second

// certificates are what the server shows, and whose certificates it asks clients for.
type certificates struct {
	pair     dynamiccertificates.CertKeyContentProvider // nil before makeDefault
	sni      []dynamiccertificates.SNICertKeyContentProvider
	clientCA dynamiccertificates.CAContentProvider // nil asks clients for none
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
func (s *SecureServing) certificates(clientCA dynamiccertificates.CAContentProvider) (*certificates, error) {
	c := &certificates{clientCA: clientCA}
	var errs []error
	if s.CertFile != "" || s.KeyFile != "" {
		pair, err := dynamiccertificates.NewDynamicServingContentFromFiles("serving-cert", s.CertFile, s.KeyFile)
		if err != nil {
			errs = append(errs, fmt.Errorf("--tls-cert-file=%s --tls-private-key-file=%s: %w", s.CertFile, s.KeyFile, err))
		}
		c.pair = pair
	}
	for _, named := range s.SNICertKeys {
		pair, err := dynamiccertificates.NewDynamicSNIContentFromFiles("sni-serving-cert", named.CertFile, named.KeyFile, named.Names...)
		if err != nil {
			errs = append(errs, fmt.Errorf("--tls-sni-cert-key=%s,%s: %w", named.CertFile, named.KeyFile, err))
		}
		c.sni = append(c.sni, pair)
	}
	return c, errors.Join(errs...)
}

// makeDefault has the pair in --cert-dir, made if it is not there, or one that lives in
// memory stand in for one that no flag names.
func (c *certificates) makeDefault(options *SecureServing) (err error) {
	if c.pair != nil {
		return nil
	}
	if options.CertDirectory == "" {
		certificate, key, err := selfSigned(options.BindAddress)
		if err == nil {
			c.pair, err = dynamiccertificates.NewStaticCertKeyContent("self-signed", certificate, key)
		}
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
	c.pair, err = dynamiccertificates.NewDynamicServingContentFromFiles("serving-cert", base+".crt", base+".key")
	return err
}

func selfSigned(address net.IP) (certificate, key []byte, err error) {
	addresses := []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	if address != nil && !address.IsUnspecified() {
		addresses = append(addresses, address)
	}
	return cert.GenerateSelfSignedCertKey("localhost", addresses, nil)
}

// follow returns base with the certificates, which change with their files until ctx
// ends. What it starts is in running.
func (c *certificates) follow(ctx context.Context, base *tls.Config, running *sync.WaitGroup) (*tls.Config, error) {
	base = base.Clone()
	sources := []dynamiccertificates.Notifier{c.pair}
	for _, pair := range c.sni {
		sources = append(sources, pair)
	}
	if c.clientCA != nil {
		base.ClientAuth = tls.RequestClientCert // whose it is, the guard decides
		sources = append(sources, c.clientCA)
	}
	current := dynamiccertificates.NewDynamicServingCertificateController(base, c.clientCA, c.pair, c.sni, nil)
	var files []dynamiccertificates.ControllerRunner
	for _, source := range sources {
		source.AddListener(current)
		if file, ok := source.(dynamiccertificates.ControllerRunner); ok {
			files = append(files, file)
		}
	}
	if err := current.RunOnce(); err != nil {
		return nil, err
	}
	running.Go(func() { current.Run(1, ctx.Done()) })
	for _, file := range files {
		running.Go(func() { file.Run(ctx, 1) })
	}
	running.Go(func() { readAgain(ctx, files) })
	served := base.Clone()
	served.GetConfigForClient = current.GetConfigForClient
	return served, nil
}

// readAgain reads files every rereadPeriod until ctx ends. k8s.io/apiserver notices what
// happens to a file, but not that a symbolic link on the way to it leads elsewhere, until
// a minute later. What it cannot read, it tells of itself.
func readAgain(ctx context.Context, files []dynamiccertificates.ControllerRunner) {
	for len(files) > 0 {
		select {
		case <-time.After(rereadPeriod):
		case <-ctx.Done():
			return
		}
		for _, file := range files {
			_ = file.RunOnce(ctx)
		}
	}
}
