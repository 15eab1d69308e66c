// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package leaderelection

import (
	"sync"
	"time"

	"k8s.io/component-base/metrics"
)

// Registry is the part of metrics.KubeRegistry that Metrics needs.
type Registry interface {
	Register(metrics.Registerable) error
	CustomRegister(metrics.StableCollector) error
}

// Metrics are the metrics of the electors of a process, labelled by the name
// of the lease group. leader_election_master_status and
// leader_election_slowpath_total are client-go's; the others are ours. They are
// in no registry until Register is called.
type Metrics struct {
	master      *metrics.GaugeVec
	slowpath    *metrics.CounterVec
	terms       *metrics.CounterVec
	renewals    *metrics.HistogramVec
	fence       *metrics.CounterVec
	transitions *metrics.GaugeVec
	epoch       *metrics.GaugeVec
	leaseAge    *leaseAge

	mu    sync.Mutex
	names map[string]bool // every name ever used; all of them exist at 0 from the start
}

// Results of a guarded write, as the label "result" of
// leader_election_fence_requests_total.
const (
	fencePassed  = "passed"
	fenceDelayed = "delayed"
	fenceRefused = "refused"
)

// Ends of a term, as the label "end" of leader_election_terms_total.
const (
	endReleased  = "released"
	endExpired   = "expired"
	endLost      = "lost"
	endAbandoned = "abandoned"
)

// Results of a renewal, as the label "result" of
// leader_election_renew_duration_seconds.
const (
	renewOK     = "ok"
	renewFailed = "failed"
)

// NewMetrics returns metrics that are in no registry yet.
func NewMetrics() *Metrics {
	name := []string{"name"}
	return &Metrics{
		master: metrics.NewGaugeVec(&metrics.GaugeOpts{
			Name:           "leader_election_master_status",
			StabilityLevel: metrics.ALPHA,
			Help:           "Whether this process leads the lease: 1 for the leader, 0 for a standby.",
		}, name),
		slowpath: metrics.NewCounterVec(&metrics.CounterOpts{
			Name:           "leader_election_slowpath_total",
			StabilityLevel: metrics.ALPHA,
			Help:           "Number of times that a holder had to read its lease before it could renew it.",
		}, name),
		terms: metrics.NewCounterVec(&metrics.CounterOpts{
			Name:           "leader_election_terms_total",
			StabilityLevel: metrics.ALPHA,
			Help:           "Number of terms of this process that have ended, by how: released, expired (renew deadline, lease kept), lost or abandoned.",
		}, []string{"name", "end"}),
		renewals: metrics.NewHistogramVec(&metrics.HistogramOpts{
			Name:           "leader_election_renew_duration_seconds",
			StabilityLevel: metrics.ALPHA,
			Help:           "Time from sending a write of the lease to its answer, by result: ok or failed.",
			Buckets:        []float64{.002, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"name", "result"}),
		fence: metrics.NewCounterVec(&metrics.CounterOpts{
			Name:           "leader_election_fence_requests_total",
			StabilityLevel: metrics.ALPHA,
			Help:           "Number of mutating requests at the fence: passed, delayed (waited for a renewal; also counted by how the wait ended) or refused.",
		}, []string{"name", "result"}),
		transitions: metrics.NewGaugeVec(&metrics.GaugeOpts{
			Name:           "leader_election_lease_transitions",
			StabilityLevel: metrics.ALPHA,
			Help:           "The lease's number of transitions, as last seen.",
		}, name),
		epoch: metrics.NewGaugeVec(&metrics.GaugeOpts{
			Name:           "leader_election_epoch",
			StabilityLevel: metrics.ALPHA,
			Help:           "The epoch of this process's term, 0 without one.",
		}, name),
		leaseAge: &leaseAge{
			desc: metrics.NewDesc("leader_election_lease_age_seconds",
				"Time since the lease was last known to be renewed: for a leader since its last acknowledged renewal was sent, for a standby since it saw one.",
				name, nil, metrics.ALPHA, ""),
			ages: map[string]func() time.Duration{},
		},
		names: map[string]bool{},
	}
}

// Register adds the metrics to r. Call it once for a registry.
func (m *Metrics) Register(r Registry) error {
	for _, metric := range []metrics.Registerable{m.master, m.slowpath, m.terms, m.renewals, m.fence, m.transitions, m.epoch} {
		if err := r.Register(metric); err != nil {
			return err
		}
	}
	if err := r.CustomRegister(m.leaseAge); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for name := range m.names {
		m.zero(name)
	}
	return nil
}

// use makes every metric of a lease group exist, at 0.
func (m *Metrics) use(name string, age func() time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.names[name] = true
	m.zero(name)
	m.leaseAge.set(name, age)
}

func (m *Metrics) zero(name string) {
	m.master.WithLabelValues(name).Set(0)
	m.slowpath.WithLabelValues(name).Add(0)
	m.transitions.WithLabelValues(name).Set(0)
	m.epoch.WithLabelValues(name).Set(0)
	for _, end := range []string{endReleased, endExpired, endLost, endAbandoned} {
		m.terms.WithLabelValues(name, end).Add(0)
	}
	for _, result := range []string{fencePassed, fenceDelayed, fenceRefused} {
		m.fence.WithLabelValues(name, result).Add(0)
	}
	for _, result := range []string{renewOK, renewFailed} {
		m.renewals.WithLabelValues(name, result)
	}
}

// leaseAge computes the age of each lease at the time of a scrape, since
// nothing happens in the Elector while a lease only grows older.
type leaseAge struct {
	metrics.BaseStableCollector
	desc *metrics.Desc

	mu   sync.Mutex
	ages map[string]func() time.Duration
}

func (c *leaseAge) set(name string, age func() time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ages[name] = age
}

// DescribeWithStability implements metrics.StableCollector.
func (c *leaseAge) DescribeWithStability(ch chan<- *metrics.Desc) { ch <- c.desc }

// CollectWithStability implements metrics.StableCollector.
func (c *leaseAge) CollectWithStability(ch chan<- metrics.Metric) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, age := range c.ages {
		ch <- metrics.NewLazyConstMetric(c.desc, metrics.GaugeValue, age().Seconds(), name)
	}
}
