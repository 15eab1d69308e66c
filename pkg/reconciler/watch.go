// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package reconciler

import (
	"context"
	"fmt"
	"reflect"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/cache"
)

// Watch is where keys come from. Make one with Self, Owner, Each or Channel.
type Watch[K comparable] struct {
	attach func(*Reconciler[K]) (remove func() error, err error)
	pump   func(context.Context, *Reconciler[K]) // nil: nothing to do while it runs
}

// Self reconciles every object of the informer, by its namespace and name, when it is
// added, changed or deleted. Of the changes, only those that all of keep want count.
// Functions of a watch must not change the object; they are called by the informer, so
// a panic there is no panic of Reconcile.
func Self[T metav1.Object](informer cache.SharedIndexInformer, keep ...func(old, new T) bool) Watch[cache.ObjectName] {
	return watch(informer, handler[cache.ObjectName, T]{keep: keep, one: func(object T) (cache.ObjectName, bool) {
		return cache.ObjectName{Namespace: object.GetNamespace(), Name: object.GetName()}, true
	}})
}

// Owner reconciles the controlling owner, if it is of that group and kind, of every
// object of the informer: the owner before a change, too. The key has the namespace of
// the object; for owners that have none, use Each.
func Owner[T metav1.Object](informer cache.SharedIndexInformer, kind schema.GroupKind, keep ...func(old, new T) bool) Watch[cache.ObjectName] {
	return watch(informer, handler[cache.ObjectName, T]{keep: keep, moves: true, one: func(object T) (cache.ObjectName, bool) {
		owner := metav1.GetControllerOfNoCopy(object)
		if owner == nil || owner.Kind != kind.Kind {
			return cache.ObjectName{}, false
		}
		version, err := schema.ParseGroupVersion(owner.APIVersion)
		return cache.ObjectName{Namespace: object.GetNamespace(), Name: owner.Name}, err == nil && version.Group == kind.Group
	}})
}

// Each reconciles the keys that an object of the informer stands for, and after a
// change also those that it stood for before. An object for which keys returns none
// counts for nothing.
func Each[K comparable, T metav1.Object](informer cache.SharedIndexInformer, keys func(T) []K, keep ...func(old, new T) bool) Watch[K] {
	return watch(informer, handler[K, T]{keep: keep, moves: true, many: keys})
}

// GenerationChanged keeps changes of the desired state, and drops those of metadata and
// status: for resources whose generation the API server counts, which are all custom
// resources and most others, but not ConfigMaps and Secrets.
func GenerationChanged[T metav1.Object](old, new T) bool {
	return old.GetGeneration() != new.GetGeneration()
}

// Channel reconciles the keys that come out of the channel, until it is closed. Nobody
// receives from it when the run is over.
func Channel[K comparable](keys <-chan K) Watch[K] {
	if keys == nil {
		return Watch[K]{}
	}
	return Watch[K]{
		attach: func(*Reconciler[K]) (func() error, error) { return func() error { return nil }, nil },
		pump: func(ctx context.Context, r *Reconciler[K]) {
			for {
				select {
				case key, open := <-keys:
					if !open {
						return
					}
					r.add(key, false)
				case <-ctx.Done():
					return
				}
			}
		},
	}
}

// watch is empty without an informer, which New tells.
func watch[K comparable, T metav1.Object](informer cache.SharedIndexInformer, h handler[K, T]) Watch[K] {
	if informer == nil || reflect.ValueOf(informer).Kind() == reflect.Pointer && reflect.ValueOf(informer).IsNil() {
		return Watch[K]{}
	}
	return Watch[K]{attach: func(r *Reconciler[K]) (func() error, error) {
		h := h
		h.r = r
		registration, err := informer.AddEventHandler(h)
		if err != nil {
			return nil, err
		}
		return func() error { return informer.RemoveEventHandler(registration) }, nil
	}}
}

// handler turns events into keys.
type handler[K comparable, T metav1.Object] struct {
	r    *Reconciler[K]
	keep []func(old, new T) bool
	// one or many is set: a function of at most one key needs no slice.
	one   func(T) (K, bool)
	many  func(T) []K
	moves bool // the keys of an object can change
}

func (h handler[K, T]) add(object T, canWait bool) {
	if h.many != nil {
		for _, key := range h.many(object) {
			h.r.add(key, canWait)
		}
	} else if key, ok := h.one(object); ok {
		h.r.add(key, canWait)
	}
}

// typed fails the run if the object is not a T: otherwise nothing would ever be
// reconciled, in silence.
func (h handler[K, T]) typed(object any) (typed T, ok bool) {
	if typed, ok = object.(T); !ok {
		h.r.fail(fmt.Errorf("a watch of %v got a %T from its informer; name the type of the informer's objects, as in Self[%[2]T]", reflect.TypeFor[T](), object))
	}
	return typed, ok
}

// OnAdd implements cache.ResourceEventHandler.
func (h handler[K, T]) OnAdd(object any, isInInitialList bool) {
	if typed, ok := h.typed(object); ok {
		h.add(typed, isInInitialList)
	}
}

// OnUpdate implements cache.ResourceEventHandler.
func (h handler[K, T]) OnUpdate(before, after any) {
	older, ok := h.typed(before)
	newer, alike := h.typed(after)
	if !ok || !alike {
		return
	}
	for _, keep := range h.keep {
		if !keep(older, newer) {
			return
		}
	}
	// Objects of a fake API server may have no version at all.
	resync := older.GetResourceVersion() == newer.GetResourceVersion() && newer.GetResourceVersion() != ""
	if h.moves && !resync {
		h.add(older, false)
	}
	h.add(newer, resync)
}

// OnDelete implements cache.ResourceEventHandler.
func (h handler[K, T]) OnDelete(object any) {
	if gone, ok := object.(cache.DeletedFinalStateUnknown); ok {
		object = gone.Obj
	}
	if typed, ok := h.typed(object); ok {
		h.add(typed, false)
	}
}
