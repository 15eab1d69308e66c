// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package manager

import (
	"net/http"

	"k8s.io/component-base/metrics"

	"github.com/incumbent-io/incumbent/pkg/healthz"
	"github.com/incumbent-io/incumbent/pkg/serving"
)

// Results of a check, as the label "status" of kubernetes_healthchecks_total.
const (
	checkPassed = "success"
	checkFailed = "error"
)

// checkMetrics are the service level indicators of the health checks, by the names that
// every Kubernetes component has for them; but in a registry of their own, since those
// of component-base are one for the whole process.
type checkMetrics struct {
	registry metrics.KubeRegistry
	sets     map[string]*healthz.Checks
	last     *metrics.GaugeVec
	total    *metrics.CounterVec
}

// newCheckMetrics observes the sets, which are named after their endpoints.
func newCheckMetrics(sets map[string]*healthz.Checks) *checkMetrics {
	m := &checkMetrics{
		registry: metrics.NewKubeRegistry(),
		sets:     sets,
		last: metrics.NewGaugeVec(&metrics.GaugeOpts{
			Namespace: "kubernetes", Name: "healthcheck", StabilityLevel: metrics.STABLE,
			Help: "This metric records the result of a single healthcheck.",
		}, []string{"name", "type"}),
		total: metrics.NewCounterVec(&metrics.CounterOpts{
			Namespace: "kubernetes", Name: "healthchecks_total", StabilityLevel: metrics.STABLE,
			Help: "This metric records the results of all healthcheck.",
		}, []string{"name", "type", "status"}),
	}
	m.registry.MustRegister(m.last, m.total)
	for endpoint, set := range sets {
		set.Observe = func(name string, err error) { m.observe(endpoint, name, err) }
	}
	return m
}

func (m *checkMetrics) observe(endpoint, name string, err error) {
	status := checkPassed
	if err != nil {
		status = checkFailed
	}
	m.last.WithLabelValues(name, endpoint).Set(oneIf(err == nil))
	for _, each := range []string{checkPassed, checkFailed} {
		m.total.WithLabelValues(name, endpoint, each).Add(oneIf(each == status))
	}
}

// handler runs every check for a scrape, so that each has a result also where nobody
// probes it, and serves what is known.
func (m *checkMetrics) handler() http.Handler {
	page := serving.Metrics(m.registry.Registerer(), m.registry)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, set := range m.sets {
			set.Run(r.Context())
		}
		page.ServeHTTP(w, r)
	})
}
