// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package serving

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	genericoptions "k8s.io/apiserver/pkg/server/options"
)

// shutdownTimeout bounds the wait for requests that are being answered when the
// server stops.
const shutdownTimeout = 2 * time.Second

// Server is an HTTPS server whose port is bound.
type Server struct {
	options *genericoptions.SecureServingOptions
	info    *server.SecureServingInfo
	guard   *guard
}

// Listen binds the port. From then on clients can connect; they are answered once
// Serve is called. Listen takes over the options in config and asks the API server
// nothing.
func Listen(config Config) (*Server, error) {
	if err := config.complete(); err != nil {
		return nil, err
	}
	guard, err := newGuard(config)
	if err != nil {
		return nil, err
	}
	s := &Server{options: config.SecureServing, guard: guard}
	port := s.options.BindPort // ApplyTo changes it, even when it fails
	if err := s.options.ApplyTo(&s.info); err != nil {
		if s.options.Listener != nil {
			_ = s.options.Listener.Close()
		}
		return nil, fmt.Errorf("cannot serve on --bind-address=%s --secure-port=%d: %w", s.options.BindAddress, port, err)
	}
	if s.info == nil {
		return nil, fmt.Errorf("--secure-port=%d serves nothing: do not call Listen", port)
	}
	s.info.Listener = &frugal{Listener: s.info.Listener}
	s.info.ClientCA = guard.credentials.clientCA
	return s, nil
}

// Address is where the server listens.
func (s *Server) Address() net.Addr { return s.info.Listener.Addr() }

// Serve answers requests until ctx ends, then lets running requests finish for at
// most 2 s. Without a certificate from a file it makes a self-signed one first,
// which takes some 100 ms. Serve is called once; handler gets only requests that the
// guard described in the package comment lets in.
func (s *Server) Serve(ctx context.Context, handler http.Handler) error {
	if s.info.Cert == nil {
		// ApplyTo has bound the port already, so the certificate goes into the info by hand.
		var err error
		if s.info.Cert, err = s.defaultCertificate(); err != nil {
			_ = s.info.Listener.Close()
			return fmt.Errorf("self-signed certificate: %w", err)
		}
	}
	defer s.readFilesAgain(ctx)()
	stopped, listenerStopped, err := s.info.Serve(s.guard.protect(handler), shutdownTimeout, ctx.Done())
	if err != nil {
		return fmt.Errorf("cannot serve on %s: %w", s.Address(), err)
	}
	<-listenerStopped
	<-stopped
	return nil
}

// defaultCertificate is the pair in --cert-dir, made if it is not there, or one that
// lives in memory.
func (s *Server) defaultCertificate() (dynamiccertificates.CertKeyContentProvider, error) {
	if err := s.options.MaybeDefaultWithSelfSignedCerts("localhost", nil, []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}); err != nil {
		return nil, err
	}
	certificate := &s.options.ServerCert
	if certificate.GeneratedCert != nil {
		return certificate.GeneratedCert, nil
	}
	return dynamiccertificates.NewDynamicServingContentFromFiles("serving-cert", certificate.CertKey.CertFile, certificate.CertKey.KeyFile)
}

// rereadPeriod is how often the files of certificates are read without a sign that they
// have changed.
const rereadPeriod = 5 * time.Second

// readFilesAgain reads the files of certificates and CAs every rereadPeriod, until ctx
// ends or stop is called. k8s.io/apiserver notices what happens to the files, but not that
// a symbolic link on the way to them leads elsewhere, until a minute later. What it can
// not read, it tells of itself.
func (s *Server) readFilesAgain(ctx context.Context) (stop func()) {
	type file interface{ RunOnce(context.Context) error }
	var files []file
	add := func(content any) {
		if f, ok := content.(file); ok {
			files = append(files, f)
		}
	}
	add(s.info.Cert)
	add(s.info.ClientCA)
	for _, content := range s.info.SNICerts {
		add(content)
	}
	ctx, cancel := context.WithCancel(ctx)
	var reading sync.WaitGroup
	reading.Go(func() {
		for len(files) > 0 {
			select {
			case <-time.After(rereadPeriod):
			case <-ctx.Done():
				return
			}
			for _, f := range files {
				_ = f.RunOnce(ctx)
			}
		}
	})
	return func() {
		cancel()
		reading.Wait()
	}
}
