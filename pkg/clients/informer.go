// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package clients

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"k8s.io/client-go/tools/cache"
)

// errShared refuses what would change the cache for all other controllers.
var errShared = errors.New("clients: the cache is shared: its transform and its watch error handler are the pool's")

// informer is a shared informer as one view sees it. Run does nothing, because
// the pool runs the cache; SetTransform and SetWatchErrorHandler are refused.
// Shared informers of a pool do not resync: a resync period is ignored.
type informer struct {
	view  *view
	cache *resourceCache
}

var _ cache.SharedIndexInformer = (*informer)(nil)

// AddEventHandler implements cache.SharedInformer.
func (i *informer) AddEventHandler(handler cache.ResourceEventHandler) (cache.ResourceEventHandlerRegistration, error) {
	return i.AddEventHandlerWithOptions(handler, cache.HandlerOptions{})
}

// AddEventHandlerWithResyncPeriod implements cache.SharedInformer.
func (i *informer) AddEventHandlerWithResyncPeriod(handler cache.ResourceEventHandler, _ time.Duration) (cache.ResourceEventHandlerRegistration, error) {
	return i.AddEventHandlerWithOptions(handler, cache.HandlerOptions{})
}

// AddEventHandlerWithOptions implements cache.SharedInformer. The handler is
// called from Informers.Attach to Informers.Detach.
func (i *informer) AddEventHandlerWithOptions(handler cache.ResourceEventHandler, options cache.HandlerOptions) (cache.ResourceEventHandlerRegistration, error) {
	if handler == nil {
		return nil, errors.New("clients: the handler is nil")
	}
	options.ResyncPeriod = nil
	r := newRegistration(i, handler, options)
	v := i.view
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.tracks {
		r.handler.told = newTold()
	}
	switch v.state {
	case viewBuilt:
	case viewAttached:
		if err := r.attachLocked(); err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("clients: no handler can be added for %s: the view of %s is %s", i.cache.key, v.owner, v.state)
	}
	// Those that were removed, and whose last call has returned, need no Detach.
	v.handlers = slices.DeleteFunc(v.handlers, (*registration).overLocked)
	v.handlers = append(v.handlers, r)
	return r, nil
}

// RemoveEventHandler implements cache.SharedInformer. It does not wait for a
// call that runs; Informers.Detach does.
func (i *informer) RemoveEventHandler(handle cache.ResourceEventHandlerRegistration) error {
	r, ok := handle.(*registration)
	if !ok || r.informer != i {
		return errForeign
	}
	r.remove()
	return nil
}

// GetStore implements cache.SharedInformer.
func (i *informer) GetStore() cache.Store { return i.GetIndexer() }

// GetController implements cache.SharedInformer. Its Run does nothing.
func (i *informer) GetController() cache.Controller { return i.cache.informer.GetController() }

// Run does nothing: the pool runs the cache.
func (i *informer) Run(<-chan struct{}) {}

// RunWithContext does nothing: the pool runs the cache.
func (i *informer) RunWithContext(context.Context) {}

// HasSynced implements cache.SharedInformer.
func (i *informer) HasSynced() bool { return i.cache.informer.HasSynced() }

// HasSyncedChecker implements cache.SharedInformer.
func (i *informer) HasSyncedChecker() cache.DoneChecker { return i.cache.informer.HasSyncedChecker() }

// LastSyncResourceVersion implements cache.SharedInformer.
func (i *informer) LastSyncResourceVersion() string {
	return i.cache.informer.LastSyncResourceVersion()
}

// SetWatchErrorHandler is refused: the cache is shared.
func (i *informer) SetWatchErrorHandler(cache.WatchErrorHandler) error { return errShared }

// SetWatchErrorHandlerWithContext is refused: the cache is shared.
func (i *informer) SetWatchErrorHandlerWithContext(cache.WatchErrorHandlerWithContext) error {
	return errShared
}

// SetTransform is refused: the cache is shared.
func (i *informer) SetTransform(cache.TransformFunc) error { return errShared }

// IsStopped implements cache.SharedInformer.
func (i *informer) IsStopped() bool { return i.cache.informer.IsStopped() }

// AddIndexers implements cache.SharedIndexInformer. The names are private to the
// controller; adding one again does nothing.
func (i *informer) AddIndexers(indexers cache.Indexers) error {
	i.view.mu.Lock()
	released := i.view.state == viewReleased
	i.view.mu.Unlock()
	if released {
		return fmt.Errorf("clients: no index can be added to %s: the view of %s is released", i.cache.key, i.view.owner)
	}
	return i.cache.addIndexers(i.view, indexers)
}

// GetIndexer implements cache.SharedIndexInformer. What it returns is read-only.
func (i *informer) GetIndexer() cache.Indexer { return &indexer{informer: i} }
