// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package reconciler

import (
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
)

// Watch is where keys come from. Make one with Self, Each, Owner or Channel.
type Watch[K comparable] struct {
	attach func(*Reconciler[K]) (remove func() error, err error)
	pump   func(context.Context, *Reconciler[K]) // nil: nothing to do while it runs
}

// Self reconciles every object of the informer, by its namespace and name, when it is
// added, changed or deleted. Of the changes, only those that all of keep want count.
func Self[T metav1.Object](informer cache.SharedIndexInformer, keep ...func(old, new T) bool) Watch[cache.ObjectName] {
	return Each(informer, func(object T) []cache.ObjectName {
		return []cache.ObjectName{{Namespace: object.GetNamespace(), Name: object.GetName()}}
	}, keep...)
}

// Owner reconciles the owner of that kind, if it has one, of every object of the
// informer.
func Owner[T metav1.Object](informer cache.SharedIndexInformer, kind string, keep ...func(old, new T) bool) Watch[cache.ObjectName] {
	return Each(informer, func(object T) []cache.ObjectName {
		owner := metav1.GetControllerOf(object)
		if owner == nil || owner.Kind != kind {
			return nil
		}
		return []cache.ObjectName{{Namespace: object.GetNamespace(), Name: owner.Name}}
	}, keep...)
}

// Each reconciles the keys that an object of the informer stands for, and after a
// change also those that it stood for before. keys must not change the object.
func Each[K comparable, T metav1.Object](informer cache.SharedIndexInformer, keys func(T) []K, keep ...func(old, new T) bool) Watch[K] {
	return Watch[K]{attach: func(r *Reconciler[K]) (func() error, error) {
		if informer == nil {
			return nil, fmt.Errorf("a watch has no informer")
		}
		registration, err := informer.AddEventHandler(handler[K, T]{r: r, keys: keys, keep: keep})
		if err != nil {
			return nil, err
		}
		return func() error { return informer.RemoveEventHandler(registration) }, nil
	}}
}

// Channel reconciles the keys that come out of the channel, until it is closed.
func Channel[K comparable](keys <-chan K) Watch[K] {
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

// handler turns events into keys.
type handler[K comparable, T metav1.Object] struct {
	r    *Reconciler[K]
	keys func(T) []K
	keep []func(old, new T) bool
}

func (h handler[K, T]) add(object any, canWait bool) {
	if gone, ok := object.(cache.DeletedFinalStateUnknown); ok {
		object = gone.Obj
	}
	if typed, ok := object.(T); ok {
		for _, key := range h.keys(typed) {
			h.r.add(key, canWait)
		}
	}
}

// OnAdd implements cache.ResourceEventHandler.
func (h handler[K, T]) OnAdd(object any, isInInitialList bool) { h.add(object, isInInitialList) }

// OnUpdate implements cache.ResourceEventHandler.
func (h handler[K, T]) OnUpdate(before, after any) {
	older, ok := before.(T)
	newer, alike := after.(T)
	if !ok || !alike {
		return
	}
	for _, keep := range h.keep {
		if !keep(older, newer) {
			return
		}
	}
	resync := older.GetResourceVersion() == newer.GetResourceVersion()
	h.add(before, resync)
	h.add(after, resync)
}

// OnDelete implements cache.ResourceEventHandler.
func (h handler[K, T]) OnDelete(object any) { h.add(object, false) }
