// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

//go:build linux

package node

import (
	"context"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
)

// objectKind is a kind that volumes are made of.
type objectKind string

const (
	kindConfigMap objectKind = "ConfigMap"
	kindSecret    objectKind = "Secret"
)

type objectKey struct {
	kind            objectKind
	namespace, name string
}

// objectCache watches the ConfigMaps and Secrets that the volumes of Pods are made of, each by a watch of its own while a
// Pod uses it: a cluster may hold many others.
type objectCache struct {
	client kubernetes.Interface

	mu      sync.Mutex
	objects map[objectKey]*watchedObject
	running sync.WaitGroup
}

type watchedObject struct {
	cancel context.CancelFunc

	// Guarded by objectCache.mu.
	users  map[chan<- struct{}]bool // told of each change
	data   map[string][]byte
	found  bool
	synced bool // it is known whether the object exists
}

func newObjectCache(client kubernetes.Interface) *objectCache {
	return &objectCache{client: client, objects: map[objectKey]*watchedObject{}}
}

// use begins to watch an object for the owner of the channel, which must have room for one element.
func (c *objectCache) use(key objectKey, changed chan<- struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := c.objects[key]
	if o == nil {
		ctx, cancel := context.WithCancel(context.Background())
		o = &watchedObject{cancel: cancel, users: map[chan<- struct{}]bool{}}
		c.objects[key] = o
		c.running.Go(func() { c.watch(ctx, key, o) })
	}
	o.users[changed] = true
}

func (c *objectCache) watch(ctx context.Context, key objectKey, o *watchedObject) {
	set := func(object any) {
		c.mu.Lock()
		defer c.mu.Unlock()
		o.synced, o.data = true, nil
		switch object := object.(type) {
		case *corev1.ConfigMap:
			o.data = configMapData(object)
		case *corev1.Secret:
			o.data = object.Data
		}
		o.found = object != nil
		for user := range o.users {
			kick(user)
		}
	}
	resource, kind := "configmaps", runtime.Object(&corev1.ConfigMap{})
	if key.kind == kindSecret {
		resource, kind = "secrets", &corev1.Secret{}
	}
	follow(ctx, c.client, resource, key.namespace, fields.OneTermEqualSelector("metadata.name", key.name), kind, follower{
		set:    set,
		remove: func(any) { set(nil) },
		reset: func(list []any) {
			if len(list) == 0 {
				set(nil)
			} else {
				set(list[0])
			}
		},
	})
}

// release ends all that the owner of the channel uses.
func (c *objectCache) release(changed chan<- struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key, o := range c.objects {
		delete(o.users, changed)
		if len(o.users) == 0 {
			o.cancel()
			delete(c.objects, key)
		}
	}
}

// read returns the data of an object in use. synced is false until it is known whether the object exists.
func (c *objectCache) read(key objectKey) (data map[string][]byte, found, synced bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := c.objects[key]
	if o == nil {
		return nil, false, false
	}
	return o.data, o.found, o.synced
}

func configMapData(o *corev1.ConfigMap) map[string][]byte {
	data := make(map[string][]byte, len(o.Data)+len(o.BinaryData))
	for key, value := range o.Data {
		data[key] = []byte(value)
	}
	for key, value := range o.BinaryData {
		data[key] = value
	}
	return data
}

// close ends all watches.
func (c *objectCache) close() {
	c.mu.Lock()
	for _, o := range c.objects {
		o.cancel()
	}
	c.mu.Unlock()
	c.running.Wait()
}

// kick puts a token into a channel that has room for one, unless one is there.
func kick(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
