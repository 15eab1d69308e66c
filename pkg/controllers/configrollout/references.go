// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package configrollout

import (
	"cmp"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// The kinds of objects that hold configuration.
const (
	configMap = "configmap"
	secret    = "secret"
)

// whole is the part of a reference to all of an object. It is no valid key.
const whole = "*"

// source names a ConfigMap or Secret in the namespace of whoever refers to it.
type source struct{ kind, name string }

func (s source) String() string { return s.kind + "/" + s.name }

// in is the source's name in the whole cluster.
func (s source) in(namespace string) string { return s.kind + "/" + namespace + "/" + s.name }

// reference is one part of a source that Pods see: a key of it, or the whole.
type reference struct {
	source
	part string
	// optional means that Pods start without it.
	optional bool
}

// referencesOf returns what Pods of the template see of ConfigMaps and Secrets, each
// part once, sorted. A part is optional only if all who refer to it say so.
func referencesOf(pod *corev1.PodSpec) []reference {
	var found references
	for i := range pod.InitContainers {
		found.container(&pod.InitContainers[i])
	}
	for i := range pod.Containers {
		found.container(&pod.Containers[i])
	}
	for i := range pod.Volumes {
		found.volume(&pod.Volumes[i])
	}
	slices.SortFunc(found, func(a, b reference) int {
		return cmp.Or(cmp.Compare(a.kind, b.kind), cmp.Compare(a.name, b.name), cmp.Compare(a.part, b.part))
	})
	var merged []reference
	for _, r := range found {
		if last := len(merged) - 1; last >= 0 && merged[last].source == r.source && merged[last].part == r.part {
			merged[last].optional = merged[last].optional && r.optional
			continue
		}
		merged = append(merged, r)
	}
	return merged
}

type references []reference

func (r *references) add(kind, name, part string, optional *bool) {
	if name == "" {
		return
	}
	*r = append(*r, reference{source{kind, name}, part, optional != nil && *optional})
}

func (r *references) container(c *corev1.Container) {
	for _, from := range c.EnvFrom {
		if ref := from.ConfigMapRef; ref != nil {
			r.add(configMap, ref.Name, whole, ref.Optional)
		}
		if ref := from.SecretRef; ref != nil {
			r.add(secret, ref.Name, whole, ref.Optional)
		}
	}
	for _, env := range c.Env {
		if env.ValueFrom == nil {
			continue
		}
		if ref := env.ValueFrom.ConfigMapKeyRef; ref != nil {
			r.add(configMap, ref.Name, ref.Key, ref.Optional)
		}
		if ref := env.ValueFrom.SecretKeyRef; ref != nil {
			r.add(secret, ref.Name, ref.Key, ref.Optional)
		}
	}
}

func (r *references) volume(v *corev1.Volume) {
	if v.ConfigMap != nil {
		r.items(configMap, v.ConfigMap.Name, v.ConfigMap.Items, v.ConfigMap.Optional)
	}
	if v.Secret != nil {
		r.items(secret, v.Secret.SecretName, v.Secret.Items, v.Secret.Optional)
	}
	if v.Projected == nil {
		return
	}
	for _, from := range v.Projected.Sources {
		if from.ConfigMap != nil {
			r.items(configMap, from.ConfigMap.Name, from.ConfigMap.Items, from.ConfigMap.Optional)
		}
		if from.Secret != nil {
			r.items(secret, from.Secret.Name, from.Secret.Items, from.Secret.Optional)
		}
	}
}

// items adds the keys that a volume shows; without any it shows all.
func (r *references) items(kind, name string, items []corev1.KeyToPath, optional *bool) {
	if len(items) == 0 {
		r.add(kind, name, whole, optional)
	}
	for _, item := range items {
		r.add(kind, name, item.Key, optional)
	}
}

// sourcesOf returns the sources of sorted references, each once.
func sourcesOf(refs []reference) []source {
	var sources []source
	for _, r := range refs {
		sources = append(sources, r.source)
	}
	return slices.Compact(sources)
}
