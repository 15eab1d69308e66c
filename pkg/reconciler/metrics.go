// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package reconciler

import "k8s.io/client-go/util/workqueue"

// progress is a provider of metrics that can set those of the reconciles in progress to
// 0 when the run is over. A queue that is shut down leaves them as they were, and a
// process that no longer leads would show a stuck reconcile for ever.
type progress struct {
	workqueue.MetricsProvider
	gauges []workqueue.SettableGaugeMetric
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
