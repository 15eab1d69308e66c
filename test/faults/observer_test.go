// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package faults

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"sync"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"

	"github.com/incumbent-io/incumbent/test/faults/mono"
)

const (
	// contested is the Lease that the candidates of a fleet compete for.
	contested = "contested"
	// barrier is a Lease that nobody competes for.
	barrier = "barrier"
	// observedLabel is on the written objects.
	observedLabel = "faults"
)

// observer watches the Leases and the written objects of all fleets with two watches
// that see every version: they go on where they were cut off.
type observer struct {
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu     sync.Mutex
	fleets map[string]*chronicle // by namespace
	passed map[string]chan struct{}
}

func observe(c *cluster) (*observer, error) {
	ctx, cancel := context.WithCancel(context.Background())
	o := &observer{cancel: cancel, fleets: map[string]*chronicle{}, passed: map[string]chan struct{}{}}
	leases := c.client.CoordinationV1().Leases(metav1.NamespaceAll)
	objects := c.client.CoreV1().ConfigMaps(metav1.NamespaceAll)
	labelled := metav1.ListOptions{LabelSelector: observedLabel}
	for _, kind := range []struct {
		list  func() (metav1.ListInterface, error)
		watch func(context.Context, metav1.ListOptions) (watch.Interface, error)
		see   func(watch.EventType, runtime.Object)
	}{
		{func() (metav1.ListInterface, error) { return leases.List(ctx, metav1.ListOptions{Limit: 1}) }, leases.Watch, o.seeLease},
		{func() (metav1.ListInterface, error) { return objects.List(ctx, labelled) }, func(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error) {
			opts.LabelSelector = labelled.LabelSelector
			return objects.Watch(ctx, opts)
		}, o.seeWrite},
	} {
		list, err := kind.list()
		if err != nil {
			cancel()
			return nil, err
		}
		watcher, err := watchtools.NewRetryWatcherWithContext(ctx, list.GetResourceVersion(), &cache.ListWatch{WatchFuncWithContext: kind.watch})
		if err != nil {
			cancel()
			return nil, err
		}
		o.running.Go(func() {
			for event := range watcher.ResultChan() {
				if event.Type == watch.Error {
					// Without the server's history the campaign proves nothing.
					fmt.Fprintf(os.Stderr, "the observer's watch failed: %v\n", event.Object)
					os.Exit(1)
				}
				kind.see(event.Type, event.Object)
			}
		})
	}
	return o, nil
}

func (o *observer) stop() {
	o.cancel()
	o.running.Wait()
}

// follow makes the observer write down what happens in a namespace.
func (o *observer) follow(namespace string, c *chronicle) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.fleets[namespace] = c
}

func (o *observer) fleet(namespace string) *chronicle {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.fleets[namespace]
}

// passing returns a channel that is closed when the watch on the kind has seen the
// version of the barrier in the namespace.
func (o *observer) passing(kind, namespace, version string) <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.gateLocked(kind + "/" + namespace + "/" + version)
}

func (o *observer) gateLocked(key string) chan struct{} {
	if o.passed[key] == nil {
		o.passed[key] = make(chan struct{})
	}
	return o.passed[key]
}

func (o *observer) pass(kind, namespace, version string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	close(o.gateLocked(kind + "/" + namespace + "/" + version))
}

func (o *observer) seeLease(event watch.EventType, object runtime.Object) {
	seen := mono.Now()
	lease, ok := object.(*coordinationv1.Lease)
	if !ok {
		return // a bookmark of another type does not exist
	}
	c := o.fleet(lease.Namespace)
	switch {
	case c == nil || event == watch.Bookmark:
		return
	case lease.Name == barrier:
		o.pass("leases", lease.Namespace, lease.ResourceVersion)
		return
	case lease.Name != contested:
		return
	}
	e := leaseEvent{rv: version(lease), seen: seen, deleted: event == watch.Deleted, epoch: lease.CreationTimestamp.Unix() << 20}
	if s := lease.Spec; !e.deleted {
		if s.HolderIdentity != nil {
			e.holder = *s.HolderIdentity
		}
		if s.LeaseTransitions != nil {
			e.epoch |= int64(*s.LeaseTransitions)
		}
		if s.AcquireTime != nil {
			e.acquired = s.AcquireTime.UnixNano()
		}
		if s.RenewTime != nil {
			e.renewed = s.RenewTime.UnixNano()
		}
	}
	c.add(func(v *view) { v.leases = append(v.leases, e) })
}

func (o *observer) seeWrite(event watch.EventType, object runtime.Object) {
	seen := mono.Now()
	written, ok := object.(*corev1.ConfigMap)
	if !ok || event == watch.Bookmark {
		return
	}
	c := o.fleet(written.Namespace)
	if c == nil {
		return
	}
	if written.Name == barrier {
		o.pass("configmaps", written.Namespace, written.ResourceVersion)
		return
	}
	e := writeEvent{rv: version(written), seen: seen, writer: written.Data["writer"]}
	e.epoch, _ = strconv.ParseInt(written.Data["epoch"], 10, 64)
	e.seq, _ = strconv.ParseInt(written.Data["seq"], 10, 64)
	if e.writer != "" { // else it is the campaign's own
		c.add(func(v *view) { v.writes = append(v.writes, e) })
	}
}

// version returns the resource version as the number that it is in etcd. The API
// promises an order of versions of one resource; that all resources of one etcd share
// the sequence holds for this cluster.
func version(object metav1.Object) int64 {
	n, err := strconv.ParseInt(object.GetResourceVersion(), 10, 64)
	if err != nil {
		panic(err)
	}
	return n
}
