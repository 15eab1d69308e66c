// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package serving

import (
	"net/http"
	"slices"
)

// Routes are a manager's endpoints. What is nil is not there.
type Routes struct {
	// Manager and Version are what /statusz and /flagz call the process. Both are
	// required.
	Manager, Version string

	// Live, Ready and Health serve /livez, /readyz and /healthz and what is below.
	Live, Ready, Health http.Handler
	// Status serves /controllers.
	Status http.Handler
	// Metrics serves /metrics, and SLIs /metrics/slis; see the function Metrics.
	Metrics, SLIs http.Handler
	// Config returns what /configz shows as JSON. It must hold no secrets and is
	// called from many goroutines.
	Config func() any
	// Flags are what /flagz shows: names and values, without secrets.
	Flags map[string]string
	// Profiling turns /debug/pprof/ on.
	Profiling bool
	// Debug returns the handler below /debug/controllers/NAME/, which sees paths
	// that begin after NAME; nil when the controller has none. It is called for
	// each request, from many goroutines.
	Debug func(controller string) http.Handler
}

// Handler returns the handler of all routes, with /statusz, /debug/flags/v, and at /
// the list of paths, in the form that Kubernetes components give it.
func (r Routes) Handler() http.Handler {
	t := table{mux: http.NewServeMux()}
	t.tree("/livez", r.Live)
	t.tree("/readyz", r.Ready)
	t.tree("/healthz", r.Health)
	t.Handle("/controllers", r.Status)
	t.Handle("/metrics", r.Metrics)
	t.Handle("/metrics/slis", r.SLIs)
	if r.Config != nil {
		t.Handle("/configz", JSON(r.Config))
	}
	if r.Flags != nil {
		t.Handle("/flagz", r.flagz())
	}
	if r.Profiling {
		t.Handle("/debug/pprof/", Profiling())
		t.mux.Handle("POST /debug/pprof/symbol", Profiling()) // how go tool pprof asks
	}
	t.Handle("/debug/flags/v", Verbosity())
	t.mux.Handle("PUT /debug/flags/v", Verbosity())
	if r.Debug != nil {
		t.list("/debug/controllers/NAME/")
		t.mux.Handle("/debug/controllers/{name}/", named("/debug/controllers/", r.Debug))
	}
	t.list("/statusz")
	t.mux.Handle("GET /statusz", r.statusz(t.paths))
	index := JSON(func() any { return map[string][]string{"paths": t.paths} })
	t.mux.Handle("GET /{$}", index)
	return t.mux
}

// table is a mux that knows its paths.
type table struct {
	mux   *http.ServeMux
	paths []string // Invariant: sorted
}

func (t *table) list(path string) {
	i, _ := slices.BinarySearch(t.paths, path)
	t.paths = slices.Insert(t.paths, i, path)
}

// Handle mounts handler for reading path; nil mounts nothing.
func (t *table) Handle(path string, handler http.Handler) {
	if handler == nil {
		return
	}
	t.list(path)
	t.mux.Handle("GET "+path, handler)
}

// tree is Handle for path and what is below it.
func (t *table) tree(path string, handler http.Handler) {
	t.Handle(path, handler)
	if handler != nil {
		t.mux.Handle("GET "+path+"/", handler)
	}
}
