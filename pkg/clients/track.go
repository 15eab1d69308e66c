// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package clients

import (
	"maps"
	"reflect"
	"sync"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
)

// Tracked is what one cache of a view holds, and whether the view's handlers know.
type Tracked struct {
	// Resource is empty for a typed cache, whose Example tells what it holds.
	Resource schema.GroupVersionResource
	// Example has the Go type of the cache's objects; nil where all resources have
	// the same.
	Example runtime.Object
	Scope   Scope
	// Versions are the resourceVersions of the objects that it holds.
	Versions map[types.NamespacedName]string
	// Handlers is how many handlers the view has added to it, and Told says that all of
	// them have been told of just these versions, and have returned.
	Handlers int
	Told     bool
}

// Track has the view remember what its handlers are told, so that a test can wait
// until they have been told of everything. It costs memory for every object. Call it
// before handlers are added.
func (i *Informers) Track() {
	i.view.mu.Lock()
	defer i.view.mu.Unlock()
	i.view.tracks = true
}

// Tracked returns what the caches of a view that tracks hold.
func (i *Informers) Tracked() (list []Tracked) {
	for _, c := range i.view.caches() {
		t := Tracked{Resource: c.key.gvr, Scope: c.key.scope, Versions: map[types.NamespacedName]string{}, Told: true}
		if c.key.goType != nil {
			t.Example, _ = reflect.New(c.key.goType.Elem()).Interface().(runtime.Object)
		}
		for _, object := range c.informer.GetStore().List() {
			if name, version, ok := identify(object); ok {
				t.Versions[name] = version
			}
		}
		for _, g := range i.view.guardsOf(c) {
			t.Handlers++
			t.Told = t.Told && g.told.are(t.Versions)
		}
		list = append(list, t)
	}
	return list
}

// guardsOf returns the guards of the view's handlers of one cache.
func (v *view) guardsOf(c *resourceCache) (guards []*guard) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, r := range v.handlers {
		if r.informer.cache == c && !r.removed && r.handler.told != nil {
			guards = append(guards, r.handler)
		}
	}
	return guards
}

// told is what a handler has been told. A nil one remembers nothing.
type told struct {
	mu       sync.Mutex
	versions map[types.NamespacedName]string
}

func newTold() *told { return &told{versions: map[types.NamespacedName]string{}} }

func (t *told) note(object any, gone bool) {
	if t == nil {
		return
	}
	if tombstone, ok := object.(cache.DeletedFinalStateUnknown); ok {
		object = tombstone.Obj
	}
	name, version, ok := identify(object)
	if !ok {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if gone {
		delete(t.versions, name)
	} else {
		t.versions[name] = version
	}
}

func (t *told) are(versions map[types.NamespacedName]string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Equal(t.versions, versions)
}

func identify(object any) (name types.NamespacedName, version string, ok bool) {
	m, err := meta.Accessor(object)
	if err != nil {
		return name, "", false
	}
	return types.NamespacedName{Namespace: m.GetNamespace(), Name: m.GetName()}, m.GetResourceVersion(), true
}
