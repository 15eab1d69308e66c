// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package serving

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"strings"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	openpaths "k8s.io/apiserver/pkg/authorization/path"
	"k8s.io/klog/v2"
)

const (
	// maxGuarded bounds the requests to paths that are not open, from before their
	// review to the end of their answer.
	maxGuarded = 64
	// maxBody bounds what a handler can read of a request's body.
	maxBody = 64 << 10
	// bodyTimeout bounds the wait for the body of a request.
	bodyTimeout = 32 * time.Second
	// complaintPeriod is the least time between two log lines that say that the API
	// server cannot be asked: strangers must not fill the log.
	complaintPeriod = 10 * time.Second
)

// guard stands before the handlers and lets in whom it should.
type guard struct {
	open        authorizer.Authorizer // by the path alone
	credentials *credentials
	permissions *permissions
	complained  atomic.Pointer[time.Time] // nil before the first complaint
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
	guarded := limit(g.identify(handler), maxGuarded)
	return http.MaxBytesHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength != 0 { // -1 is not known
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout)) // it can
		}
		switch {
		case !plain(r.URL):
			http.Error(w, "the path is not in its plain form: no //, no dots, no encoded slashes", http.StatusBadRequest)
		case g.isOpen(r):
			dismiss(w, r)
			handler.ServeHTTP(w, r)
		default:
			guarded.ServeHTTP(w, r)
		}
	}), maxBody)
}

// identify lets a request through to permit whose user is known. A stranger's is no
// error: it must not fill the log.
func (g *guard) identify(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		response, ok, err := g.credentials.AuthenticateRequest(r)
		switch {
		case err == nil && ok:
			r.Header.Del("Authorization") // nobody behind needs it
			g.permit(response.User, handler, w, r)
		case errors.As(err, &unanswered{}):
			g.complain(r, err, "Cannot find out who sends a request")
			unavailable(w)
		default:
			klog.FromContext(r.Context()).V(4).Info("Refused a request without valid credentials", "path", r.URL.Path, "err", err)
			dismiss(w, r)
			w.Header().Set("WWW-Authenticate", "Bearer")
			refuse(w, apierrors.NewUnauthorized("Unauthorized"))
		}
	})
}

// dismiss ends a connection of HTTP/2 with this answer. They are expensive, and strangers
// keep none.
func dismiss(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor == 2 {
		w.Header().Set("Connection", "close")
	}
}

// permit lets a request through that its user may make.
func (g *guard) permit(who user.Info, handler http.Handler, w http.ResponseWriter, r *http.Request) {
	verb := strings.ToLower(r.Method)
	answer, err := g.permissions.decide(r.Context(), who, verb, r.URL.Path)
	switch {
	case err != nil:
		g.complain(r, err, "Cannot find out whether a request is permitted", "user", who.GetName())
		unavailable(w)
	case !answer.allowed:
		why := fmt.Errorf("user %q cannot %s path %q", who.GetName(), verb, r.URL.Path)
		if answer.reason != "" {
			why = fmt.Errorf("%w: %s", why, answer.reason)
		}
		refuse(w, apierrors.NewForbidden(schema.GroupResource{}, "", why))
	default:
		handler.ServeHTTP(w, r)
	}
}

// complain logs that nobody could be asked about a request, one of all in complaintPeriod.
func (g *guard) complain(r *http.Request, err error, message string, about ...any) {
	if r.Context().Err() != nil {
		return // the client has not waited for the answer
	}
	now := time.Now()
	last := g.complained.Load()
	if last != nil && now.Sub(*last) < complaintPeriod || !g.complained.CompareAndSwap(last, &now) {
		return
	}
	klog.FromContext(r.Context()).Error(err, message, append(about, "path", r.URL.Path)...)
}

// refuse answers as an API server does, whose clients show the message.
func refuse(w http.ResponseWriter, err *apierrors.StatusError) {
	status := err.Status()
	status.APIVersion, status.Kind = "v1", "Status"
	body, _ := json.Marshal(status) // a status can always be encoded
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(int(status.Code))
	_, _ = w.Write(append(body, '\n'))
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
