// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

// Package serving serves HTTPS with k8s.io/apiserver's secure serving and delegated
// authentication and authorization: TLS settings, certificate reloading, HTTP/2 and
// header limits, tokens and permissions are its own.
//
// Guarantees: the paths of --authorization-always-allow-paths are served to everybody,
// and nobody is asked about them, whatever credentials come along. Every other path needs credentials that the API server
// recognises, of a user who may use the HTTP method on that path as a non-resource URL.
// An API server that does not answer holds up none of the open paths.
package serving

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"

	"k8s.io/apiserver/pkg/endpoints/filters"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	genericfilters "k8s.io/apiserver/pkg/server/filters"
	genericoptions "k8s.io/apiserver/pkg/server/options"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/klog/v2"
)

// shutdownTimeout bounds the wait for requests that are being answered when the
// server stops.
const shutdownTimeout = 2 * time.Second

// Config says where to serve, and whom. Listen takes it over.
type Config struct {
	// Secure is where to listen, and the certificate. Required.
	Secure *genericoptions.SecureServingOptions
	// Authentication and Authorization say who decides; see their flags. Required.
	Authentication *genericoptions.DelegatingAuthenticationOptions
	Authorization  *genericoptions.DelegatingAuthorizationOptions
}

// Server is an HTTPS server whose port is bound.
type Server struct {
	options *genericoptions.SecureServingOptions
	info    *server.SecureServingInfo
	authn   server.AuthenticationInfo
	authz   server.AuthorizationInfo
	open    []string // paths served to everybody; one that ends in * is a prefix
}

// Listen binds the port. From then on clients can connect; they are answered once
// Serve is called. It asks the API server for nothing.
func Listen(config Config) (*Server, error) {
	s := &Server{options: config.Secure, open: config.Authorization.AlwaysAllowPaths}
	config.Authorization.AlwaysAllowPaths = nil // they never come so far
	port := config.Secure.BindPort              // ApplyTo changes it, even when it fails
	if err := config.Secure.ApplyTo(&s.info); err != nil {
		return nil, fmt.Errorf("cannot serve on --bind-address=%s --secure-port=%d: %w", config.Secure.BindAddress, port, err)
	}
	if err := config.Authentication.ApplyTo(&s.authn, s.info, nil); err != nil {
		return nil, s.fail(fmt.Errorf("authentication of requests: %w", err))
	}
	if err := config.Authorization.ApplyTo(&s.authz); err != nil {
		return nil, s.fail(fmt.Errorf("authorization of requests: %w", err))
	}
	return s, nil
}

// fail gives the port back.
func (s *Server) fail(err error) error {
	_ = s.info.Listener.Close() // err says more
	return err
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
		if s.info.Cert = s.options.ServerCert.GeneratedCert; s.info.Cert == nil { // --cert-dir has a pair now
			pair := s.options.ServerCert.CertKey
			content, err := dynamiccertificates.NewDynamicServingContentFromFiles("serving-cert", pair.CertFile, pair.KeyFile)
			if err != nil {
				return fmt.Errorf("certificate of --cert-dir: %w", err)
			}
			s.info.Cert = content
		}
	}
	stopped, listenerStopped, err := s.info.Serve(s.guard(handler), shutdownTimeout, ctx.Done())
	if err != nil {
		return fmt.Errorf("cannot serve on %s: %w", s.Address(), err)
	}
	klog.FromContext(ctx).V(2).Info("Serving HTTPS", "address", s.Address().String())
	<-listenerStopped
	<-stopped
	return nil
}

// maxBody is how large the body of a request may be, in bytes.
const maxBody = 1 << 20

// guard lets a request through to the handler that its user may make.
func (s *Server) guard(handler http.Handler) http.Handler {
	inner := handler
	handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		inner.ServeHTTP(w, r)
	})
	if s.authz.Authorizer != nil {
		handler = filters.WithAuthorization(handler, s.authz.Authorizer, scheme.Codecs)
	}
	if s.authn.Authenticator != nil {
		handler = filters.WithAuthentication(handler, s.authn.Authenticator, filters.Unauthorized(scheme.Codecs), s.authn.APIAudiences, s.authn.RequestHeaderConfig)
	}
	handler = s.openOr(inner, handler)
	resolver := &request.RequestInfoFactory{} // no path of ours is a resource's
	return genericfilters.WithPanicRecovery(filters.WithRequestInfo(handler, resolver), resolver)
}

// openOr serves the open paths without a look at who asks: to review a token takes an
// API server that answers, and health must not wait for one.
func (s *Server) openOr(open, guarded http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked := r.URL.Path
		if asked == path.Clean(asked) && slices.ContainsFunc(s.open, func(allowed string) bool {
			prefix, any := strings.CutSuffix(allowed, "*")
			return asked == allowed || any && strings.HasPrefix(asked, prefix)
		}) {
			open.ServeHTTP(w, r)
			return
		}
		guarded.ServeHTTP(w, r)
	})
}
