// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package manager

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/legacyregistry"
	_ "k8s.io/component-base/metrics/prometheus/restclient" // rest_client_*
	_ "k8s.io/component-base/metrics/prometheus/version"    // kubernetes_build_info

	"github.com/incumbent-io/incumbent/pkg/options"
	"github.com/incumbent-io/incumbent/pkg/status"
)

// handler serves everything: health to everybody, the rest to those who may.
func (h *host) handler() http.Handler {
	mux := http.NewServeMux()
	h.health.mount(mux)
	mux.Handle("GET /metrics", metrics.HandlerFor(prometheus.Gatherers{h.metrics, legacyregistry.DefaultGatherer}, metrics.HandlerOpts{
		// A collector that fails takes nothing with it but what it collects, and is
		// counted by promhttp_metric_handler_errors_total.
		ErrorHandling: metrics.ContinueOnError, Registry: h.metrics.Registerer(),
	}))
	mux.Handle("GET /controllers", status.Handler(h.status))
	mux.HandleFunc("/debug/controllers/{name}/", h.debug)
	return mux
}

// debug hands on to the debug handler of a controller.
func (h *host) debug(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	for _, runner := range h.runners() {
		if handler := runner.DebugHandler(name); handler != nil {
			http.StripPrefix("/debug/controllers/"+name, handler).ServeHTTP(w, r)
			return
		}
	}
	http.Error(w, "no controller "+name+" that runs here and has a debug handler", http.StatusNotFound)
}

// status takes the snapshot of what runs.
func (h *host) status() status.Snapshot {
	s := status.Snapshot{
		Manager: h.config.Name, Version: options.Version(), Identity: h.identity.String(),
		Started: h.started, Taken: time.Now(), Groups: []status.Group{}, Controllers: []status.Controller{},
	}
	if h.config.Pod.Name != "" {
		s.Pod = h.config.Pod.Namespace + "/" + h.config.Pod.Name
	}
	for _, g := range h.groups {
		s.Groups = append(s.Groups, g.status())
	}
	for _, c := range h.statuses() {
		entry := status.Controller{
			Name: c.Name, Group: c.Group, State: string(c.State), Reason: c.Reason, Since: c.Since,
			LastError: c.LastError, LastErrorAt: known(c.LastErrorAt), RetryAt: known(c.RetryAt),
		}
		for _, n := range c.Restarts {
			entry.Failures += n
		}
		s.Controllers = append(s.Controllers, entry)
	}
	if h.file != nil {
		state := h.file.status()
		s.Config = &status.Config{File: h.file.path, LoadedAt: state.LoadedAt, Error: state.Error, NeedsRestart: state.NeedsRestart, Pinned: state.Pinned}
	}
	return s
}

func (g *group) status() status.Group {
	e := g.current().Status()
	s := status.Group{
		Name: g.Name, Lease: g.LeaseNamespace + "/" + g.LeaseName, State: string(e.State), Holder: e.Holder,
		Epoch: e.Epoch, Since: known(e.TermSince), FenceOpen: e.FenceOpen, InFlight: e.InFlight, LastError: e.LastError,
	}
	if !g.competing() {
		s.State = "idle"
	}
	return s
}

// known returns nil for the zero time.
func known(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
