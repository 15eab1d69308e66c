// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package clients

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"k8s.io/client-go/tools/cache"
)

// errReadOnly refuses writes to a cache that mirrors the API server.
var errReadOnly = errors.New("clients: a shared cache is read-only")

// index is an index of one controller in a shared cache. client-go cannot remove
// one, so it lives as long as the cache, over many runs of its controller, with
// the function that the first run brought.
type index struct {
	name  string // as the controller calls it
	cache *resourceCache
	fn    cache.IndexFunc

	mu    sync.Mutex
	views map[*view]struct{}
	// failed are the keys of objects that may be missing in the index.
	failed map[string]error
}

// storeName is how an index of owner is called in the store. No name of an index
// that client-go or a code generator makes contains the separator.
func storeName(owner, name string) string { return owner + "\x00" + name }

// addIndexers adds those that the controller has not added before. It fails if
// such an older index lacks objects on which its function has failed.
func (c *resourceCache) addIndexers(v *view, indexers cache.Indexers) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	builtIn := c.informer.GetIndexer().GetIndexers()
	fresh := cache.Indexers{}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(indexers)) {
		stored := storeName(v.owner, name)
		if _, ok := builtIn[name]; ok {
			continue
		}
		if old := c.indexes[stored]; old != nil {
			old.join(v)
			errs = append(errs, old.recheck())
			continue
		}
		ix := &index{name: name, cache: c, fn: indexers[name], views: map[*view]struct{}{v: {}}, failed: map[string]error{}}
		c.indexes[stored] = ix
		fresh[stored] = ix.values
	}
	if len(fresh) > 0 {
		if err := c.informer.AddIndexers(fresh); err != nil {
			for stored := range fresh {
				delete(c.indexes, stored)
			}
			errs = append(errs, fmt.Errorf("clients: %w", err))
		}
	}
	return errors.Join(errs...)
}

// index returns the index that owner calls name, or nil.
func (c *resourceCache) index(owner, name string) *index {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.indexes[storeName(owner, name)]
}

// forget ends the reports of refusals and of index functions to v.
func (c *resourceCache) forget(v *view) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.views, v)
	for _, ix := range c.indexes {
		ix.leave(v)
	}
}

func (ix *index) join(v *view) {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	ix.views[v] = struct{}{}
}

func (ix *index) leave(v *view) {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	delete(ix.views, v)
}

// values is the function that the store calls, under its lock. What fails is
// left out, because the store would end the process.
func (ix *index) values(obj any) ([]string, error) {
	values, err := ix.try(obj)
	key, keyErr := cache.DeletionHandlingMetaNamespaceKeyFunc(obj)
	if keyErr != nil {
		key = keyErr.Error()
	}
	ix.mu.Lock()
	defer ix.mu.Unlock()
	if err == nil {
		delete(ix.failed, key)
		return values, nil
	}
	err = fmt.Errorf("clients: object %s in %s: %w", key, ix.cache.key, err)
	ix.failed[key] = err
	for v := range ix.views {
		v.fault(err)
	}
	return nil, nil
}

func (ix *index) try(obj any) (values []string, err error) {
	returned := false
	defer func() {
		if !returned {
			values, err = nil, panicked(fmt.Sprintf("index %q", ix.name), recover())
		}
	}()
	values, err = ix.fn(obj)
	returned = true
	if err != nil {
		err = fmt.Errorf("index %q: %w", ix.name, err)
	}
	return values, err
}

// recheck returns why the index lacks an object that is in the cache, or nil.
func (ix *index) recheck() error {
	ix.mu.Lock()
	keys := slices.Sorted(maps.Keys(ix.failed))
	ix.mu.Unlock()
	store := ix.cache.informer.GetStore()
	for _, key := range keys {
		// Not under the lock, because the store holds its own when it calls values.
		_, exists, _ := store.GetByKey(key)
		ix.mu.Lock()
		err := ix.failed[key]
		if !exists {
			delete(ix.failed, key)
		}
		ix.mu.Unlock()
		if exists && err != nil {
			return err
		}
	}
	return nil
}

// indexer is the store of a shared informer as one view sees it.
type indexer struct{ informer *informer }

var _ cache.Indexer = (*indexer)(nil)

func (x *indexer) store() cache.Indexer { return x.informer.cache.informer.GetIndexer() }

// translate turns the name that the controller uses into the store's.
func (x *indexer) translate(name string) string {
	if x.informer.cache.index(x.informer.view.owner, name) != nil {
		return storeName(x.informer.view.owner, name)
	}
	return name
}

// Index implements cache.Indexer.
func (x *indexer) Index(indexName string, obj any) ([]any, error) {
	if ix := x.informer.cache.index(x.informer.view.owner, indexName); ix != nil {
		if _, err := ix.try(obj); err != nil {
			return nil, fmt.Errorf("clients: %w", err)
		}
	}
	return x.store().Index(x.translate(indexName), obj)
}

// IndexKeys implements cache.Indexer.
func (x *indexer) IndexKeys(indexName, indexedValue string) ([]string, error) {
	return x.store().IndexKeys(x.translate(indexName), indexedValue)
}

// ListIndexFuncValues implements cache.Indexer.
func (x *indexer) ListIndexFuncValues(indexName string) []string {
	return x.store().ListIndexFuncValues(x.translate(indexName))
}

// ByIndex implements cache.Indexer.
func (x *indexer) ByIndex(indexName, indexedValue string) ([]any, error) {
	return x.store().ByIndex(x.translate(indexName), indexedValue)
}

// GetIndexers returns the indexes of this controller, and those that came with
// the informer, without those of other controllers.
func (x *indexer) GetIndexers() cache.Indexers {
	visible := cache.Indexers{}
	for stored, fn := range x.store().GetIndexers() {
		owner, name, private := strings.Cut(stored, "\x00")
		switch {
		case !private:
			visible[stored] = fn
		case owner == x.informer.view.owner:
			if ix := x.informer.cache.index(owner, name); ix != nil {
				visible[name] = ix.fn
			}
		}
	}
	return visible
}

// AddIndexers implements cache.Indexer.
func (x *indexer) AddIndexers(indexers cache.Indexers) error { return x.informer.AddIndexers(indexers) }

// List implements cache.Store.
func (x *indexer) List() []any { return x.store().List() }

// ListKeys implements cache.Store.
func (x *indexer) ListKeys() []string { return x.store().ListKeys() }

// Get implements cache.Store.
func (x *indexer) Get(obj any) (any, bool, error) { return x.store().Get(obj) }

// GetByKey implements cache.Store.
func (x *indexer) GetByKey(key string) (any, bool, error) { return x.store().GetByKey(key) }

// LastStoreSyncResourceVersion implements cache.Store.
func (x *indexer) LastStoreSyncResourceVersion() string {
	return x.store().LastStoreSyncResourceVersion()
}

// Add is refused: the cache is read-only.
func (x *indexer) Add(any) error { return errReadOnly }

// Update is refused: the cache is read-only.
func (x *indexer) Update(any) error { return errReadOnly }

// Delete is refused: the cache is read-only.
func (x *indexer) Delete(any) error { return errReadOnly }

// Replace is refused: the cache is read-only.
func (x *indexer) Replace([]any, string) error { return errReadOnly }

// Bookmark does nothing: the cache is read-only.
func (x *indexer) Bookmark(string) {}

// Resync does nothing, as in client-go.
func (x *indexer) Resync() error { return nil }
