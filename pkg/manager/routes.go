// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package manager

import (
	"cmp"
	"net/http"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-base/metrics/legacyregistry"
	_ "k8s.io/component-base/metrics/prometheus/restclient" // rest_client_*
	_ "k8s.io/component-base/metrics/prometheus/version"    // kubernetes_build_info

	"github.com/incumbent-io/incumbent/pkg/controllers/runner"
	"github.com/incumbent-io/incumbent/pkg/leaderelection"
	"github.com/incumbent-io/incumbent/pkg/options"
	"github.com/incumbent-io/incumbent/pkg/serving"
	"github.com/incumbent-io/incumbent/pkg/status"
)

// handler serves everything. Who may see what is decided before it.
func (h *host) handler() http.Handler {
	return serving.Routes{
		Manager:   h.config.Name,
		Version:   options.Version(),
		Live:      h.health.live.Handler("/livez"),
		Ready:     h.health.ready.Handler("/readyz"),
		Health:    h.health.all.Handler("/healthz"),
		Status:    status.Handler(h.status),
		Metrics:   serving.Metrics(h.metrics.Registerer(), h.metrics, legacyregistry.DefaultGatherer),
		SLIs:      h.health.slis.handler(),
		Config:    func() any { return h.current().Effective() },
		Flags:     h.config.FlagValues(),
		Profiling: h.config.Profiling,
		Debug:     h.debug,
	}.Handler()
}

// current is the configuration that runs.
func (h *host) current() *options.Config {
	if h.file == nil {
		return h.config
	}
	return h.file.current()
}

// debug returns the debug handler of a controller, nil if it has none.
func (h *host) debug(name string) http.Handler {
	for _, r := range h.runners() {
		if handler := r.DebugHandler(name); handler != nil {
			return handler
		}
	}
	return nil
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
	summaries := map[string]string{}
	for _, c := range h.config.Controllers {
		summaries[c.Name] = c.Summary
	}
	for _, c := range h.statuses() {
		entry := status.Controller{
			Name: c.Name, Group: c.Group, Summary: summaries[c.Name], State: string(c.State), Reason: c.Reason, Since: c.Since,
			LastError: c.LastError, LastErrorAt: c.LastErrorAt, RetryAt: c.RetryAt, Restarts: map[string]int{},
		}
		for cause, n := range c.Restarts {
			entry.Restarts[string(cause)] = n
		}
		if runs(c.State) {
			entry.QueueDepth = h.queueMetrics.depthOf(c.Name)
		}
		s.Controllers = append(s.Controllers, entry)
	}
	slices.SortStableFunc(s.Controllers, func(a, b status.Controller) int { return cmp.Compare(a.Name, b.Name) })
	if h.file != nil {
		state := h.file.status()
		s.Config = status.Config{File: h.file.path, LoadedAt: state.LoadedAt, Error: state.Error, NeedsRestart: state.NeedsRestart, Pinned: state.Pinned}
	}
	return s
}

// runs tells whether a controller in the state has a queue that is worked on.
func runs(state runner.State) bool {
	return state == runner.Running || state == runner.Draining || state == runner.Stuck
}

func (g *group) status() status.Group {
	e := g.current().Status()
	s := status.Group{
		Name: g.Name, State: candidateState(e.State), Holder: e.Holder, HolderEpoch: e.HolderEpoch, HolderSince: e.HolderSince,
		Epoch: e.Epoch, Since: e.TermSince,
		LeaseAge: metav1.Duration{Duration: e.LeaseAge}, FenceOpen: e.FenceOpen, InFlight: e.InFlight, LastError: e.LastError,
	}
	if e.State != leaderelection.StateUnelected {
		s.Lease = g.LeaseNamespace + "/" + g.LeaseName
	}
	if !g.competing() {
		s.State = status.Idle
	}
	return s
}

// candidateState says what a replica is in a lease group in the words of those who
// look at it.
func candidateState(state leaderelection.State) string {
	switch state {
	case leaderelection.StateLeading, leaderelection.StateUnelected:
		return status.Leader
	case leaderelection.StateObserving:
		return "standby"
	}
	return string(state)
}
