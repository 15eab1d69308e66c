// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package configpropagation

import (
	"fmt"
	"maps"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/tools/cache"
)

// Indexes of the caches of ConfigMaps and Secrets.
const (
	// sourcesByName has every source by its name, and under all.
	sourcesByName = "sources"
	// copies has every copy under its namespace, under from its source, and under all.
	copies = "copies"
)

// all is no name of an object.
const all = "/"

func from(namespace, name string) string { return namespace + "/" + name }

func indexSources(o any) ([]string, error) {
	object, ok := o.(*meta)
	if !ok || !isSource(object) {
		return nil, nil
	}
	return []string{object.Name, all}, nil
}

func indexCopies(o any) ([]string, error) {
	object, ok := o.(*meta)
	if !ok || !isCopy(object) {
		return nil, nil
	}
	return []string{object.Namespace, from(object.Labels[LabelFrom], object.Name), all}, nil
}

// keysOfObject returns what may change with a ConfigMap or Secret.
func (c *controller) keysOfObject(k kind, o *meta) (keys []key) {
	_, asks := o.Annotations[AnnotationTo]
	_, says := o.Annotations[AnnotationStatus]
	itself := id{k.name, o.Namespace, o.Name}
	if asks || says {
		keys = append(keys, key{telling, itself})
	}
	if asks || isCopy(o) || len(c.indexed(k, sourcesByName, o.Name)) > 0 {
		keys = append(keys, key{copying, itself})
	}
	if !isSource(o) {
		return keys
	}
	if selector, err := selectorOf(k, o); err == nil {
		for _, found := range c.namespaces.GetStore().List() {
			if namespace, ok := found.(*meta); ok && selector.Matches(labels.Set(namespace.Labels)) {
				keys = append(keys, key{copying, id{k.name, namespace.Name, o.Name}})
			}
		}
	}
	for _, copied := range c.indexed(k, copies, from(o.Namespace, o.Name)) {
		keys = append(keys, key{copying, id{k.name, copied.Namespace, copied.Name}})
	}
	return keys
}

// keysOfNamespace returns what may change with a namespace.
func (c *controller) keysOfNamespace(namespace *meta) (keys []key) {
	if _, err := refuses(namespace); err != nil {
		keys = append(keys, key{warning, id{kind: namespaceKind, name: namespace.Name}})
	}
	for _, k := range c.kinds {
		for _, source := range c.indexed(k, sourcesByName, all) {
			if selector, err := selectorOf(k, source); err == nil && selector.Matches(labels.Set(namespace.Labels)) {
				keys = append(keys, key{copying, id{k.name, namespace.Name, source.Name}})
			}
		}
		for _, copied := range c.indexed(k, copies, namespace.Name) {
			keys = append(keys, key{copying, id{k.name, namespace.Name, copied.Name}})
		}
	}
	return keys
}

// concerns tells whether a change of a namespace can change anything.
func concerns(before, after *meta) bool {
	return !maps.Equal(before.Labels, after.Labels) || before.Annotations[AnnotationRefuse] != after.Annotations[AnnotationRefuse] ||
		(before.DeletionTimestamp == nil) != (after.DeletionTimestamp == nil) || before.UID != after.UID
}

func (c *controller) indexed(k kind, index, value string) (list []*meta) {
	found, err := c.objects[k.name].GetIndexer().ByIndex(index, value)
	if err != nil {
		return nil // There is no such index, which AddIndexers would have told.
	}
	for _, o := range found {
		if object, ok := o.(*meta); ok {
			list = append(list, object)
		}
	}
	return list
}

// cached returns an object of a cache; nil if it is not there.
func cached(informer cache.SharedIndexInformer, namespace, name string) (*meta, error) {
	found, exists, err := informer.GetStore().GetByKey(cache.NewObjectName(namespace, name).String())
	if err != nil || !exists {
		return nil, err
	}
	object, ok := found.(*meta)
	if !ok {
		return nil, fmt.Errorf("the cache holds a %T, want *PartialObjectMetadata", found)
	}
	return object, nil
}
