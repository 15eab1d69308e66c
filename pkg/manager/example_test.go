// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package manager_test

import (
	"context"
	"os"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"

	"github.com/incumbent-io/incumbent/pkg/controllers"
	"github.com/incumbent-io/incumbent/pkg/manager"
)

// greeter welcomes every namespace with a ConfigMap.
type greeter struct {
	client kubernetes.Interface
	queue  workqueue.TypedInterface[string]
}

// newGreeter builds a greeter. It may run on a standby: the handler sees its first
// object when Run is called.
func newGreeter(_ context.Context, c *controllers.Context, _ controllers.NoOptions) (controllers.Controller, error) {
	g := &greeter{client: c.Clients.Kubernetes(), queue: workqueue.NewTyped[string]()}
	_, err := c.Informers.Typed().Core().V1().Namespaces().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(object any) { g.queue.Add(object.(*corev1.Namespace).Name) },
	})
	return g, err
}

// Run is called only while this replica leads, and its writes pass only then.
func (g *greeter) Run(ctx context.Context) error {
	defer context.AfterFunc(ctx, g.queue.ShutDown)()
	for {
		namespace, stopped := g.queue.Get()
		if stopped {
			return nil
		}
		welcome := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "welcome"}}
		_, err := g.client.CoreV1().ConfigMaps(namespace).Create(ctx, welcome, metav1.CreateOptions{})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			klog.FromContext(ctx).Error(err, "Cannot greet", "namespace", namespace)
		}
		g.queue.Done(namespace)
	}
}

func Example() {
	os.Exit(manager.Main("fleet-manager", controllers.NewRegistry(
		controllers.Descriptor[controllers.NoOptions]{
			Name:    "greeter",
			Summary: "Welcomes every namespace with a ConfigMap.",
			Init:    newGreeter,
		},
	)))
}
