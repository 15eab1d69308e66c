// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package configpropagation

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/kubernetes"
)

// object is a ConfigMap or a Secret.
type object struct {
	metav1.ObjectMeta
	content content
}

// shape is what a content cannot be changed in.
type shape struct {
	immutable  bool
	secretType corev1.SecretType
}

func (o *object) shape() shape { return shape{o.content.immutable, o.content.secretType} }

// intent is a copy as it is to be.
type intent struct {
	namespace, name     string
	labels, annotations map[string]string
	content             *content
	// over is what it is written over; nil: nothing.
	over *metav1.ObjectMeta
}

// kind is what is different between ConfigMaps and Secrets.
type kind struct {
	name, argument string // as in an object, and as in arguments of kubectl
	resource       schema.GroupVersionResource
	bytesField     string // the field that holds content.bytes
	get            func(context.Context, kubernetes.Interface, string, string) (*object, error)
	list           func(context.Context, kubernetes.Interface, metav1.ListOptions) (page []*object, next string, err error)
	apply          func(context.Context, kubernetes.Interface, intent) (*object, error)
}

// kindsOf returns the kinds that the options have copied.
func kindsOf(o *Options) []kind {
	if o.Secrets {
		return []kind{configMap, secret}
	}
	return []kind{configMap}
}

// applyOptions own whatever is applied: the controller is the one who says what is in a
// copy.
var applyOptions = metav1.ApplyOptions{FieldManager: "incumbent-" + Name, Force: true}

// never is older than the version of any object. An apply with this version creates the
// object if there is none, and is a conflict if there is one: an apply without it would
// adopt an object that has just been created by somebody else.
const never = "1"

var configMap = kind{
	name: "ConfigMap", argument: "configmap", resource: corev1.SchemeGroupVersion.WithResource("configmaps"), bytesField: "binaryData",
	get: func(ctx context.Context, client kubernetes.Interface, namespace, name string) (*object, error) {
		found, err := client.CoreV1().ConfigMaps(namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return nil, err
		}
		return ofConfigMap(found), nil
	},
	list: func(ctx context.Context, client kubernetes.Interface, options metav1.ListOptions) (page []*object, next string, err error) {
		list, err := client.CoreV1().ConfigMaps(metav1.NamespaceAll).List(ctx, options)
		if err != nil {
			return nil, "", err
		}
		for i := range list.Items {
			page = append(page, ofConfigMap(&list.Items[i]))
		}
		return page, list.Continue, nil
	},
	apply: func(ctx context.Context, client kubernetes.Interface, i intent) (*object, error) {
		want := applycorev1.ConfigMap(i.name, i.namespace).WithLabels(i.labels).WithAnnotations(i.annotations).WithData(i.content.text).WithBinaryData(i.content.bytes)
		if i.content.immutable {
			want.WithImmutable(true)
		}
		if want.WithResourceVersion(never); i.over != nil {
			want.WithUID(i.over.UID).WithResourceVersion(i.over.ResourceVersion)
		}
		written, err := client.CoreV1().ConfigMaps(i.namespace).Apply(ctx, want, applyOptions)
		if err != nil {
			return nil, err
		}
		return ofConfigMap(written), nil
	},
}

var secret = kind{
	name: "Secret", argument: "secret", resource: corev1.SchemeGroupVersion.WithResource("secrets"), bytesField: "data",
	get: func(ctx context.Context, client kubernetes.Interface, namespace, name string) (*object, error) {
		found, err := client.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return nil, err
		}
		return ofSecret(found), nil
	},
	list: func(ctx context.Context, client kubernetes.Interface, options metav1.ListOptions) (page []*object, next string, err error) {
		list, err := client.CoreV1().Secrets(metav1.NamespaceAll).List(ctx, options)
		if err != nil {
			return nil, "", err
		}
		for i := range list.Items {
			page = append(page, ofSecret(&list.Items[i]))
		}
		return page, list.Continue, nil
	},
	apply: func(ctx context.Context, client kubernetes.Interface, i intent) (*object, error) {
		want := applycorev1.Secret(i.name, i.namespace).WithLabels(i.labels).WithAnnotations(i.annotations).WithData(i.content.bytes).WithType(i.content.secretType)
		if i.content.immutable {
			want.WithImmutable(true)
		}
		if want.WithResourceVersion(never); i.over != nil {
			want.WithUID(i.over.UID).WithResourceVersion(i.over.ResourceVersion)
		}
		written, err := client.CoreV1().Secrets(i.namespace).Apply(ctx, want, applyOptions)
		if err != nil {
			return nil, err
		}
		return ofSecret(written), nil
	},
}

func ofConfigMap(o *corev1.ConfigMap) *object {
	return &object{o.ObjectMeta, content{immutable: o.Immutable != nil && *o.Immutable, text: o.Data, bytes: o.BinaryData}}
}

func ofSecret(o *corev1.Secret) *object {
	return &object{o.ObjectMeta, content{immutable: o.Immutable != nil && *o.Immutable, bytes: o.Data, secretType: o.Type}}
}
