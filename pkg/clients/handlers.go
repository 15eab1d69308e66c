// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package clients

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"

	"k8s.io/client-go/tools/cache"
)

// registration is one handler of a view. It stands in for the registration of
// the shared informer, which exists only once the view is attached.
type registration struct {
	informer *informer
	handler  *guard
	options  cache.HandlerOptions
	name     string

	// Guarded by view.mu.
	actual  cache.ResourceEventHandlerRegistration // nil until attached
	removed bool
	synced  chan struct{} // made when Done is called before attaching
}

var (
	_ cache.ResourceEventHandlerRegistration = (*registration)(nil)
	_ cache.DoneChecker                      = (*registration)(nil)
)

func newRegistration(i *informer, handler cache.ResourceEventHandler, options cache.HandlerOptions) *registration {
	name := fmt.Sprintf("%T for %s", handler, i.cache.key)
	return &registration{
		informer: i,
		handler:  &guard{view: i.view, name: name, handler: handler, attached: make(chan struct{}), gone: make(chan struct{})},
		options:  options,
		name:     name,
	}
}

// HasSynced says whether the handler has been given all objects that were in
// the cache when it was attached, and the cache has synced.
func (r *registration) HasSynced() bool {
	r.informer.view.mu.Lock()
	defer r.informer.view.mu.Unlock()
	return r.actual != nil && r.actual.HasSynced()
}

// HasSyncedChecker is HasSynced for those who wait.
func (r *registration) HasSyncedChecker() cache.DoneChecker { return r }

// Name implements cache.DoneChecker.
func (r *registration) Name() string { return r.name }

// String implements fmt.Stringer.
func (r *registration) String() string { return r.name }

// Done implements cache.DoneChecker. The channel never closes if the handler is
// removed before it has synced.
func (r *registration) Done() <-chan struct{} {
	r.informer.view.mu.Lock()
	defer r.informer.view.mu.Unlock()
	if r.actual != nil && r.synced == nil {
		return r.actual.HasSyncedChecker().Done()
	}
	if r.synced == nil {
		r.synced = make(chan struct{})
	}
	return r.synced
}

func (r *registration) attachLocked() error {
	if r.removed {
		return nil
	}
	actual, err := r.informer.cache.informer.AddEventHandlerWithOptions(r.handler, r.options)
	close(r.handler.attached)
	if err != nil {
		return fmt.Errorf("clients: %w", err)
	}
	r.actual = actual
	if r.synced != nil {
		go forward(actual.HasSyncedChecker().Done(), r.synced, r.handler.gone)
	}
	return nil
}

// forward closes synced when done is closed, unless gone is first.
func forward(done <-chan struct{}, synced chan<- struct{}, gone <-chan struct{}) {
	select {
	case <-done:
		close(synced)
	case <-gone:
	}
}

// remove stops further calls, without waiting for one that runs.
func (r *registration) remove() {
	v := r.informer.view
	v.mu.Lock()
	first := !r.removed
	r.removed = true
	actual := r.actual
	v.mu.Unlock()
	if !first {
		return
	}
	close(r.handler.gone)
	if actual != nil {
		// It fails only for a registration of another informer.
		_ = r.informer.cache.informer.RemoveEventHandler(actual)
	}
}

// awaitEnd says whether the last call has returned before ctx ended.
func (r *registration) awaitEnd(ctx context.Context) bool {
	r.informer.view.mu.Lock()
	over := r.overLocked()
	actual := r.actual
	r.informer.view.mu.Unlock()
	if over {
		return true
	}
	select {
	case <-shutdown(actual):
		return true
	case <-ctx.Done():
		return false
	}
}

// overLocked says whether the handler is removed and no call of it runs.
func (r *registration) overLocked() bool {
	if !r.removed {
		return false
	}
	if r.actual == nil {
		return true
	}
	select {
	case <-shutdown(r.actual):
		return true
	default:
		return false
	}
}

// shutdown is what cache.ShutDownEventHandler waits for, without a bound. An
// informer that is not client-go's may not have it; there is no telling then.
func shutdown(actual cache.ResourceEventHandlerRegistration) <-chan struct{} {
	if ending, ok := actual.(interface{ ShutdownChan() <-chan struct{} }); ok {
		return ending.ShutdownChan()
	}
	over := make(chan struct{})
	close(over)
	return over
}

// guard keeps what a handler does from harming others: the goroutine that calls
// it belongs to client-go, where a panic ends the process.
type guard struct {
	view     *view
	name     string
	handler  cache.ResourceEventHandler
	attached chan struct{} // closed when the whole cache has been queued for the handler
	gone     chan struct{} // closed when the handler is removed
	told     *told         // nil unless the view tracks
}

// OnAdd implements cache.ResourceEventHandler.
func (g *guard) OnAdd(obj any, isInInitialList bool) {
	g.call(func() { g.handler.OnAdd(obj, isInInitialList) })
	g.told.note(obj, false)
}

// OnUpdate implements cache.ResourceEventHandler.
func (g *guard) OnUpdate(oldObj, newObj any) {
	g.call(func() { g.handler.OnUpdate(oldObj, newObj) })
	g.told.note(newObj, false)
}

// OnDelete implements cache.ResourceEventHandler.
func (g *guard) OnDelete(obj any) {
	g.call(func() { g.handler.OnDelete(obj) })
	g.told.note(obj, true)
}

// call waits for the end of attaching: were an object handled while others are
// still being queued, client-go could take the queue's being empty for a moment
// for the end, and say that the handler has synced when it has not.
func (g *guard) call(f func()) {
	<-g.attached
	if g.view.muted.Load() {
		return
	}
	select {
	case <-g.gone:
		return
	default:
	}
	returned := false
	defer func() {
		if !returned {
			g.view.muted.Store(true)
			g.view.fault(panicked("handler "+g.name, recover()))
		}
	}()
	f()
	returned = true
}

// panicked makes an error of what recover returned, in a deferred function, so
// that the stack still shows where the panic was. It wraps a panic's error.
func panicked(what string, value any) error {
	stack := debug.Stack()
	switch value := value.(type) {
	case nil:
		return fmt.Errorf("clients: %s called runtime.Goexit\n%s", what, stack)
	case error:
		return fmt.Errorf("clients: %s panicked: %w\n%s", what, value, stack)
	default:
		return fmt.Errorf("clients: %s panicked: %v\n%s", what, value, stack)
	}
}

// errForeign refuses a registration that another informer has given out.
var errForeign = errors.New("clients: the handler was not added through this informer")
