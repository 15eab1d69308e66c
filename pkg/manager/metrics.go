// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package manager

import (
	"k8s.io/component-base/metrics"

	"github.com/incumbent-io/incumbent/pkg/controllers/runner"
)

// controllerMetrics tell the state of every controller. They are computed when they
// are asked for, so that they always agree with the status.
type controllerMetrics struct {
	metrics.BaseStableCollector
	snapshot       func() []runner.Status
	state, failure *metrics.Desc
}

func newControllerMetrics(snapshot func() []runner.Status) *controllerMetrics {
	return &controllerMetrics{
		snapshot: snapshot,
		state: metrics.NewDesc("incumbent_controller_state",
			"State of a controller in this process: 1 for the state that it is in, 0 for the others.",
			[]string{"controller", "state"}, nil, metrics.ALPHA, ""),
		failure: metrics.NewDesc("incumbent_controller_failures_total",
			"Number of failed builds and runs of a controller, each followed by a restart, by cause: error, panic or handler.",
			[]string{"controller", "cause"}, nil, metrics.ALPHA, ""),
	}
}

// DescribeWithStability implements metrics.StableCollector.
func (c *controllerMetrics) DescribeWithStability(ch chan<- *metrics.Desc) {
	ch <- c.state
	ch <- c.failure
}

// CollectWithStability implements metrics.StableCollector.
func (c *controllerMetrics) CollectWithStability(ch chan<- metrics.Metric) {
	for _, status := range c.snapshot() {
		for _, state := range runner.States() {
			ch <- metrics.NewLazyConstMetric(c.state, metrics.GaugeValue, oneIf(state == status.State), status.Name, string(state))
		}
		for _, cause := range runner.Causes() {
			ch <- metrics.NewLazyConstMetric(c.failure, metrics.CounterValue, float64(status.Restarts[cause]), status.Name, string(cause))
		}
	}
}

// groupMetrics tell which lease groups this process takes part in.
type groupMetrics struct {
	metrics.BaseStableCollector
	groups    func() []*group
	competing *metrics.Desc
}

func newGroupMetrics(groups func() []*group) *groupMetrics {
	return &groupMetrics{groups: groups, competing: metrics.NewDesc("incumbent_lease_group_competing",
		"Whether this process competes for the lease of a group, or leads it: 1, or 0 while no controller of the group is enabled.",
		[]string{"name"}, nil, metrics.ALPHA, "")}
}

// DescribeWithStability implements metrics.StableCollector.
func (c *groupMetrics) DescribeWithStability(ch chan<- *metrics.Desc) { ch <- c.competing }

// CollectWithStability implements metrics.StableCollector.
func (c *groupMetrics) CollectWithStability(ch chan<- metrics.Metric) {
	for _, g := range c.groups() {
		ch <- metrics.NewLazyConstMetric(c.competing, metrics.GaugeValue, oneIf(g.competing()), g.LeaseName)
	}
}

// Results of looking at a new content of the configuration file, as the label
// "result" of incumbent_config_reloads_total.
const (
	reloadApplied  = "applied"
	reloadRejected = "rejected"
)

// configMetrics tell what became of the configuration file.
type configMetrics struct {
	reloads *metrics.CounterVec
	current *metrics.Gauge
}

func newConfigMetrics(registry metrics.KubeRegistry) *configMetrics {
	m := &configMetrics{
		reloads: metrics.NewCounterVec(&metrics.CounterOpts{
			Name:           "incumbent_config_reloads_total",
			StabilityLevel: metrics.ALPHA,
			Help:           "Number of new contents of the configuration file, by what became of them: applied or rejected.",
		}, []string{"result"}),
		current: metrics.NewGauge(&metrics.GaugeOpts{
			Name:           "incumbent_config_current",
			StabilityLevel: metrics.ALPHA,
			Help:           "Whether the configuration that runs is that of the file: 1, or 0 after a content that was rejected or while some of it waits for a restart.",
		}),
	}
	registry.MustRegister(m.reloads, m.current)
	m.reloads.WithLabelValues(reloadApplied).Add(0)
	m.reloads.WithLabelValues(reloadRejected).Add(0)
	m.current.Set(1)
	return m
}

func (m *configMetrics) taken(whole bool) {
	m.reloads.WithLabelValues(reloadApplied).Inc()
	m.current.Set(oneIf(whole))
}

func (m *configMetrics) rejected() {
	m.reloads.WithLabelValues(reloadRejected).Inc()
	m.current.Set(0)
}
