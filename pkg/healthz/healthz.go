// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package healthz

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
)

// Check tells whether something is healthy. The note says in a few words what there
// is to tell when err is nil; it may be empty. A Check must be safe for concurrent
// use and answer at once: it reports what is known and does not find out.
type Check func(ctx context.Context) (note string, err error)

// Ping is the check that always passes: the process answers.
func Ping(context.Context) (string, error) { return "", nil }

// Checks is a set of named checks behind one path. Its zero value is an empty set,
// which is healthy. It is safe for concurrent use.
type Checks struct {
	// Observe, if not nil, is told of every result. It must be set before the set is
	// used, and be safe for concurrent use.
	Observe func(name string, err error)

	mu     sync.RWMutex
	byName map[string]*Check
}

// Add puts a check into the set, replacing one of the same name, and returns the
// function that takes it out again.
func (c *Checks) Add(name string, check Check) (remove func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byName == nil {
		c.byName = map[string]*Check{}
	}
	entry := &check
	c.byName[name] = entry
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.byName[name] == entry { // a later Add of the same name stays
			delete(c.byName, name)
		}
	}
}

type namedCheck struct {
	name  string
	check Check
}

func (c *Checks) sorted() []namedCheck {
	c.mu.RLock()
	defer c.mu.RUnlock()
	list := make([]namedCheck, 0, len(c.byName))
	for name, check := range c.byName {
		list = append(list, namedCheck{name, *check})
	}
	slices.SortFunc(list, func(a, b namedCheck) int { return strings.Compare(a.name, b.name) })
	return list
}

// Run runs every check, for Observe to be told.
func (c *Checks) Run(ctx context.Context) {
	for _, known := range c.sorted() {
		_, _ = c.run(ctx, known.name, known.check)
	}
}

func (c *Checks) run(ctx context.Context, name string, check Check) (string, error) {
	note, err := check(ctx)
	if c.Observe != nil {
		c.Observe(name, err)
	}
	return note, err
}

// Handler serves path (all checks) and path/NAME (one check). path begins with "/".
func (c *Checks) Handler(path string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-cache, no-store")
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "use GET", http.StatusMethodNotAllowed)
			return
		}
		if name := strings.Trim(strings.TrimPrefix(r.URL.Path, path), "/"); name != "" {
			c.serveOne(w, r, name)
			return
		}
		c.serveAll(w, r, strings.TrimPrefix(path, "/"))
	})
}

func (c *Checks) serveOne(w http.ResponseWriter, r *http.Request, name string) {
	c.mu.RLock()
	check := c.byName[name]
	c.mu.RUnlock()
	if check == nil {
		names := make([]string, 0)
		for _, known := range c.sorted() {
			names = append(names, known.name)
		}
		http.Error(w, fmt.Sprintf("no check %q; there are: %s", name, strings.Join(names, ", ")), http.StatusNotFound)
		return
	}
	note, err := c.run(r.Context(), name, *check)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	fmt.Fprintln(w, strings.TrimSuffix("ok: "+note, ": "))
}

func (c *Checks) serveAll(w http.ResponseWriter, r *http.Request, endpoint string) {
	query := r.URL.Query()
	excluded := map[string]bool{}
	for _, name := range query["exclude"] {
		excluded[name] = true
	}
	var report strings.Builder
	failed := false
	for _, known := range c.sorted() {
		if excluded[known.name] {
			delete(excluded, known.name)
			fmt.Fprintf(&report, "[+]%s excluded: ok\n", known.name)
			continue
		}
		note, err := c.run(r.Context(), known.name, known.check)
		switch {
		case err != nil:
			failed = true
			fmt.Fprintf(&report, "[-]%s failed: %v\n", known.name, err)
		case note != "":
			fmt.Fprintf(&report, "[+]%s ok: %s\n", known.name, note)
		default:
			fmt.Fprintf(&report, "[+]%s ok\n", known.name)
		}
	}
	for _, name := range query["exclude"] {
		if excluded[name] {
			fmt.Fprintf(&report, "warn: no check %q to exclude\n", name)
		}
	}
	switch {
	case failed:
		fmt.Fprintf(&report, "%s check failed", endpoint)
		http.Error(w, report.String(), http.StatusInternalServerError)
	case query.Has("verbose"):
		fmt.Fprintf(w, "%s%s check passed\n", report.String(), endpoint)
	default:
		fmt.Fprint(w, "ok")
	}
}
