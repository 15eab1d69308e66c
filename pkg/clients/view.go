// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package clients

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
)

// Informers is the view that one run of a controller has of the shared caches.
// Asking it for an informer takes a reference to the cache; handlers and indexes
// that are added through it belong to this controller alone.
//
// The runner of controllers calls, in this order: Pool.View before Init, Attach
// when Run starts, Detach when Run has returned, Release when the controller no
// longer needs its caches. A restart releases the view of the old run after the
// Init of the new one, so nothing is listed again.
//
// All methods are safe for concurrent use.
type Informers struct {
	view  *view
	scope Scope
}

// In returns the same view, narrowed to scope. It does not narrow further: In on
// a narrowed view starts from everything again.
func (i *Informers) In(scope Scope) *Informers {
	return &Informers{view: i.view, scope: scope.canonical()}
}

// Typed returns the view in the shape of client-go's typed factory, as in
// Typed().Core().V1().Pods(). Its Start and Shutdown do nothing, its ForResource
// returns an error. Protobuf is used if PoolConfig.REST asks for it.
func (i *Informers) Typed() informers.SharedInformerFactory { return &typed{informers: i} }

// Attach adds the handlers that were added to informers of this view so far:
// each is told of all objects in its cache as of now. Handlers that are added
// later are attached at once.
func (i *Informers) Attach() error { return i.view.attach() }

// Detach removes all handlers of this view and waits until none of them runs.
// When it returns nil, none will ever be called again; when ctx ends first, no
// further call begins, and the error names the handlers that still run. A
// handler must not call it.
func (i *Informers) Detach(ctx context.Context) error { return i.view.detach(ctx) }

// HasSynced says whether all caches of this view have synced. That their
// objects have been given to a handler is another thing: ask its registration.
func (i *Informers) HasSynced() bool {
	for _, c := range i.view.caches() {
		if !c.informer.HasSynced() {
			return false
		}
	}
	return true
}

// Unsynced returns a channel that closes when a cache of this view syncs that has
// not yet, or nil if all have.
func (i *Informers) Unsynced() <-chan struct{} {
	for _, c := range i.view.caches() {
		if !c.informer.HasSynced() {
			return c.informer.HasSyncedChecker().Done()
		}
	}
	return nil
}

// WaitForSync waits until HasSynced. When ctx ends first, the error names the
// caches that have not synced and the last error of each.
func (i *Informers) WaitForSync(ctx context.Context) error {
	for !i.HasSynced() {
		for _, c := range i.view.caches() {
			select {
			case <-c.informer.HasSyncedChecker().Done():
			case <-ctx.Done():
				return i.view.notSynced(context.Cause(ctx))
			case <-i.view.pool.stopped:
				return i.view.notSynced(errStopped)
			}
		}
	}
	return nil
}

// Err returns why caches of this view cannot be listed or watched now, or nil.
// They keep trying, and keep what they hold.
func (i *Informers) Err() error {
	var errs []error
	for _, c := range i.view.caches() {
		if err := c.lastErr(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", c.key, err))
		}
	}
	return errors.Join(errs...)
}

// Release gives up the references of this view, and detaches what Detach has
// not, without waiting. A cache that nobody else refers to stops its watch and
// is freed, once the controller that used it is, too.
func (i *Informers) Release() { i.view.release() }

// Faults receives the first failure of this controller's code on a shared
// goroutine: a panic in a handler, or a panic or an error in an index function,
// with the stack. It harms no other view. From a panic on, no handler of this
// view is called: cancel the run and let a new one replay the cache. An object
// whose index function failed is not found by that index.
func (i *Informers) Faults() <-chan error { return i.view.faults }

// view is what the Informers of one run have in common.
//
//	built --attach--> attached --detach--> detached --release--> released
//
// Release may come in any state, and detach before attach.
type view struct {
	pool      *Pool
	owner     string
	onRefused func() // nil: none
	faults    chan error
	failed    atomic.Bool // a fault was reported
	muted     atomic.Bool // no handler is called any more

	mu        sync.Mutex
	state     viewState
	informers map[cacheKey]*informer
	order     []*informer // as first asked for
	handlers  []*registration
	tracks    bool // what handlers are told is remembered
}

type viewState int

const (
	viewBuilt viewState = iota
	viewAttached
	viewDetached
	viewReleased
)

func newView(pool *Pool, owner string, onRefused func()) *view {
	return &view{pool: pool, owner: owner, onRefused: onRefused, faults: make(chan error, 1), informers: map[cacheKey]*informer{}}
}

// informer returns the view's informer for key, taking a reference to its cache
// the first time.
func (v *view) informer(key cacheKey, example runtime.Object, build func(*resourceCache) (cache.SharedIndexInformer, error)) *informer {
	if i := v.known(key, example); i != nil {
		return i
	}
	// Outside the lock, because the builder of generated code is the author's.
	c := v.pool.acquire(key, func(c *resourceCache) { c.build(example, build) })
	i, refused := v.adopt(c, example)
	if refused {
		tellRefused([]*view{v})
	}
	return i
}

// adopt makes an acquired cache one of the view's, and says whether the API server
// refuses it.
func (v *view) adopt(c *resourceCache, example runtime.Object) (i *informer, refused bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if i := v.informers[c.key]; i != nil {
		v.pool.release(c)
		return i, false
	}
	if v.state == viewReleased {
		v.pool.release(c)
		return v.deadInformer(c.key, example), false
	}
	i = &informer{view: v, cache: c}
	v.informers[c.key] = i
	v.order = append(v.order, i)
	// Under the lock, or a release might forget the view before it has joined.
	return i, c.join(v)
}

// known returns nil if the view has to acquire the cache.
func (v *view) known(key cacheKey, example runtime.Object) *informer {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.state == viewReleased {
		return v.deadInformer(key, example)
	}
	return v.informers[key]
}

// deadInformer is what a released view is given: an empty cache that nobody runs.
func (v *view) deadInformer(key cacheKey, example runtime.Object) *informer {
	return &informer{view: v, cache: &resourceCache{
		pool: v.pool, key: key, informer: failingInformer(example, errReleased), indexes: map[string]*index{},
	}}
}

func (v *view) caches() []*resourceCache {
	v.mu.Lock()
	defer v.mu.Unlock()
	caches := make([]*resourceCache, 0, len(v.order))
	for _, i := range v.order {
		caches = append(caches, i.cache)
	}
	return caches
}

func (v *view) attach() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.state != viewBuilt {
		return fmt.Errorf("clients: the view of %s cannot be attached: it is %s", v.owner, v.state)
	}
	v.state = viewAttached
	var errs []error
	for _, r := range v.handlers {
		errs = append(errs, r.attachLocked())
	}
	return errors.Join(errs...)
}

func (v *view) detach(ctx context.Context) error {
	v.mu.Lock()
	v.muted.Store(true)
	if v.state < viewDetached {
		v.state = viewDetached
	}
	handlers := slices.Clone(v.handlers)
	v.mu.Unlock()

	// All are removed before any is waited for, and without the lock, which a
	// handler that is running may want.
	for _, r := range handlers {
		r.remove()
	}
	var running []string
	for _, r := range handlers {
		if !r.awaitEnd(ctx) {
			running = append(running, r.String())
		}
	}
	if len(running) > 0 {
		return fmt.Errorf("clients: handlers of %s still run: %s: %w", v.owner, strings.Join(running, ", "), context.Cause(ctx))
	}
	return nil
}

func (v *view) release() {
	v.mu.Lock()
	if v.state == viewReleased {
		v.mu.Unlock()
		return
	}
	v.state = viewReleased
	v.muted.Store(true)
	handlers, order := v.handlers, v.order
	v.handlers, v.order, v.informers = nil, nil, map[cacheKey]*informer{}
	v.mu.Unlock()
	for _, r := range handlers {
		r.remove()
	}
	for _, i := range order {
		i.cache.forget(v)
		v.pool.release(i.cache)
	}
}

func (v *view) notSynced(cause error) error {
	var missing []string
	for _, c := range v.caches() {
		if c.informer.HasSynced() {
			continue
		}
		missing = append(missing, c.key.String())
		if err := c.lastErr(); err != nil {
			missing[len(missing)-1] += ": " + err.Error()
		}
	}
	return fmt.Errorf("clients: caches of %s have not synced: %s: %w", v.owner, strings.Join(missing, "; "), cause)
}

// fault reports err unless another one was reported before.
func (v *view) fault(err error) {
	if v.failed.CompareAndSwap(false, true) {
		v.faults <- err // It has room for one.
	}
}

func (s viewState) String() string {
	return [...]string{"built", "attached", "detached", "released"}[s]
}
