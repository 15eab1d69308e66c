// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package faults

import (
	"context"
	"strconv"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

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

// observer watches the Leases and the written objects of all fleets, with two watches
// that see every version: they go on where they were cut off. Only an API server that
// was restarted cannot tell what came between, which is written down as a gap.
type observer struct {
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu     sync.Mutex
	fleets map[string]*chronicle // by namespace
	passed map[string]chan struct{}
}

// source is one kind of object that is watched.
type source struct {
	list  func(context.Context) (metav1.ListInterface, []metav1.Object, error)
	watch func(context.Context, metav1.ListOptions) (watch.Interface, error)
	see   func(object metav1.Object, deleted, gap bool)
}

func observe(c *stage) *observer {
	ctx, cancel := context.WithCancel(context.Background())
	o := &observer{cancel: cancel, fleets: map[string]*chronicle{}, passed: map[string]chan struct{}{}}
	leases := c.Client.CoordinationV1().Leases(metav1.NamespaceAll)
	objects := c.Client.CoreV1().ConfigMaps(metav1.NamespaceAll)
	labelled := metav1.ListOptions{LabelSelector: observedLabel}
	for _, s := range []source{{
		list: func(ctx context.Context) (metav1.ListInterface, []metav1.Object, error) {
			list, err := leases.List(ctx, metav1.ListOptions{})
			return list, pointers(list.Items), err
		},
		watch: leases.Watch,
		see:   o.seeLease,
	}, {
		list: func(ctx context.Context) (metav1.ListInterface, []metav1.Object, error) {
			list, err := objects.List(ctx, labelled)
			return list, pointers(list.Items), err
		},
		watch: func(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error) {
			opts.LabelSelector = labelled.LabelSelector
			return objects.Watch(ctx, opts)
		},
		see: o.seeWrite,
	}} {
		o.running.Go(func() { s.run(ctx) })
	}
	return o
}

// pointers returns the items of a list as objects.
func pointers[T any, P interface {
	*T
	metav1.Object
}](items []T) (objects []metav1.Object) {
	for i := range items {
		objects = append(objects, P(&items[i]))
	}
	return objects
}

// run watches until ctx ends.
func (s source) run(ctx context.Context) {
	version, first := "", true
	for ctx.Err() == nil {
		if version == "" {
			list, objects, err := s.list(ctx)
			if err == nil {
				for _, object := range objects {
					s.see(object, false, !first)
				}
				version, first = list.GetResourceVersion(), false
			}
		}
		if version != "" {
			version = s.follow(ctx, version)
		}
		select {
		case <-time.After(20 * time.Millisecond): // the API server may be away
		case <-ctx.Done():
		}
	}
}

// follow watches from a version on until the watch ends. It returns the version to go
// on from, "" if the API server does not know it any more.
func (s source) follow(ctx context.Context, version string) string {
	w, err := s.watch(ctx, metav1.ListOptions{ResourceVersion: version, AllowWatchBookmarks: true})
	if err != nil {
		if apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
			return ""
		}
		return version
	}
	defer w.Stop()
	for event := range w.ResultChan() {
		object, ok := event.Object.(metav1.Object)
		if !ok {
			if err := apierrors.FromObject(event.Object); apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
				return ""
			}
			return version
		}
		version = object.GetResourceVersion()
		if event.Type != watch.Bookmark {
			s.see(object, event.Type == watch.Deleted, false)
		}
	}
	return version
}

// stop ends the watches.
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
	gate := o.gateLocked(kind + "/" + namespace + "/" + version)
	select {
	case <-gate: // passed before: a list repeats it
	default:
		close(gate)
	}
}

func (o *observer) seeLease(object metav1.Object, deleted, gap bool) {
	lease := object.(*coordinationv1.Lease)
	c := o.fleet(lease.Namespace)
	switch {
	case c == nil:
		return
	case lease.Name == barrier:
		o.pass("leases", lease.Namespace, lease.ResourceVersion)
		return
	case lease.Name != contested:
		return
	}
	e := leaseEvent{rv: version(lease), seen: mono.Now(), gap: gap, deleted: deleted, epoch: lease.CreationTimestamp.Unix() << 20}
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
	c.add(func(v *view) {
		if v.lease().rv < e.rv { // else a list repeats what is known
			v.leases = append(v.leases, e)
		}
	})
}

func (o *observer) seeWrite(object metav1.Object, _, _ bool) {
	written := object.(*corev1.ConfigMap)
	c := o.fleet(written.Namespace)
	if c == nil {
		return
	}
	if written.Name == barrier {
		o.pass("configmaps", written.Namespace, written.ResourceVersion)
		return
	}
	e := writeEvent{rv: version(written), seen: mono.Now(), writer: written.Data["writer"]}
	e.epoch, _ = strconv.ParseInt(written.Data["epoch"], 10, 64)
	e.seq, _ = strconv.ParseInt(written.Data["seq"], 10, 64)
	if e.writer == "" {
		return // the campaign's own
	}
	c.add(func(v *view) {
		if len(v.writes) == 0 || v.writes[len(v.writes)-1].rv < e.rv {
			v.writes = append(v.writes, e)
		}
	})
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
