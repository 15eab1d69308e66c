// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

// Package serving serves HTTPS with k8s.io/apiserver's secure serving: TLS settings,
// certificate reloading, HTTP/2 and header limits are its own.
package serving

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"k8s.io/apiserver/pkg/server"
	genericoptions "k8s.io/apiserver/pkg/server/options"
	"k8s.io/klog/v2"
)

// shutdownTimeout bounds the wait for requests that are being answered when the
// server stops.
const shutdownTimeout = 2 * time.Second

// Server is an HTTPS server whose port is bound.
type Server struct {
	options *genericoptions.SecureServingOptions
	info    *server.SecureServingInfo
}

// Listen binds the port. From then on clients can connect; they are answered once
// Serve is called. Listen takes over options.
func Listen(options *genericoptions.SecureServingOptions) (*Server, error) {
	s := &Server{options: options}
	port := options.BindPort // ApplyTo changes it, even when it fails
	if err := options.ApplyTo(&s.info); err != nil {
		return nil, fmt.Errorf("cannot serve on --bind-address=%s --secure-port=%d: %w", options.BindAddress, port, err)
	}
	return s, nil
}

// Address is where the server listens.
func (s *Server) Address() net.Addr { return s.info.Listener.Addr() }

// Serve answers requests until ctx ends, then lets running requests finish for at
// most 2 s. Without a certificate from a file it makes a self-signed one first,
// which takes some 100 ms.
func (s *Server) Serve(ctx context.Context, handler http.Handler) error {
	if s.info.Cert == nil {
		// ApplyTo has bound the port, so the certificate goes into the info by hand.
		if err := s.options.MaybeDefaultWithSelfSignedCerts("localhost", nil, []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}); err != nil {
			return fmt.Errorf("self-signed certificate: %w", err)
		}
		s.info.Cert = s.options.ServerCert.GeneratedCert
	}
	stopped, listenerStopped, err := s.info.Serve(handler, shutdownTimeout, ctx.Done())
	if err != nil {
		return fmt.Errorf("cannot serve on %s: %w", s.Address(), err)
	}
	klog.FromContext(ctx).V(2).Info("Serving HTTPS", "address", s.Address().String())
	<-listenerStopped
	<-stopped
	return nil
}
