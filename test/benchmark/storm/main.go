// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

// Command storm is the manager of the event storm: one controller that writes down what
// it has last seen of each ConfigMap of a namespace. STORM_NAMESPACE names it, STORM_TAKES
// says how long a reconcile takes. At SIGUSR1 it collects garbage twice and prints, in
// one line of JSON, what was seen, how long the queue was at most, and the heap.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	corev1listers "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"

	"github.com/incumbent-io/incumbent/pkg/clients"
	"github.com/incumbent-io/incumbent/pkg/controllers"
	"github.com/incumbent-io/incumbent/pkg/manager"
	"github.com/incumbent-io/incumbent/pkg/reconciler"
)

var configMaps = schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}

func main() {
	takes, err := time.ParseDuration(os.Getenv("STORM_TAKES"))
	if err != nil {
		fmt.Fprintln(os.Stderr, "STORM_TAKES:", err)
		os.Exit(2)
	}
	watcher := &seer{takes: takes, seen: map[string]string{}}
	go watcher.report()
	os.Exit(manager.Main("storm", controllers.NewRegistry(controllers.Descriptor[controllers.NoOptions]{
		Name: "seer", Summary: "Writes down what it sees.",
		Access: func(controllers.NoOptions) []controllers.Access {
			return []controllers.Access{{Resource: configMaps, Verbs: []string{"list", "watch"}}}
		},
		Init: func(_ context.Context, c *controllers.Context, _ controllers.NoOptions) (controllers.Controller, error) {
			informer := c.Informers.In(clients.Scope{Namespace: os.Getenv("STORM_NAMESPACE")}).Typed().Core().V1().ConfigMaps()
			watcher.lister = informer.Lister()
			return reconciler.New(reconciler.Config[cache.ObjectName]{
				Name: c.Name, Metrics: longest{c.Metrics, &watcher.depth}, Clock: c.Clock, Tracer: c.Tracer, Workers: 4,
				Reconcile: watcher.reconcile,
				Watches:   []reconciler.Watch[cache.ObjectName]{reconciler.Self(informer.Informer(), watcher.count)},
			})
		},
	})))
}

// seer writes down what it sees.
type seer struct {
	lister corev1listers.ConfigMapLister
	takes  time.Duration
	depth  depth
	events atomic.Int64

	mu         sync.Mutex
	reconciles int
	seen       map[string]string // the field n of each object
}

func (s *seer) count(_, _ *corev1.ConfigMap) bool {
	s.events.Add(1)
	return true
}

func (s *seer) reconcile(ctx context.Context, key cache.ObjectName) (reconciler.Result, error) {
	object, err := s.lister.ConfigMaps(key.Namespace).Get(key.Name)
	if err != nil && !apierrors.IsNotFound(err) {
		return reconciler.Result{}, err
	}
	select {
	case <-time.After(s.takes):
	case <-ctx.Done():
		return reconciler.Result{}, ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reconciles++
	if object == nil {
		delete(s.seen, key.Name)
	} else {
		s.seen[key.Name] = object.Data["n"]
	}
	return reconciler.Result{}, nil
}

func (s *seer) report() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1)
	for range signals {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		s.mu.Lock()
		line, err := json.Marshal(map[string]any{
			"heap": m.HeapAlloc, "goroutines": runtime.NumGoroutine(), "events": s.events.Load(), "reconciles": s.reconciles,
			"depth": s.depth.now.Load(), "longest": s.depth.most.Load(), "seen": maps.Clone(s.seen),
		})
		s.mu.Unlock()
		if err != nil {
			panic(err) // Numbers and strings can be encoded.
		}
		fmt.Printf("STORM %s\n", line)
	}
}

// longest is a provider of metrics that knows how long the queue was at most.
type longest struct {
	workqueue.MetricsProvider
	depth *depth
}

func (l longest) NewDepthMetric(name string) workqueue.GaugeMetric {
	l.depth.GaugeMetric = l.MetricsProvider.NewDepthMetric(name)
	return l.depth
}

type depth struct {
	workqueue.GaugeMetric
	now, most atomic.Int64
}

// Inc implements workqueue.GaugeMetric; the queue calls it under its lock.
func (d *depth) Inc() {
	d.GaugeMetric.Inc()
	d.most.Store(max(d.most.Load(), d.now.Add(1)))
}

// Dec implements workqueue.GaugeMetric.
func (d *depth) Dec() {
	d.GaugeMetric.Dec()
	d.now.Add(-1)
}
