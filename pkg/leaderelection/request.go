// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package leaderelection

import (
	"net/http"
	"strings"
)

// requestKind is what the fence does with a request.
type requestKind int

const (
	// unguarded requests change nothing: reads and reviews.
	unguarded requestKind = iota
	// bounded requests are mutations that end with an answer.
	bounded
	// longRunning requests are upgrades, and those to subresources that stream.
	longRunning
)

// classify tells the kind of a request to the API server whose URLs begin with
// prefix.
func classify(req *http.Request, prefix string) requestKind {
	path := strings.TrimPrefix(req.URL.Path, prefix)
	group, rest := splitGroup(path)
	sub := subresource(rest)
	switch sub {
	case "exec", "attach", "portforward": // over WebSockets these are GET
		return longRunning
	}
	switch req.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, "":
		return unguarded
	}
	if group == "authentication.k8s.io" || group == "authorization.k8s.io" {
		return unguarded
	}
	if req.Header.Get("Upgrade") != "" {
		return longRunning
	}
	if sub == "proxy" {
		return longRunning
	}
	return bounded
}

// splitGroup splits /api/v1/... and /apis/group/version/... into the group and
// the rest.
func splitGroup(path string) (group string, rest []string) {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	switch {
	case len(parts) >= 2 && parts[0] == "api":
		return "", parts[2:]
	case len(parts) >= 3 && parts[0] == "apis":
		return parts[1], parts[3:]
	}
	return "", nil
}

// subresource returns the subresource in [namespaces/ns/]resource/name/sub/...
func subresource(rest []string) string {
	if len(rest) > 2 && rest[0] == "namespaces" && rest[2] != "status" && rest[2] != "finalize" {
		rest = rest[2:]
	}
	if len(rest) < 3 {
		return ""
	}
	return rest[2]
}
