// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

//go:build linux

package node

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// follower is told what a watch sees. Its methods are called one at a time.
type follower struct {
	// set is called for each object that has appeared or changed.
	set func(object any)
	// remove is called for each object that has vanished while it was watched.
	remove func(object any)
	// reset is called with all objects that exist, at the start and after a watch was interrupted for long.
	reset func(objects []any)
}

var _ cache.ReflectorStore = follower{}

// Add implements cache.ReflectorStore.
func (f follower) Add(object any) error { f.set(object); return nil }

// Update implements cache.ReflectorStore.
func (f follower) Update(object any) error { f.set(object); return nil }

// Delete implements cache.ReflectorStore.
func (f follower) Delete(object any) error { f.remove(object); return nil }

// Replace implements cache.ReflectorStore.
func (f follower) Replace(objects []any, _ string) error { f.reset(objects); return nil }

// Resync implements cache.ReflectorStore.
func (f follower) Resync() error { return nil }

// follow watches the selected objects until ctx ends. An informer would wait for half a minute once the API server has
// failed a few times in two minutes, which it often does here; this tries again within about a second.
func follow(ctx context.Context, client kubernetes.Interface, resource, namespace string, selector fields.Selector, kind runtime.Object, f follower) {
	lw := cache.NewListWatchFromClient(client.CoreV1().RESTClient(), resource, namespace, selector)
	reflector := cache.NewReflectorWithOptions(cache.ToListWatcherWithWatchListSemantics(lw, client), kind, f, cache.ReflectorOptions{
		Name:    resource,
		Backoff: &wait.Backoff{Duration: 100 * time.Millisecond, Factor: 2, Jitter: 0.2, Steps: 5, Cap: time.Second},
	})
	reflector.RunWithContext(ctx)
}
