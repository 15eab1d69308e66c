// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package configrollout

import (
	"context"
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// reader reads ConfigMaps and Secrets that workloads refer to. Caches hold the metadata
// of all of them, and say when one must be read again; of what was read, only the
// fingerprints are kept.
type reader struct {
	client kubernetes.Interface
	key    *keeper
	caches map[string]cache.SharedIndexInformer // by kind; what is not here is not watched

	mu    sync.Mutex
	reads map[string]*lastRead // by source.in
}

// lastRead is of one object. Its lock is held while it is being read, so that
// many workloads that refer to one object read it once.
type lastRead struct {
	mu sync.Mutex
	// cached is the version in which the cache had the object when it was read.
	cached   string
	contents *contents // nil: it was not there
}

func newReader(client kubernetes.Interface, key *keeper) *reader {
	return &reader{client: client, key: key, caches: map[string]cache.SharedIndexInformer{}, reads: map[string]*lastRead{}}
}

// watches tells whether sources of that kind are looked at.
func (r *reader) watches(kind string) bool { return r.caches[kind] != nil }

// version returns the version of a source in the cache, or "" if it is not there.
func (r *reader) version(namespace string, from source) (string, error) {
	found, exists, err := r.caches[from.kind].GetStore().GetByKey(namespace + "/" + from.name)
	if err != nil || !exists {
		return "", err
	}
	object, ok := found.(metav1.Object)
	if !ok {
		return "", fmt.Errorf("the cache of %ss holds a %T", from.kind, found)
	}
	return object.GetResourceVersion(), nil
}

// contents returns the contents of a source that the cache has in that version: of it
// or of a newer one. nil: it is not there.
func (r *reader) contents(ctx context.Context, namespace string, from source, version string) (*contents, error) {
	last := r.last(from.in(namespace))
	last.mu.Lock()
	defer last.mu.Unlock()
	if last.cached == version || last.contents != nil && last.contents.version == version {
		return last.contents, nil
	}
	return r.update(ctx, last, namespace, from, version)
}

// read returns the contents that a source has now, whatever version the cache has. nil:
// it is not there.
func (r *reader) read(ctx context.Context, namespace string, from source, version string) (*contents, error) {
	last := r.last(from.in(namespace))
	last.mu.Lock()
	defer last.mu.Unlock()
	return r.update(ctx, last, namespace, from, version)
}

func (r *reader) update(ctx context.Context, last *lastRead, namespace string, from source, version string) (*contents, error) {
	found, err := r.fetch(ctx, namespace, from)
	if apierrors.IsNotFound(err) {
		found, err = nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", from, err)
	}
	last.cached, last.contents = version, found
	return found, nil
}

func (r *reader) fetch(ctx context.Context, namespace string, from source) (*contents, error) {
	if from.kind == configMap {
		object, err := r.client.CoreV1().ConfigMaps(namespace).Get(ctx, from.name, metav1.GetOptions{})
		if err != nil {
			return nil, err
		}
		return contentsOfConfigMap(object), nil
	}
	key, err := r.key.get(ctx)
	if err != nil {
		return nil, err
	}
	var object *corev1.Secret
	if object, err = r.client.CoreV1().Secrets(namespace).Get(ctx, from.name, metav1.GetOptions{}); err != nil {
		return nil, err
	}
	return contentsOfSecret(object, key), nil
}

func (r *reader) last(name string) *lastRead {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.reads[name] == nil {
		r.reads[name] = &lastRead{}
	}
	return r.reads[name]
}

// forget drops what was read of an object that is gone, or that nobody refers to.
func (r *reader) forget(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.reads, name)
}
