// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package clients

import (
	"context"
	"reflect"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic/dynamiclister"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/metadata/metadatalister"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// Metadata returns the informer for the metadata of any resource; its objects
// are *metav1.PartialObjectMetadata. Choose it when only names, labels,
// annotations or owners matter: it takes a fraction of the memory.
func (i *Informers) Metadata(gvr schema.GroupVersionResource) informers.GenericInformer {
	key := cacheKey{form: formMetadata, gvr: gvr, scope: i.scope}
	example := &metav1.PartialObjectMetadata{}
	informer := i.view.informer(key, example, func(c *resourceCache) (cache.SharedIndexInformer, error) {
		client, err := c.pool.clients.metadata()
		if err != nil {
			return nil, err
		}
		resource := client.Resource(gvr).Namespace(i.scope.Namespace)
		return newGeneric(c, example, client, listWatch{
			list: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
				return resource.List(ctx, options)
			},
			watch: resource.Watch,
		}), nil
	})
	return generic{informer, metadatalister.NewRuntimeObjectShim(metadatalister.New(informer.GetIndexer(), gvr))}
}

// Dynamic returns the informer for any resource; its objects are
// *unstructured.Unstructured. It takes more memory than any other form.
func (i *Informers) Dynamic(gvr schema.GroupVersionResource) informers.GenericInformer {
	key := cacheKey{form: formDynamic, gvr: gvr, scope: i.scope}
	example := &unstructured.Unstructured{}
	informer := i.view.informer(key, example, func(c *resourceCache) (cache.SharedIndexInformer, error) {
		client, err := c.pool.clients.dynamic()
		if err != nil {
			return nil, err
		}
		resource := client.Resource(gvr).Namespace(i.scope.Namespace)
		return newGeneric(c, example, client, listWatch{
			list: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
				return resource.List(ctx, options)
			},
			watch: resource.Watch,
		}), nil
	})
	return generic{informer, dynamiclister.NewRuntimeObjectShim(dynamiclister.New(informer.GetIndexer(), gvr))}
}

// Build is what the builder of a generated informer makes it of.
type Build struct {
	// Config reaches the API server over the pool's connection, in JSON, to read
	// only. With Fakes it is nil, and the builder uses a fake clientset.
	Config *rest.Config
	// Namespace and Tweak are the scope.
	Namespace string
	Tweak     func(*metav1.ListOptions)
	// Indexers are what the generated listers need.
	Indexers cache.Indexers
	// Name gives the informer its metrics, for generators that know it.
	Name *cache.InformerName
}

// For returns the informer that build makes, for objects with the Go type of
// example: custom resources with generated clients, as in
//
//	view.For(gvr, &v1.Widget{}, func(b clients.Build) cache.SharedIndexInformer {
//		client := versioned.NewForConfigOrDie(b.Config)
//		return widgets.NewFilteredWidgetInformer(client, b.Namespace, 0, b.Indexers, b.Tweak)
//	})
//
// The builder is called only for the first controller that asks, so it must
// depend on b alone. If it panics or returns nil, WaitForSync says so. An
// informer that does not use b.Config is beyond what Pool.Contact knows.
func (i *Informers) For(gvr schema.GroupVersionResource, example runtime.Object, build func(Build) cache.SharedIndexInformer) cache.SharedIndexInformer {
	key := cacheKey{form: formCustom, gvr: gvr, goType: reflect.TypeOf(example), scope: i.scope}
	return i.view.informer(key, example, func(c *resourceCache) (cache.SharedIndexInformer, error) {
		return build(Build{
			Config:    c.pool.clients.configFor(c),
			Namespace: i.scope.Namespace,
			Tweak:     i.scope.tweak(),
			Indexers:  cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc},
			Name:      c.name,
		}), nil
	})
}

// configFor has the pool's transport in it, credentials included, so that
// every client made of it shares the connection. It returns nil with Fakes.
func (p *poolClients) configFor(c *resourceCache) *rest.Config {
	if p.config == nil {
		return nil
	}
	return &rest.Config{
		Host:                      c.pool.link.host,
		Transport:                 &patient{pool: c.pool, next: c.pool.link.transport, cache: c},
		UserAgent:                 p.config.UserAgent,
		ContentConfig:             inJSON(p.config).ContentConfig,
		QPS:                       p.config.QPS,
		Burst:                     p.config.Burst,
		RateLimiter:               p.config.RateLimiter,
		WarningHandler:            p.config.WarningHandler,
		WarningHandlerWithContext: p.config.WarningHandlerWithContext,
	}
}

// generic is an informer and the lister that fits its objects.
type generic struct {
	informer *informer
	lister   cache.GenericLister
}

// Informer implements informers.GenericInformer.
func (g generic) Informer() cache.SharedIndexInformer { return g.informer }

// Lister implements informers.GenericInformer.
func (g generic) Lister() cache.GenericLister { return g.lister }

type listWatch struct {
	list  func(context.Context, metav1.ListOptions) (runtime.Object, error)
	watch func(context.Context, metav1.ListOptions) (watch.Interface, error)
}

// newGeneric makes the informer of a form that is the same for all resources.
// client tells whether it can stream lists; fakes cannot.
func newGeneric(c *resourceCache, example runtime.Object, client any, lw listWatch) cache.SharedIndexInformer {
	tweak := c.key.scope.tweak()
	return cache.NewSharedIndexInformerWithOptions(
		cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
			ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
				tweak(&options)
				return lw.list(ctx, options)
			},
			WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
				tweak(&options)
				return lw.watch(ctx, options)
			},
		}, client),
		example,
		cache.SharedIndexInformerOptions{
			Indexers:          cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc},
			ObjectDescription: c.key.String(),
			Identifier:        c.name.WithResource(c.key.gvr),
		},
	)
}
