// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package reconciler

import "k8s.io/client-go/util/workqueue"

// progress is a provider of metrics whose depth counts the backlog, too, and that can set
// those of the reconciles in progress to 0 when the run is over. A queue that is shut down
// leaves them as they were, and a process that no longer leads would show a stuck
// reconcile for ever.
type progress struct {
	workqueue.MetricsProvider
	depth  workqueue.GaugeMetric
	gauges []workqueue.SettableGaugeMetric
}

func (p *progress) NewDepthMetric(name string) workqueue.GaugeMetric {
	p.depth = p.MetricsProvider.NewDepthMetric(name)
	return p.depth
}

// count adds to the depth, by 1 or -1.
func (p *progress) count(change int) {
	if change > 0 {
		p.depth.Inc()
	} else {
		p.depth.Dec()
	}
}

func (p *progress) NewUnfinishedWorkSecondsMetric(name string) workqueue.SettableGaugeMetric {
	return p.keep(p.MetricsProvider.NewUnfinishedWorkSecondsMetric(name))
}

func (p *progress) NewLongestRunningProcessorSecondsMetric(name string) workqueue.SettableGaugeMetric {
	return p.keep(p.MetricsProvider.NewLongestRunningProcessorSecondsMetric(name))
}

func (p *progress) keep(gauge workqueue.SettableGaugeMetric) workqueue.SettableGaugeMetric {
	p.gauges = append(p.gauges, gauge)
	return gauge
}

func (p *progress) end() {
	for _, gauge := range p.gauges {
		gauge.Set(0)
	}
}
