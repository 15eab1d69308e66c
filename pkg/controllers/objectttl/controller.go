// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package objectttl

import (
	"context"
	"fmt"
	"runtime/debug"
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
)

const (
	// maxWait cuts a long wait, so that a step of the wall clock is noticed and a
	// deleted object's timer does not stay in memory for ever.
	maxWait = time.Hour
	// conflictWait is when an object is judged again after a conflict if the watch
	// has not brought the newer object by then, which it normally has long before.
	conflictWait = time.Second
	// requestTimeout bounds one request, which is not cancelled by the end of the
	// run: it is finished, so that nothing is in flight when Run returns.
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
	workers  int
	queue    workqueue.TypedRateLimitingInterface[item]
	// Invariant: written by watch, before Run, and only read by Run.
	informers map[schema.GroupVersionResource]cache.SharedIndexInformer

	mu sync.Mutex
	// warned holds an entry for every object that carries a malformed annotation
	// and no other.
	warned map[item]warning
}

var _ controllers.Controller = (*controller)(nil)

// newController returns a controller without resources. Its queue lives until ctx
// ends or Run returns, whichever comes first.
func newController(ctx context.Context, c *controllers.Context, workers int) *controller {
	queue := workqueue.NewTypedRateLimitingQueueWithConfig(
		workqueue.NewTypedItemExponentialFailureRateLimiter[item](firstRetry, maxRetry),
		workqueue.TypedRateLimitingQueueConfig[item]{Name: Name, Clock: c.Clock, MetricsProvider: c.Metrics},
	)
	// The build may be discarded without a call of Run.
	context.AfterFunc(ctx, queue.ShutDown)
	server := func() discovery.DiscoveryInterfaces { return c.Clients.Kubernetes().Discovery() }
	return &controller{
		clock:     c.Clock,
		client:    c.Clients.Metadata(),
		kinds:     &kinds{server: server, known: map[schema.GroupVersionResource]string{}},
		recorder:  c.Events(scheme.Scheme),
		workers:   workers,
		queue:     queue,
		informers: map[schema.GroupVersionResource]cache.SharedIndexInformer{},
		warned:    map[item]warning{},
	}
}

// watch adds a resource. An object without the annotations never enters the queue,
// unless it has just lost them.
func (c *controller) watch(gvr schema.GroupVersionResource, informer cache.SharedIndexInformer) error {
	c.informers[gvr] = informer
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(object any) { c.enqueue(gvr, object) },
		UpdateFunc: func(before, after any) {
			if !c.enqueue(gvr, after) {
				c.enqueue(gvr, before)
			}
		},
		DeleteFunc: func(object any) {
			if tombstone, ok := object.(cache.DeletedFinalStateUnknown); ok {
				object = tombstone.Obj
			}
			c.enqueue(gvr, object)
		},
	})
	if err != nil {
		return fmt.Errorf("watching %s: %w", written(gvr), err)
	}
	return nil
}

func (c *controller) enqueue(gvr schema.GroupVersionResource, object any) bool {
	meta, ok := object.(metav1.Object)
	if !ok || !annotated(meta) {
		return false
	}
	c.queue.Add(item{resource: gvr, name: cache.MetaObjectToName(meta)})
	return true
}

// Run implements controllers.Controller.
func (c *controller) Run(ctx context.Context) error {
	defer c.queue.ShutDown()
	defer context.AfterFunc(ctx, c.queue.ShutDown)()
	var workers sync.WaitGroup
	for range c.workers {
		workers.Go(func() { c.work(ctx) })
	}
	workers.Wait()
	return nil
}

func (c *controller) work(ctx context.Context) {
	for {
		it, shutDown := c.queue.Get()
		if shutDown {
			return
		}
		// A queue that is shut down still hands out what it holds; that is left to
		// the next run.
		if ctx.Err() == nil {
			c.process(ctx, it)
		}
		c.queue.Done(it)
	}
}

// process judges one object and decides when to look at it again.
func (c *controller) process(ctx context.Context, it item) {
	logger := klog.FromContext(ctx).WithValues("resource", written(it.resource), "object", klog.KRef(it.name.Namespace, it.name.Name))
	requestCtx, cancel := context.WithTimeout(context.WithoutCancel(klog.NewContext(ctx, logger)), requestTimeout)
	defer cancel()

	wait, err := c.judgeSafely(requestCtx, it)
	switch {
	case err == nil:
		c.queue.Forget(it)
		if wait > 0 {
			c.queue.AddAfter(it, min(wait, maxWait))
		}
	case controllers.IsNotLeader(err):
		// The run is ending; the next leader sees the same object.
	case apierrors.IsConflict(err):
		logger.V(4).Info("Object changed before it could be deleted, judging the newer one")
		c.queue.AddAfter(it, conflictWait)
	default:
		if c.queue.NumRequeues(it) == 0 {
			logger.Error(err, "Cannot handle object, will retry at growing intervals")
		} else {
			logger.V(3).Info("Still cannot handle object", "err", err, "failures", c.queue.NumRequeues(it)+1)
		}
		c.queue.AddRateLimited(it)
	}
}

// judgeSafely turns a panic into an error, so that one object cannot stop the others:
// a panic in a worker's goroutine would end the process.
func (c *controller) judgeSafely(ctx context.Context, it item) (wait time.Duration, err error) {
	defer func() {
		if reason := recover(); reason != nil {
			err = fmt.Errorf("panic: %v\n%s", reason, debug.Stack())
		}
	}()
	return c.judge(ctx, it)
}

// judge does what is due for the object now. A positive wait is the time until it is
// due.
func (c *controller) judge(ctx context.Context, it item) (wait time.Duration, err error) {
	object, err := c.cached(it)
	if err != nil {
		return 0, err
	}
	if object == nil || object.DeletionTimestamp != nil {
		c.retract(it)
		return 0, nil
	}
	due, err := deadlineOf(object)
	if err != nil {
		return 0, c.warn(ctx, it, object, err)
	}
	c.retract(it)
	if due == nil {
		return 0, nil
	}
	if wait := due.at.Sub(c.clock.Now()); wait > 0 {
		return wait, nil
	}
	return 0, c.expire(ctx, it, object, due)
}

// cached returns the object from the informer's cache, or nil if it is not there.
func (c *controller) cached(it item) (*metav1.PartialObjectMetadata, error) {
	found, exists, err := c.informers[it.resource].GetStore().GetByKey(it.name.String())
	if err != nil || !exists {
		return nil, err
	}
	object, ok := found.(*metav1.PartialObjectMetadata)
	if !ok {
		return nil, fmt.Errorf("the cache holds a %T, want *PartialObjectMetadata", found)
	}
	return object, nil
}

// expire deletes exactly the object that was judged: same UID, same annotations.
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
