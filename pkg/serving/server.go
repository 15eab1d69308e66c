// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package serving

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"k8s.io/klog/v2"
)

const (
	// shutdownTimeout bounds the wait for requests that are being answered when the
	// server stops.
	shutdownTimeout = 2 * time.Second
	// headerTimeout bounds the wait for the headers of a request, and idleTimeout that
	// for the next request on a connection.
	headerTimeout = 32 * time.Second
	idleTimeout   = 90 * time.Second
	// maxStreams bounds the requests at a time on a connection of HTTP/2.
	maxStreams = 100
	// maxHeaders bounds the headers of a request in bytes, once HTTP/2 has unpacked them.
	maxHeaders = 64 << 10
)

// Server is an HTTPS server whose port is bound.
type Server struct {
	options  *SecureServing
	listener net.Listener
	guard    *guard
	tls      *tls.Config   // without certificates
	shown    *certificates // Invariant: all but the default one are loaded
}

// Listen binds the port. From then on clients can connect; they are answered once
// Serve is called. Listen takes over the options in config and asks the API server
// nothing.
func Listen(config Config) (*Server, error) {
	if err := config.complete(); err != nil {
		return nil, err
	}
	options := config.SecureServing
	guard, err := newGuard(config)
	if err != nil {
		return nil, err
	}
	if options.Listener == nil && options.BindPort <= 0 {
		return nil, fmt.Errorf("--secure-port=%d serves nothing: do not call Listen", options.BindPort)
	}
	s := &Server{options: options, guard: guard}
	if s.tls, err = options.tlsConfig(); err != nil {
		return nil, err
	}
	if s.shown, err = options.certificates(guard.credentials); err != nil {
		return nil, err
	}
	listener := options.Listener
	if listener == nil {
		if listener, err = options.bind(); err != nil {
			return nil, fmt.Errorf("cannot serve on --bind-address=%s --secure-port=%d: %w", options.BindAddress, options.BindPort, err)
		}
	}
	s.listener = &frugal{Listener: listener}
	return s, nil
}

func (s *SecureServing) bind() (net.Listener, error) {
	var config net.ListenConfig
	if s.PermitPortSharing {
		config.Control = sharePort
	}
	return config.Listen(context.Background(), "tcp", net.JoinHostPort(s.BindAddress.String(), strconv.Itoa(s.BindPort)))
}

// Address is where the server listens.
func (s *Server) Address() net.Addr { return s.listener.Addr() }

// Serve answers requests until ctx ends, then lets running requests finish for at
// most 2 s. Without a certificate from a file it makes a self-signed one first,
// which takes a few milliseconds. Serve is called once; handler gets only requests that the
// guard described in the package comment lets in.
func (s *Server) Serve(ctx context.Context, handler http.Handler) error {
	defer func() { _ = s.listener.Close() }() // twice does no harm
	if err := s.shown.makeDefault(s.options); err != nil {
		return fmt.Errorf("certificate to serve: %w", err)
	}
	config := s.shown.follow(s.tls)
	server := s.http(ctx, handler)
	server.TLSConfig = config // net/http reads NextProtos here
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(tls.NewListener(s.listener, config)) }()
	select {
	case err := <-ended:
		return fmt.Errorf("cannot serve on %s: %w", s.Address(), err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	if err := server.Shutdown(grace); errors.Is(err, context.DeadlineExceeded) {
		klog.FromContext(ctx).Info("Requests that take too long are cut off", "after", shutdownTimeout)
		_ = server.Close()
	}
	<-ended
	return nil
}

// http returns the server with its limits.
func (s *Server) http(ctx context.Context, handler http.Handler) *http.Server {
	streams := s.options.HTTP2MaxStreams
	if streams <= 0 {
		streams = maxStreams
	}
	return &http.Server{
		Handler:           s.guard.protect(handler),
		BaseContext:       func(net.Listener) context.Context { return context.WithoutCancel(ctx) }, // has the logger
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaders,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: streams,
			// A client sends no more ahead than its connection may bring, in small pieces.
			MaxReadFrameSize:              16 << 10,
			MaxReceiveBufferPerStream:     maxBody,
			MaxReceiveBufferPerConnection: maxUnanswered,
		},
		ErrorLog: log.New(complaints{klog.FromContext(ctx)}, "", 0),
	}
}

// complaints logs what net/http has to say. Most of it is what strangers did wrong,
// which must not fill the log.
type complaints struct{ logger klog.Logger }

// Write implements io.Writer.
func (c complaints) Write(line []byte) (int, error) {
	text := strings.TrimSpace(string(line))
	if strings.Contains(text, "panic serving") || strings.Contains(text, "Accept error") {
		c.logger.Error(nil, "The HTTPS server has a problem", "problem", text)
	} else {
		c.logger.V(5).Info("The HTTPS server refused a client", "reason", text)
	}
	return len(line), nil
}
