// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package clients

import (
	"cmp"
	"slices"
	"strings"
)

// CacheStatus is what is known of one cache of a Pool.
type CacheStatus struct {
	// Resource is RESOURCE.GROUP/VERSION, such as configmaps/v1, or the Go type of a
	// typed cache, such as v1.ConfigMap. Form is typed, metadata, dynamic or custom.
	Resource, Form string
	// Scope names what the cache is narrowed to, empty for everything.
	Scope string
	// Objects is how many objects it holds, and Users how many runs of controllers.
	Objects, Users int
	// Synced says that it has listed everything once; Watching, that its watch is open
	// now. Without a watch it grows out of date.
	Synced, Watching bool
}

// Snapshot returns what is known of every cache, in the order of their names.
func (p *Pool) Snapshot() []CacheStatus {
	p.mu.Lock()
	type entry struct {
		cache *resourceCache
		users int
	}
	var caches []entry
	for _, c := range p.caches {
		if c.ready {
			caches = append(caches, entry{c, c.refs})
		}
	}
	p.mu.Unlock()
	list := make([]CacheStatus, 0, len(caches))
	for _, e := range caches {
		c := e.cache
		c.mu.Lock()
		watching := c.phase == streaming
		c.mu.Unlock()
		list = append(list, CacheStatus{
			Resource: c.key.resource(), Form: string(c.key.form), Scope: c.key.scope.String(), Users: e.users,
			Objects: len(c.informer.GetStore().ListKeys()), Synced: c.informer.HasSynced(), Watching: watching,
		})
	}
	slices.SortFunc(list, func(a, b CacheStatus) int {
		return cmp.Or(strings.Compare(a.Resource, b.Resource), strings.Compare(a.Form, b.Form), strings.Compare(a.Scope, b.Scope))
	})
	return list
}
