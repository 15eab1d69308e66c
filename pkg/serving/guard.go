// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package serving

import (
	"fmt"
	"net/http"
	"net/url"
	"path"
	"strings"

	"k8s.io/apiserver/pkg/authorization/authorizer"
	openpaths "k8s.io/apiserver/pkg/authorization/path"
	"k8s.io/apiserver/pkg/endpoints/filters"
	"k8s.io/apiserver/pkg/endpoints/handlers/responsewriters"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/klog/v2"
)

const (
	// maxGuarded bounds the requests to paths that are not open, from before their
	// review to the end of their answer.
	maxGuarded = 64
	// maxBody bounds what a handler can read of a request's body.
	maxBody = 64 << 10
)

// guard stands before the handlers and lets in whom it should.
type guard struct {
	open        authorizer.Authorizer // by the path alone
	credentials *credentials
	permissions authorizer.Authorizer
}

func newGuard(config Config) (*guard, error) {
	open, err := openpaths.NewAuthorizer(config.Authorization.AlwaysAllowPaths)
	if err != nil {
		return nil, fmt.Errorf("--authorization-always-allow-paths: %w", err)
	}
	credentials, err := newCredentials(config)
	if err != nil {
		return nil, err
	}
	permissions, err := newPermissions(config)
	if err != nil {
		return nil, err
	}
	return &guard{open: open, credentials: credentials, permissions: permissions}, nil
}

// protect returns handler behind the guard.
func (g *guard) protect(handler http.Handler) http.Handler {
	guarded := limit(withRequestInfo(g.identify(g.permit(handler))), maxGuarded)
	return http.MaxBytesHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case !plain(r.URL):
			http.Error(w, "the path is not in its plain form: no //, no dots, no encoded slashes", http.StatusBadRequest)
		case g.isOpen(r):
			if r.ProtoMajor == 2 {
				// HTTP/2 connections are expensive: strangers keep none.
				w.Header().Set("Connection", "close")
			}
			handler.ServeHTTP(w, r)
		default:
			guarded.ServeHTTP(w, r)
		}
	}), maxBody)
}

// permit lets a request through whose user has the permission.
func (g *guard) permit(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		attributes, err := filters.GetAuthorizerAttributes(r.Context())
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		decision, reason, err := g.permissions.Authorize(r.Context(), attributes)
		switch {
		case decision == authorizer.DecisionAllow:
			handler.ServeHTTP(w, r)
		case err != nil:
			klog.FromContext(r.Context()).Error(err, "Cannot find out whether a request is permitted", "path", r.URL.Path, "user", attributes.GetUser().GetName())
			unavailable(w)
		default:
			responsewriters.Forbidden(attributes, w, r, reason, scheme.Codecs)
		}
	})
}

// identify lets a request through whose user is known. It stands for the filter of
// k8s.io/apiserver, which answers 401 to good credentials too when nobody can be asked
// about them, and logs an error for each bad one: a stranger must not fill the log.
func (g *guard) identify(handler http.Handler) http.Handler {
	unauthorized := filters.Unauthorized(scheme.Codecs)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		response, ok, err := g.credentials.AuthenticateRequest(r)
		switch {
		case err == nil && ok:
			r.Header.Del("Authorization") // nobody behind needs it
			handler.ServeHTTP(w, r.WithContext(request.WithUser(r.Context(), response.User)))
		case unanswered(err):
			klog.FromContext(r.Context()).Error(err, "Cannot find out who sends a request", "path", r.URL.Path)
			unavailable(w)
		default:
			klog.FromContext(r.Context()).V(4).Info("Refused a request without valid credentials", "path", r.URL.Path, "err", err)
			unauthorized.ServeHTTP(w, r)
		}
	})
}

// unavailable says that nobody could be asked about a request. The reason is in the
// log: it is nothing for strangers.
func unavailable(w http.ResponseWriter) {
	w.Header().Set("Retry-After", "1")
	w.Header().Set("Connection", "close") // strangers keep no connection of HTTP/2
	http.Error(w, "the API server that decides on this request cannot be asked", http.StatusServiceUnavailable)
}

func (g *guard) isOpen(r *http.Request) bool {
	decision, _, err := g.open.Authorize(r.Context(), authorizer.AttributesRecord{Path: r.URL.Path})
	return err == nil && decision == authorizer.DecisionAllow
}

// plain reports whether a path means the same to the guard, to the API server that is
// asked about it and to the mux behind.
func plain(u *url.URL) bool {
	return u.RawPath == "" && u.Path != "" && (u.Path == "/" || path.Clean(u.Path) == strings.TrimSuffix(u.Path, "/"))
}

// withRequestInfo tells the filters what is asked for: always a path, never a
// resource.
func withRequestInfo(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		info := &request.RequestInfo{Path: r.URL.Path, Verb: strings.ToLower(r.Method)}
		handler.ServeHTTP(w, r.WithContext(request.WithRequestInfo(r.Context(), info)))
	})
}

// limit refuses requests while as many as n are being answered.
func limit(handler http.Handler, n int) http.Handler {
	places := make(chan struct{}, n)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case places <- struct{}{}:
			defer func() { <-places }()
			handler.ServeHTTP(w, r)
		default:
			w.Header().Set("Retry-After", "1")
			http.Error(w, "too many requests are being answered", http.StatusTooManyRequests)
		}
	})
}
