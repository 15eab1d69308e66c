// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

//go:build linux

package node

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

// podFacts are what the downward API can tell beyond the Pod's own object.
type podFacts struct {
	podIP, hostIP string
}

// fieldValue returns the value of a field of the downward API.
func fieldValue(pod *corev1.Pod, facts podFacts, path string) (string, error) {
	if field, key, ok := subscript(path); ok {
		switch field {
		case "metadata.labels":
			return pod.Labels[key], nil
		case "metadata.annotations":
			return pod.Annotations[key], nil
		}
		return "", fmt.Errorf("unsupported field %q", path)
	}
	switch path {
	case "metadata.name":
		return pod.Name, nil
	case "metadata.namespace":
		return pod.Namespace, nil
	case "metadata.uid":
		return string(pod.UID), nil
	case "metadata.labels":
		return formatMap(pod.Labels), nil
	case "metadata.annotations":
		return formatMap(pod.Annotations), nil
	case "spec.nodeName":
		return pod.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return pod.Spec.ServiceAccountName, nil
	case "status.podIP", "status.podIPs":
		return facts.podIP, nil
	case "status.hostIP", "status.hostIPs":
		return facts.hostIP, nil
	}
	return "", fmt.Errorf("unsupported field %q", path)
}

// subscript splits metadata.labels['key'].
func subscript(path string) (field, key string, ok bool) {
	field, rest, ok := strings.Cut(path, "['")
	if !ok || !strings.HasSuffix(rest, "']") {
		return "", "", false
	}
	return field, strings.TrimSuffix(rest, "']"), true
}

// formatMap writes labels as the downward API does: a line key="value" each, sorted.
func formatMap(m map[string]string) string {
	lines := make([]string, 0, len(m))
	for _, key := range slices.Sorted(maps.Keys(m)) {
		lines = append(lines, fmt.Sprintf("%s=%q", key, m[key]))
	}
	return strings.Join(lines, "\n")
}

// resourceValue returns a container's request or limit; a process node has no limits of its own to fall back to.
func resourceValue(pod *corev1.Pod, container string, selector *corev1.ResourceFieldSelector) (string, error) {
	if selector.ContainerName != "" {
		container = selector.ContainerName
	}
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		if c.Name != container {
			continue
		}
		kind, name, _ := strings.Cut(selector.Resource, ".")
		list := c.Resources.Limits
		if kind == "requests" {
			list = c.Resources.Requests
		}
		quantity := list[corev1.ResourceName(name)]
		divisor := selector.Divisor
		if divisor.IsZero() {
			return fmt.Sprint(quantity.Value()), nil
		}
		// Rounded up, in thousandths to let the divisor be one.
		return fmt.Sprint((quantity.MilliValue() + divisor.MilliValue() - 1) / divisor.MilliValue()), nil
	}
	return "", fmt.Errorf("no container %q", container)
}

// expand replaces $(NAME) by its value. A name without a value stays as it is, and $$ stands for one $.
func expand(text string, value func(name string) (string, bool)) string {
	var b strings.Builder
	for {
		dollar := strings.IndexByte(text, '$')
		if dollar < 0 || dollar == len(text)-1 {
			b.WriteString(text)
			return b.String()
		}
		b.WriteString(text[:dollar])
		text = text[dollar:]
		switch text[1] {
		case '$':
			b.WriteByte('$')
			text = text[2:]
		case '(':
			end := strings.IndexByte(text, ')')
			if end < 0 {
				b.WriteString(text[:2])
				text = text[2:]
				continue
			}
			if v, ok := value(text[2:end]); ok {
				b.WriteString(v)
			} else {
				b.WriteString(text[:end+1])
			}
			text = text[end+1:]
		default:
			b.WriteByte('$')
			text = text[1:]
		}
	}
}

// environment is an ordered list of variables; a later one replaces an earlier one of the same name.
type environment struct {
	names  []string
	values map[string]string
}

func (e *environment) set(name, value string) {
	if e.values == nil {
		e.values = map[string]string{}
	}
	if _, ok := e.values[name]; !ok {
		e.names = append(e.names, name)
	}
	e.values[name] = value
}

func (e *environment) get(name string) (string, bool) {
	v, ok := e.values[name]
	return v, ok
}

func (e *environment) list() []string {
	list := make([]string, len(e.names))
	for i, name := range e.names {
		list[i] = name + "=" + e.values[name]
	}
	return list
}

// objectReader returns the data of a ConfigMap or a Secret, and whether there is one.
type objectReader func(ctx context.Context, kind objectKind, namespace, name string) (map[string][]byte, bool, error)

// readObject is an objectReader that reads from the API server itself, as a start of a container is rare and must not see old values.
func (n *Nodes) readObject(ctx context.Context, kind objectKind, namespace, name string) (data map[string][]byte, found bool, err error) {
	switch kind {
	case kindConfigMap:
		var object *corev1.ConfigMap
		if object, err = n.config.Client.CoreV1().ConfigMaps(namespace).Get(ctx, name, metav1.GetOptions{}); err == nil {
			return configMapData(object), true, nil
		}
	default:
		var object *corev1.Secret
		if object, err = n.config.Client.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{}); err == nil {
			return object.Data, true, nil
		}
	}
	if apierrors.IsNotFound(err) {
		return nil, false, nil
	}
	return nil, false, err
}

// containerEnvironment computes the variables of a container. base are those that the node provides; all but
// the Pod's own may be replaced.
func containerEnvironment(ctx context.Context, pod *corev1.Pod, c *corev1.Container, facts podFacts, base map[string]string, read objectReader) (*environment, error) {
	env := &environment{}
	for _, name := range slices.Sorted(maps.Keys(base)) {
		env.set(name, base[name])
	}
	object := func(kind objectKind, name string, optional *bool) (map[string][]byte, error) {
		data, found, err := read(ctx, kind, pod.Namespace, name)
		if err == nil && !found && (optional == nil || !*optional) {
			err = fmt.Errorf("%s %q not found", strings.ToLower(string(kind)), name)
		}
		return data, err
	}
	for _, from := range c.EnvFrom {
		var data map[string][]byte
		var err error
		switch {
		case from.ConfigMapRef != nil:
			data, err = object(kindConfigMap, from.ConfigMapRef.Name, from.ConfigMapRef.Optional)
		case from.SecretRef != nil:
			data, err = object(kindSecret, from.SecretRef.Name, from.SecretRef.Optional)
		}
		if err != nil {
			return nil, err
		}
		for _, key := range slices.Sorted(maps.Keys(data)) {
			if name := from.Prefix + key; len(validation.IsRelaxedEnvVarName(name)) == 0 {
				env.set(name, string(data[key]))
			}
		}
	}
	for _, v := range c.Env {
		if v.ValueFrom == nil {
			env.set(v.Name, expand(v.Value, env.get))
			continue
		}
		value, ok, err := valueFrom(pod, c, facts, v.ValueFrom, object)
		if err != nil {
			return nil, fmt.Errorf("variable %s: %w", v.Name, err)
		}
		if ok {
			env.set(v.Name, value)
		}
	}
	return env, nil
}

// valueFrom reports false for an optional key that does not exist.
func valueFrom(pod *corev1.Pod, c *corev1.Container, facts podFacts, source *corev1.EnvVarSource,
	object func(objectKind, string, *bool) (map[string][]byte, error)) (string, bool, error) {
	var kind objectKind
	var name, key string
	var optional *bool
	switch {
	case source.FieldRef != nil:
		value, err := fieldValue(pod, facts, source.FieldRef.FieldPath)
		return value, true, err
	case source.ResourceFieldRef != nil:
		value, err := resourceValue(pod, c.Name, source.ResourceFieldRef)
		return value, true, err
	case source.ConfigMapKeyRef != nil:
		kind, name, key, optional = kindConfigMap, source.ConfigMapKeyRef.Name, source.ConfigMapKeyRef.Key, source.ConfigMapKeyRef.Optional
	case source.SecretKeyRef != nil:
		kind, name, key, optional = kindSecret, source.SecretKeyRef.Name, source.SecretKeyRef.Key, source.SecretKeyRef.Optional
	default:
		return "", false, fmt.Errorf("this source of a value is not supported by a process node")
	}
	data, err := object(kind, name, optional)
	if err != nil {
		return "", false, err
	}
	value, ok := data[key]
	if !ok && (optional == nil || !*optional) {
		return "", false, fmt.Errorf("couldn't find key %s in %s %s/%s", key, kind, pod.Namespace, name)
	}
	return string(value), ok, nil
}
