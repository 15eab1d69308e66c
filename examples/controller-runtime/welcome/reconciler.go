// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

// Package welcome is a controller as it was written for controller-runtime: a ConfigMap
// with a text in every namespace that asks for one. Nothing here knows of Incumbent.
package welcome

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/log"
)

// Annotation of a namespace holds the text of its welcome.
const Annotation = "example.com/welcome"

// Reconciler keeps the ConfigMap called welcome.
type Reconciler struct {
	client.Client
}

// Reconcile implements reconcile.Reconciler.
func (r *Reconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	var namespace corev1.Namespace
	if err := r.Get(ctx, request.NamespacedName, &namespace); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	text, asked := namespace.Annotations[Annotation]
	if !asked || !namespace.DeletionTimestamp.IsZero() {
		return ctrl.Result{}, nil
	}
	welcome := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace.Name, Name: "welcome"}}
	result, err := controllerutil.CreateOrUpdate(ctx, r.Client, welcome, func() error {
		welcome.Data = map[string]string{"text": text}
		return controllerutil.SetControllerReference(&namespace, welcome, r.Scheme())
	})
	if result != controllerutil.OperationResultNone {
		log.FromContext(ctx).Info("Welcomed", "result", result)
	}
	return ctrl.Result{}, err
}

// SetupWithManager has the reconciler called for namespaces, and for their welcomes.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).
		For(&corev1.Namespace{}).
		Owns(&corev1.ConfigMap{}).
		Named("welcome").
		Complete(r)
}
