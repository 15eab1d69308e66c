// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package clients

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"reflect"
	"slices"
	"strings"
	"sync"
	"syscall"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
)

var errReleased = errors.New("the informer was released")

// Scope narrows what a cache holds. The zero value is everything. Two
// controllers share a cache only if their scopes are equal.
type Scope struct {
	// Namespace is one namespace; empty: all.
	Namespace string
	// LabelSelector and FieldSelector are as in metav1.ListOptions. One that
	// does not parse is refused by the API server, see Informers.WaitForSync.
	LabelSelector, FieldSelector string
}

// String names what the scope is narrowed to, in words; it is empty for everything.
func (s Scope) String() string {
	var parts []string
	for _, part := range []struct{ name, value string }{
		{"namespace", s.Namespace}, {"labels", s.LabelSelector}, {"fields", s.FieldSelector},
	} {
		if part.value != "" {
			parts = append(parts, part.name+" "+part.value)
		}
	}
	return strings.Join(parts, ", ")
}

// canonical makes scopes that mean the same equal.
func (s Scope) canonical() Scope {
	if selector, err := labels.Parse(s.LabelSelector); err == nil {
		s.LabelSelector = canonicalLabels(selector).String()
	}
	if selector, err := fields.ParseSelector(s.FieldSelector); err == nil {
		s.FieldSelector = selector.String()
	}
	return s
}

// canonicalLabels spells == as =. A parsed selector is sorted already.
func canonicalLabels(selector labels.Selector) labels.Selector {
	requirements, _ := selector.Requirements()
	same := labels.NewSelector()
	for _, r := range requirements {
		if r.Operator() == selection.DoubleEquals {
			if equals, err := labels.NewRequirement(r.Key(), selection.Equals, r.ValuesUnsorted()); err == nil {
				r = *equals
			}
		}
		same = same.Add(r)
	}
	return same
}

// form is the shape in which a cache holds its objects.
type form string

const (
	formTyped    form = "typed"
	formMetadata form = "metadata"
	formDynamic  form = "dynamic"
	formCustom   form = "custom"
)

// cacheKey identifies a cache. client-go asks for a typed informer by its Go
// type alone, so gvr is empty for formTyped; the Go type is empty for
// formMetadata and formDynamic, where all resources have the same one.
type cacheKey struct {
	form   form
	gvr    schema.GroupVersionResource
	goType reflect.Type
	scope  Scope
}

func (k cacheKey) String() string {
	if scope := k.scope.String(); scope != "" {
		return fmt.Sprintf("%s (%s, %s)", k.resource(), k.form, scope)
	}
	return fmt.Sprintf("%s (%s)", k.resource(), k.form)
}

// resource names what the cache holds.
func (k cacheKey) resource() string {
	if k.form == formTyped {
		return strings.TrimPrefix(k.goType.String(), "*")
	}
	return fmt.Sprintf("%s/%s", k.gvr.GroupResource(), k.gvr.Version)
}

// resourceCache is one informer that any number of views share, and what is
// known about its watch. Its phase says whether it could be out of date:
//
//	unseen --first request--> asking
//	asking --watch opened---> streaming --stream ended--> asking
//	       --refused--------> refused   --asks again----> asking
//
// Refused means that the API server has answered, and will not serve this
// resource: it is missing or forbidden. A cache stays unseen if it does not use
// the pool's transport: with Fakes, or by the will of the builder of generated
// code.
type resourceCache struct {
	pool     *Pool
	key      cacheKey
	name     *cache.InformerName
	built    sync.Once
	informer cache.SharedIndexInformer // Invariant: set by built, then never changes

	life context.Context // ends when the last reference is released
	end  context.CancelCauseFunc
	done chan struct{} // closed when the informer has returned

	// Guarded by pool.mu.
	refs    int
	ready   bool // informer may be read by all
	started bool

	mu      sync.Mutex
	log     klog.Logger
	indexes map[string]*index // by their names in the store
	phase   phase
	status  int                // of the answer that refused the resource, while refused
	opened  bool               // a watch has been open
	stream  *stream            // the open watch, while streaming or replaying
	causes  causes             // why it is not streaming; none once it is
	views   map[*view]struct{} // that refer to it, to be told of refusals
}

type phase int

const (
	unseen phase = iota
	asking
	streaming
	refused
)

func newResourceCache(pool *Pool, key cacheKey) *resourceCache {
	c := &resourceCache{pool: pool, key: key, done: make(chan struct{}), indexes: map[string]*index{}, views: map[*view]struct{}{}, log: klog.Background()}
	c.life, c.end = context.WithCancelCause(context.Background())
	c.name = informerName(pool.name + "/" + key.String())
	return c
}

// informerName finds a free name. Only a second pool of the same name, or an
// informer that somebody else names like this, makes it try more than once.
func informerName(name string) *cache.InformerName {
	for n := 1; ; n++ {
		candidate := name
		if n > 1 {
			candidate = fmt.Sprintf("%s #%d", name, n)
		}
		if reserved, err := cache.NewInformerName(candidate); err == nil {
			return reserved
		}
	}
}

// build makes the informer. What cannot be built becomes an informer that
// fails with the reason, so that it is reported like any other failed list.
func (c *resourceCache) build(example runtime.Object, builder func(*resourceCache) (cache.SharedIndexInformer, error)) {
	informer, err := guardedBuild(c, builder)
	if err == nil {
		err = informer.SetTransform(trim)
	}
	if err == nil {
		err = informer.SetWatchErrorHandlerWithContext(c.watchFailed)
	}
	if err != nil {
		err = fmt.Errorf("the informer cannot be built: %w", err)
		informer = failingInformer(example, err)
		_ = informer.SetWatchErrorHandlerWithContext(c.watchFailed)
	}
	c.informer = informer
}

func guardedBuild(c *resourceCache, builder func(*resourceCache) (cache.SharedIndexInformer, error)) (informer cache.SharedIndexInformer, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = panicked("the builder", r)
		}
	}()
	informer, err = builder(c)
	if err == nil && informer == nil {
		err = errors.New("the builder returned nil")
	}
	return informer, err
}

func failingInformer(example runtime.Object, err error) cache.SharedIndexInformer {
	return cache.NewSharedIndexInformer(&cache.ListWatch{
		ListWithContextFunc:  func(context.Context, metav1.ListOptions) (runtime.Object, error) { return nil, err },
		WatchFuncWithContext: func(context.Context, metav1.ListOptions) (watch.Interface, error) { return nil, err },
	}, example, 0, cache.Indexers{})
}

// trim drops managedFields, which are often half of an object and which no
// reader of a cache needs.
func trim(obj any) (any, error) {
	if object, err := meta.Accessor(obj); err == nil && len(object.GetManagedFields()) > 0 {
		object.SetManagedFields(nil)
	}
	return obj, nil
}

type cacheContextKey struct{}

// cacheOf tells the transport for which cache a request is.
func cacheOf(ctx context.Context) *resourceCache {
	c, _ := ctx.Value(cacheContextKey{}).(*resourceCache)
	return c
}

// run returns when the cache is released or the pool stops.
func (c *resourceCache) run(ctx context.Context) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(c.life, func() { cancel(context.Cause(c.life)) })()
	logger := klog.FromContext(ctx).WithValues("cache", c.key.String())
	ctx = klog.NewContext(ctx, logger)
	c.mu.Lock()
	c.log = logger
	c.mu.Unlock()
	defer c.attend(ctx)()
	c.informer.RunWithContext(context.WithValue(ctx, cacheContextKey{}, c))
}

// attend has a handler there while the informer starts, and returns a function
// that waits for its end. Without any, an informer can have synced before it is
// ready for handlers; client-go then says too early that a handler has been told
// of all objects.
func (c *resourceCache) attend(ctx context.Context) func() {
	var attendant sync.WaitGroup
	registration, err := c.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{})
	if err != nil {
		return func() {} // It has stopped already.
	}
	attendant.Go(func() {
		select {
		case <-c.informer.HasSyncedChecker().Done():
			_ = c.informer.RemoveEventHandler(registration)
		case <-ctx.Done():
		}
	})
	return attendant.Wait
}

// hasSynced may be called while the informer is being built.
func (c *resourceCache) hasSynced() bool {
	c.pool.mu.Lock()
	defer c.pool.mu.Unlock()
	return c.ready && c.informer.HasSynced()
}

func (c *resourceCache) ended() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// watchFailed is called by the informer before it backs off.
func (c *resourceCache) watchFailed(ctx context.Context, _ *cache.Reflector, err error) {
	switch {
	case ctx.Err() != nil, errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF),
		apierrors.IsResourceExpired(err), apierrors.IsGone(err):
		klog.FromContext(ctx).V(4).Info("Watch ended", "err", err)
	default:
		c.report(err)
	}
}

// note keeps err for those who wait for this cache.
func (c *resourceCache) note(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.causes.last = err
}

// report is note, and logs each cause once until the cache streams again.
func (c *resourceCache) report(err error) {
	c.mu.Lock()
	fresh, log := c.causes.add(err), c.log
	c.mu.Unlock()
	if fresh {
		log.Error(err, "Cannot list or watch, will retry")
	}
}

// lastErr returns why the cache is not in contact, or nil.
func (c *resourceCache) lastErr() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.phase == unseen && c.informer.HasSynced() {
		return nil // Nothing tells when the watch is open again.
	}
	return c.causes.last
}

// causes are why something does not work, until it does.
type causes struct {
	last error
	seen []string
}

// maxCauses bounds what is logged, should each occurrence look new after all.
const maxCauses = 8

// add says whether the cause of err is a new one, which should be logged.
func (c *causes) add(err error) bool {
	c.last = err
	cause := causeOf(err)
	if slices.Contains(c.seen, cause) || len(c.seen) == maxCauses {
		return false
	}
	c.seen = append(c.seen, cause)
	return true
}

// causeOf shortens an error to what distinguishes it from others: without the
// ports, times and names that make each occurrence look new.
func causeOf(err error) string {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno.Error()
	}
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		return fmt.Sprintf("%d %s", status.Status().Code, status.Status().Reason)
	}
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return "timeout"
	}
	return err.Error()
}
