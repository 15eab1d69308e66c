// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package objectttl

import (
	"context"
	"fmt"
	"sync"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
)

// kinds finds the kind of a resource, which an Event must name: an object of a
// metadata-only informer does not tell its kind. It asks the API server once per
// resource, and only when an Event is due. It is safe for concurrent use.
type kinds struct {
	server func() discovery.DiscoveryInterfaces

	mu    sync.Mutex
	known map[schema.GroupVersionResource]string
}

func (k *kinds) of(ctx context.Context, gvr schema.GroupVersionResource) (string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if kind, ok := k.known[gvr]; ok {
		return kind, nil
	}
	list, err := k.server().ServerResourcesForGroupVersionWithContext(ctx, gvr.GroupVersion().String())
	if err != nil {
		return "", fmt.Errorf("looking up the kind of %s: %w", written(gvr), err)
	}
	for _, resource := range list.APIResources {
		if resource.Name == gvr.Resource {
			k.known[gvr] = resource.Kind
			return resource.Kind, nil
		}
	}
	return "", fmt.Errorf("looking up the kind of %s: the API server does not serve it", written(gvr))
}
