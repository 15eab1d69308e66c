// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package manager

import (
	"k8s.io/component-base/metrics"

	"github.com/incumbent-io/incumbent/pkg/clients"
)

// informerMetrics tell of the caches that the controllers share. They are computed
// when they are asked for, and a cache that is given up leaves none behind.
type informerMetrics struct {
	metrics.BaseStableCollector
	snapshot                                 func() []clients.CacheStatus
	caches, objects, users, synced, watching *metrics.Desc
}

func newInformerMetrics(snapshot func() []clients.CacheStatus) *informerMetrics {
	desc := func(name, help string, labels ...string) *metrics.Desc {
		return metrics.NewDesc("incumbent_informer_"+name, help, labels, nil, metrics.ALPHA, "")
	}
	return &informerMetrics{
		snapshot: snapshot,
		caches:   desc("caches", "Number of caches that the controllers of this process share."),
		objects:  desc("objects", "Number of objects in a cache.", "resource", "form", "scope"),
		users:    desc("users", "Number of runs of controllers that use a cache.", "resource", "form", "scope"),
		synced:   desc("synced", "Whether a cache has listed everything once: 1 or 0.", "resource", "form", "scope"),
		watching: desc("watching", "Whether the watch of a cache is open: 1, or 0 while it is out of contact or being listed.", "resource", "form", "scope"),
	}
}

// DescribeWithStability implements metrics.StableCollector.
func (c *informerMetrics) DescribeWithStability(ch chan<- *metrics.Desc) {
	for _, desc := range []*metrics.Desc{c.caches, c.objects, c.users, c.synced, c.watching} {
		ch <- desc
	}
}

// CollectWithStability implements metrics.StableCollector.
func (c *informerMetrics) CollectWithStability(ch chan<- metrics.Metric) {
	all := c.snapshot()
	ch <- metrics.NewLazyConstMetric(c.caches, metrics.GaugeValue, float64(len(all)))
	for _, cache := range all {
		for _, row := range []struct {
			desc  *metrics.Desc
			value float64
		}{
			{c.objects, float64(cache.Objects)},
			{c.users, float64(cache.Users)},
			{c.synced, oneIf(cache.Synced)},
			{c.watching, oneIf(cache.Watching)},
		} {
			ch <- metrics.NewLazyConstMetric(row.desc, metrics.GaugeValue, row.value, cache.Resource, cache.Form, cache.Scope)
		}
	}
}

func oneIf(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
