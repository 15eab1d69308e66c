// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package manager

import (
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/client-go/util/workqueue"
	"k8s.io/component-base/metrics"

	"github.com/incumbent-io/incumbent/pkg/reconciler"
)

// queueMetrics are the metrics of the controllers' workqueues on the manager's own
// registry. Names, labels and help are those that every Kubernetes component has:
// what is gathered together from several registries must agree in them.
type queueMetrics struct {
	depth, unfinished, longest *metrics.GaugeVec
	adds, retries              *metrics.CounterVec
	latency, work, reconciles  *metrics.HistogramVec

	mu     sync.Mutex
	depths map[string]*depth // by controller
}

// depth is a gauge that can be read, too.
type depth struct {
	workqueue.GaugeMetric
	n atomic.Int64
}

func (d *depth) Inc() {
	d.n.Add(1)
	d.GaugeMetric.Inc()
}

func (d *depth) Dec() {
	d.n.Add(-1)
	d.GaugeMetric.Dec()
}

var (
	_ workqueue.MetricsProvider = (*queueMetrics)(nil)
	_ reconciler.Observer       = (*queueMetrics)(nil)
)

func newQueueMetrics(registry metrics.KubeRegistry) *queueMetrics {
	gauge := func(name, help string) *metrics.GaugeVec {
		return metrics.NewGaugeVec(&metrics.GaugeOpts{Subsystem: "workqueue", Name: name, Help: help, StabilityLevel: metrics.BETA}, []string{"name"})
	}
	counter := func(name, help string) *metrics.CounterVec {
		return metrics.NewCounterVec(&metrics.CounterOpts{Subsystem: "workqueue", Name: name, Help: help, StabilityLevel: metrics.BETA}, []string{"name"})
	}
	histogram := func(name, help string) *metrics.HistogramVec {
		return metrics.NewHistogramVec(&metrics.HistogramOpts{
			Subsystem: "workqueue", Name: name, Help: help, StabilityLevel: metrics.BETA,
			Buckets: metrics.ExponentialBuckets(10e-9, 10, 10),
		}, []string{"name"})
	}
	m := &queueMetrics{
		depths:  map[string]*depth{},
		depth:   gauge("depth", "Current depth of workqueue"),
		adds:    counter("adds_total", "Total number of adds handled by workqueue"),
		latency: histogram("queue_duration_seconds", "How long in seconds an item stays in workqueue before being requested."),
		work:    histogram("work_duration_seconds", "How long in seconds processing an item from workqueue takes."),
		unfinished: gauge("unfinished_work_seconds", "How many seconds of work has done that "+
			"is in progress and hasn't been observed by work_duration. Large "+
			"values indicate stuck threads. One can deduce the number of stuck "+
			"threads by observing the rate at which this increases."),
		longest: gauge("longest_running_processor_seconds", "How many seconds has the longest running "+
			"processor for workqueue been running."),
		reconciles: metrics.NewHistogramVec(&metrics.HistogramOpts{
			Name: "incumbent_reconcile_duration_seconds", StabilityLevel: metrics.ALPHA,
			Help:    "How long reconciles take, by how they end: success, requeue, error, terminal, panic or cancelled.",
			Buckets: metrics.ExponentialBuckets(0.0005, 4, 10),
		}, []string{"controller", "result"}),
		retries: counter("retries_total", "Total number of retries handled by workqueue"),
	}
	registry.MustRegister(m.depth, m.adds, m.latency, m.work, m.unfinished, m.longest, m.retries, m.reconciles)
	return m
}

// use makes every metric of a controller's queue exist, at 0, for the queue is made only
// when the controller is built.
func (m *queueMetrics) use(name string) {
	m.depth.WithLabelValues(name)
	for _, outcome := range reconciler.Outcomes() {
		m.reconciles.WithLabelValues(name, string(outcome))
	}
	m.NewAddsMetric(name)
	m.NewLatencyMetric(name)
	m.NewWorkDurationMetric(name)
	m.NewUnfinishedWorkSecondsMetric(name)
	m.NewLongestRunningProcessorSecondsMetric(name)
	m.NewRetriesMetric(name)
}

// Reconciled implements reconciler.Observer.
func (m *queueMetrics) Reconciled(name string, outcome reconciler.Outcome, took time.Duration) {
	m.reconciles.WithLabelValues(name, string(outcome)).Observe(took.Seconds())
}

// NewDepthMetric implements workqueue.MetricsProvider.
//
// A new queue begins empty, also where an earlier run left keys behind.
func (m *queueMetrics) NewDepthMetric(name string) workqueue.GaugeMetric {
	m.mu.Lock()
	defer m.mu.Unlock()
	gauge := m.depth.WithLabelValues(name)
	gauge.Set(0)
	m.depths[name] = &depth{GaugeMetric: gauge}
	return m.depths[name]
}

// depthOf returns how many keys wait in the queue of a controller, nil if it has made
// none by these metrics.
func (m *queueMetrics) depthOf(name string) *int {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, ok := m.depths[name]
	if !ok {
		return nil
	}
	n := int(d.n.Load())
	return &n
}

// NewAddsMetric implements workqueue.MetricsProvider.
func (m *queueMetrics) NewAddsMetric(name string) workqueue.CounterMetric {
	return m.adds.WithLabelValues(name)
}

// NewLatencyMetric implements workqueue.MetricsProvider.
func (m *queueMetrics) NewLatencyMetric(name string) workqueue.HistogramMetric {
	return m.latency.WithLabelValues(name)
}

// NewWorkDurationMetric implements workqueue.MetricsProvider.
func (m *queueMetrics) NewWorkDurationMetric(name string) workqueue.HistogramMetric {
	return m.work.WithLabelValues(name)
}

// NewUnfinishedWorkSecondsMetric implements workqueue.MetricsProvider.
func (m *queueMetrics) NewUnfinishedWorkSecondsMetric(name string) workqueue.SettableGaugeMetric {
	return m.unfinished.WithLabelValues(name)
}

// NewLongestRunningProcessorSecondsMetric implements workqueue.MetricsProvider.
func (m *queueMetrics) NewLongestRunningProcessorSecondsMetric(name string) workqueue.SettableGaugeMetric {
	return m.longest.WithLabelValues(name)
}

// NewRetriesMetric implements workqueue.MetricsProvider.
func (m *queueMetrics) NewRetriesMetric(name string) workqueue.CounterMetric {
	return m.retries.WithLabelValues(name)
}
