// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package clients

import (
	"context"
	"fmt"
	"reflect"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/informers/admissionregistration"
	"k8s.io/client-go/informers/apiserverinternal"
	"k8s.io/client-go/informers/apps"
	"k8s.io/client-go/informers/autoscaling"
	"k8s.io/client-go/informers/batch"
	"k8s.io/client-go/informers/certificates"
	"k8s.io/client-go/informers/coordination"
	"k8s.io/client-go/informers/core"
	"k8s.io/client-go/informers/discovery"
	"k8s.io/client-go/informers/events"
	"k8s.io/client-go/informers/extensions"
	"k8s.io/client-go/informers/flowcontrol"
	"k8s.io/client-go/informers/internalinterfaces"
	"k8s.io/client-go/informers/lifecycle"
	"k8s.io/client-go/informers/networking"
	"k8s.io/client-go/informers/node"
	"k8s.io/client-go/informers/policy"
	"k8s.io/client-go/informers/rbac"
	"k8s.io/client-go/informers/resource"
	"k8s.io/client-go/informers/scheduling"
	"k8s.io/client-go/informers/storage"
	"k8s.io/client-go/informers/storagemigration"
	"k8s.io/client-go/tools/cache"
)

// typed is a view in the shape of client-go's factory. It embeds none: the
// groups of an embedded factory would call that factory's InformerFor, past
// this one. So a group that client-go adds is a compile error here, not a leak.
type typed struct {
	informers *Informers

	// building serialises the builders, because they ask for the name of the
	// cache that is being built, and cannot say which one that is.
	building sync.Mutex
	nameLock sync.Mutex
	name     *cache.InformerName
}

var _ informers.SharedInformerFactory = (*typed)(nil)

// InformerFor returns the view's informer for the Go type of example.
func (t *typed) InformerFor(example runtime.Object, build internalinterfaces.NewInformerFunc) cache.SharedIndexInformer {
	key := cacheKey{form: formTyped, goType: reflect.TypeOf(example), scope: t.informers.scope}
	return t.informers.view.informer(key, example, func(c *resourceCache) (cache.SharedIndexInformer, error) {
		client, err := c.pool.clients.kubernetes()
		if err != nil {
			return nil, err
		}
		t.building.Lock()
		defer t.building.Unlock()
		t.setName(c.name)
		defer t.setName(nil)
		return build(client, 0), nil
	})
}

// InformerName is the name of the cache that is being built, otherwise nil.
func (t *typed) InformerName() *cache.InformerName {
	t.nameLock.Lock()
	defer t.nameLock.Unlock()
	return t.name
}

func (t *typed) setName(name *cache.InformerName) {
	t.nameLock.Lock()
	defer t.nameLock.Unlock()
	t.name = name
}

// ForResource cannot be served: client-go finds the Go type of a resource
// inside a factory only.
func (t *typed) ForResource(gvr schema.GroupVersionResource) (informers.GenericInformer, error) {
	return nil, fmt.Errorf("clients: no typed informer by resource for %s: use Informers.Metadata or Informers.Dynamic, or name the type as in Typed().Core().V1().Pods()", gvr)
}

// Start does nothing: the pool starts a cache when a view asks for it.
func (t *typed) Start(<-chan struct{}) {}

// StartWithContext does nothing: the pool starts a cache when a view asks for it.
func (t *typed) StartWithContext(context.Context) {}

// Shutdown does nothing: the caches end when the last view releases them.
func (t *typed) Shutdown() {}

// WaitForCacheSync waits for the typed caches of the view.
func (t *typed) WaitForCacheSync(stop <-chan struct{}) map[reflect.Type]bool {
	return t.WaitForCacheSyncWithContext(wait.ContextForChannel(stop)).Synced
}

// WaitForCacheSyncWithContext waits for the typed caches of the view.
func (t *typed) WaitForCacheSyncWithContext(ctx context.Context) cache.SyncResult {
	result := cache.SyncResult{Synced: map[reflect.Type]bool{}}
	for _, c := range t.informers.view.caches() {
		if c.key.form != formTyped || c.key.scope != t.informers.scope {
			continue
		}
		select {
		case <-c.informer.HasSyncedChecker().Done():
		case <-ctx.Done():
		}
		result.Synced[c.key.goType] = c.informer.HasSynced()
		if !c.informer.HasSynced() {
			result.Err = context.Cause(ctx)
		}
	}
	return result
}

func (t *typed) namespace() string { return t.informers.scope.Namespace }

func (t *typed) tweak() internalinterfaces.TweakListOptionsFunc {
	return internalinterfaces.TweakListOptionsFunc(t.informers.scope.tweak())
}

func (t *typed) Admissionregistration() admissionregistration.Interface {
	return admissionregistration.New(t, t.namespace(), t.tweak())
}

func (t *typed) Internal() apiserverinternal.Interface {
	return apiserverinternal.New(t, t.namespace(), t.tweak())
}

func (t *typed) Apps() apps.Interface { return apps.New(t, t.namespace(), t.tweak()) }

func (t *typed) Autoscaling() autoscaling.Interface {
	return autoscaling.New(t, t.namespace(), t.tweak())
}

func (t *typed) Batch() batch.Interface { return batch.New(t, t.namespace(), t.tweak()) }

func (t *typed) Certificates() certificates.Interface {
	return certificates.New(t, t.namespace(), t.tweak())
}

func (t *typed) Coordination() coordination.Interface {
	return coordination.New(t, t.namespace(), t.tweak())
}

func (t *typed) Core() core.Interface { return core.New(t, t.namespace(), t.tweak()) }

func (t *typed) Discovery() discovery.Interface { return discovery.New(t, t.namespace(), t.tweak()) }

func (t *typed) Events() events.Interface { return events.New(t, t.namespace(), t.tweak()) }

func (t *typed) Extensions() extensions.Interface {
	return extensions.New(t, t.namespace(), t.tweak())
}

func (t *typed) Flowcontrol() flowcontrol.Interface {
	return flowcontrol.New(t, t.namespace(), t.tweak())
}

func (t *typed) Lifecycle() lifecycle.Interface { return lifecycle.New(t, t.namespace(), t.tweak()) }

func (t *typed) Networking() networking.Interface {
	return networking.New(t, t.namespace(), t.tweak())
}

func (t *typed) Node() node.Interface { return node.New(t, t.namespace(), t.tweak()) }

func (t *typed) Policy() policy.Interface { return policy.New(t, t.namespace(), t.tweak()) }

func (t *typed) Rbac() rbac.Interface { return rbac.New(t, t.namespace(), t.tweak()) }

func (t *typed) Resource() resource.Interface { return resource.New(t, t.namespace(), t.tweak()) }

func (t *typed) Scheduling() scheduling.Interface {
	return scheduling.New(t, t.namespace(), t.tweak())
}

func (t *typed) Storage() storage.Interface { return storage.New(t, t.namespace(), t.tweak()) }

func (t *typed) Storagemigration() storagemigration.Interface {
	return storagemigration.New(t, t.namespace(), t.tweak())
}

// tweak puts the selectors of a scope into the options of a list or watch.
func (s Scope) tweak() func(*metav1.ListOptions) {
	return func(options *metav1.ListOptions) {
		options.LabelSelector = s.LabelSelector
		options.FieldSelector = s.FieldSelector
	}
}
