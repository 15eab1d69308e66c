// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"github.com/incumbent-io/incumbent/pkg/controllers"
)

// trial is a reconciler that does what a ConfigMap says. All of its writes go on when its
// context has ended, as those of a careless author do.
type trial struct {
	client.Client
	fail chan error // ends the manager of controller-runtime
}

func setUpTrial(mgr manager.Manager) error {
	r := &trial{Client: mgr.GetClient(), fail: make(chan error, 1)}
	err := mgr.Add(manager.RunnableFunc(func(ctx context.Context) error {
		select {
		case err := <-r.fail:
			return err
		case <-ctx.Done():
			return nil
		}
	}))
	if err != nil {
		return err
	}
	asked := predicate.NewPredicateFuncs(func(object client.Object) bool { return object.GetLabels()["trial"] != "" })
	return ctrl.NewControllerManagedBy(mgr).For(&corev1.ConfigMap{}, builder.WithPredicates(asked)).Named("trial").Complete(r)
}

// Reconcile implements reconcile.Reconciler.
func (r *trial) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	var object corev1.ConfigMap
	if err := r.Get(ctx, request.NamespacedName, &object); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	do := object.Labels["trial"]
	if object.Annotations["began"] == do && do != "hammer" {
		return ctrl.Result{}, nil
	}
	if err := r.annotate(ctx, &object, "began", do); err != nil {
		return ctrl.Result{}, err
	}
	switch do {
	case "slow": // which a drain must wait for
		time.Sleep(2 * time.Second)
	case "panic":
		panic("the trial asks for it")
	case "fail":
		r.fail <- errors.New("the trial asks for it")
	case "hammer":
		r.hammer(ctx, &object)
	}
	return ctrl.Result{}, r.annotate(ctx, &object, "ended", do)
}

func (r *trial) annotate(ctx context.Context, object *corev1.ConfigMap, key, value string) error {
	patch := fmt.Appendf(nil, `{"metadata":{"annotations":{%q:%q}}}`, key, value)
	return r.Patch(context.WithoutCancel(ctx), object.DeepCopy(), client.RawPatch(types.MergePatchType, patch))
}

// hammer writes until the object is gone, or a hundred writes were refused.
func (r *trial) hammer(ctx context.Context, object *corev1.ConfigMap) {
	refused := 0
	for n := 0; refused < 100; n++ {
		switch err := r.annotate(ctx, object, "n", fmt.Sprint(n)); {
		case controllers.IsNotLeader(err):
			if refused++; refused == 100 {
				log.FromContext(ctx).Info("A hundred writes were refused", "because", err.Error())
			}
		case apierrors.IsNotFound(err):
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}
