// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package objectttl

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/incumbent-io/incumbent/pkg/controllers"
	"github.com/incumbent-io/incumbent/pkg/reconciler"
)

const (
	// maxWait cuts a long wait, so that a step of the wall clock is noticed and a
	// deleted object's timer does not stay in memory for ever.
	maxWait = time.Hour
	// requestTimeout bounds the requests for one object.
	requestTimeout = 5 * time.Second
	// An object that fails is tried again after firstRetry, doubled up to maxRetry.
	firstRetry = 100 * time.Millisecond
	maxRetry   = 5 * time.Minute
	// maxNote is how many bytes of a note the API accepts.
	maxNote = 1024
)

// item is the queue's key: one object of one resource.
type item struct {
	resource schema.GroupVersionResource
	name     cache.ObjectName
}

// String is how logs and traces name it.
func (i item) String() string { return written(i.resource) + " " + i.name.String() }

// warning is what has been said about an object.
type warning struct {
	uid  types.UID
	text string
}

type controller struct {
	clock    clock.PassiveClock
	client   metadata.Interface
	kinds    *kinds
	recorder events.EventRecorder
	stores   map[schema.GroupVersionResource]cache.Store

	mu sync.Mutex
	// warned holds an entry for every object that carries a malformed annotation
	// and no other.
	warned map[item]warning
}

// build makes the controller of those resources that are there. When one appears or
// goes, the controller is built anew.
func build(ctx context.Context, c *controllers.Context, o *Options) (controllers.Controller, error) {
	server := func() discovery.DiscoveryInterfaces { return c.Clients.Kubernetes().Discovery() }
	ttl := &controller{
		clock:    c.Clock,
		client:   c.Clients.Metadata(),
		kinds:    &kinds{server: server, known: map[schema.GroupVersionResource]string{}},
		recorder: c.Events(scheme.Scheme),
		stores:   map[schema.GroupVersionResource]cache.Store{},
		warned:   map[item]warning{},
	}
	var watches []reconciler.Watch[item]
	for _, gvr := range o.resourceVersions() {
		if !c.Served(gvr) {
			klog.FromContext(ctx).Info("Resource is not served, or not granted; its objects do not expire until it is", "resource", written(gvr))
			continue
		}
		informer := c.Informers.Metadata(gvr).Informer()
		ttl.stores[gvr] = informer.GetStore()
		watches = append(watches, reconciler.Each(informer, itemsOf(gvr)))
	}
	if len(watches) == 0 {
		return nil, errors.New("none of its resources is served and granted: " + strings.Join(o.Resources, ", "))
	}
	return reconciler.New(reconciler.Config[item]{
		Name:        c.Name,
		Reconcile:   ttl.reconcile,
		Watches:     watches,
		Workers:     o.Workers,
		Timeout:     requestTimeout,
		RateLimiter: workqueue.NewTypedItemExponentialFailureRateLimiter[item](firstRetry, maxRetry),
		Metrics:     c.Metrics,
		Tracer:      c.Tracer,
		Clock:       c.Clock,
	})
}

// itemsOf keeps objects without the annotations out of the queue. One that has just lost
// them enters it by what it was before.
func itemsOf(gvr schema.GroupVersionResource) func(*metav1.PartialObjectMetadata) []item {
	return func(object *metav1.PartialObjectMetadata) []item {
		if !annotated(object) {
			return nil
		}
		return []item{{resource: gvr, name: cache.MetaObjectToName(object)}}
	}
}

// reconcile does what is due for the object now, and decides when to look at it again.
func (c *controller) reconcile(ctx context.Context, it item) (reconciler.Result, error) {
	object, err := c.cached(it)
	if err != nil {
		return reconciler.Result{}, err
	}
	if object == nil || object.DeletionTimestamp != nil {
		c.retract(it)
		return reconciler.Result{}, nil
	}
	due, err := deadlineOf(object)
	if err != nil {
		return reconciler.Result{}, c.warn(ctx, it, object, err)
	}
	c.retract(it)
	if due == nil {
		return reconciler.Result{}, nil
	}
	if wait := due.at.Sub(c.clock.Now()); wait > 0 {
		return reconciler.Result{RequeueAfter: min(wait, maxWait)}, nil
	}
	return reconciler.Result{}, c.expire(ctx, it, object, due)
}

// cached returns the object from the informer's cache, or nil if it is not there.
func (c *controller) cached(it item) (*metav1.PartialObjectMetadata, error) {
	found, exists, err := c.stores[it.resource].GetByKey(it.name.String())
	if err != nil || !exists {
		return nil, err
	}
	object, ok := found.(*metav1.PartialObjectMetadata)
	if !ok {
		return nil, fmt.Errorf("the cache holds a %T, want *PartialObjectMetadata", found)
	}
	return object, nil
}

// expire deletes exactly the object that was judged: same UID, same annotations. Of one
// that has changed meanwhile the newer state is judged.
func (c *controller) expire(ctx context.Context, it item, object *metav1.PartialObjectMetadata, due *deadline) error {
	// The default of some resources (Jobs) is to leave the dependents behind.
	propagation := metav1.DeletePropagationBackground
	err := c.client.Resource(it.resource).Namespace(it.name.Namespace).Delete(ctx, it.name.Name, metav1.DeleteOptions{
		Preconditions:     &metav1.Preconditions{UID: &object.UID, ResourceVersion: &object.ResourceVersion},
		PropagationPolicy: &propagation,
	})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("deleting: %w", err)
	}
	logger := klog.FromContext(ctx)
	logger.Info("Deleted expired object", "uid", object.UID, "annotation", due.annotation, "value", due.value, "due", due.at)
	regarding, err := c.reference(ctx, it, object)
	if err != nil {
		logger.Error(err, "Cannot report the deletion as an Event")
		return nil
	}
	note := fmt.Sprintf("Deleted: expired at %s by %s=%s", due.at.UTC().Format(time.RFC3339), due.annotation, due.value)
	c.recorder.Eventf(regarding, nil, corev1.EventTypeNormal, "Expired", "Delete", "%s", cut(note))
	return nil
}

// warn reports a malformed annotation, unless that has been said about this object
// and this value before.
func (c *controller) warn(ctx context.Context, it item, object *metav1.PartialObjectMetadata, problem error) error {
	said := warning{uid: object.UID, text: strings.ReplaceAll(problem.Error(), "\n", "; ")}
	if c.hasWarned(it, said) {
		return nil
	}
	regarding, err := c.reference(ctx, it, object)
	if err != nil {
		return err
	}
	c.recorder.Eventf(regarding, nil, corev1.EventTypeWarning, "InvalidTTL", "Ignore", "%s", cut("Left alone: "+said.text))
	c.mu.Lock()
	defer c.mu.Unlock()
	c.warned[it] = said
	return nil
}

func (c *controller) hasWarned(it item, w warning) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.warned[it] == w
}

// retract forgets what has been said about an object.
func (c *controller) retract(it item) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.warned, it)
}

// cut shortens a note to what the API accepts.
func cut(note string) string {
	if len(note) <= maxNote {
		return note
	}
	return strings.ToValidUTF8(note[:maxNote-len("...")], "") + "..."
}

// reference names the object in an Event. It carries the resourceVersion, or Events
// about two values of one annotation would be merged into one.
func (c *controller) reference(ctx context.Context, it item, object *metav1.PartialObjectMetadata) (*corev1.ObjectReference, error) {
	kind, err := c.kinds.of(ctx, it.resource)
	if err != nil {
		return nil, err
	}
	return &corev1.ObjectReference{
		APIVersion:      it.resource.GroupVersion().String(),
		Kind:            kind,
		Namespace:       it.name.Namespace,
		Name:            it.name.Name,
		UID:             object.UID,
		ResourceVersion: object.ResourceVersion,
	}, nil
}
