// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package clients_test

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/cache"

	"github.com/incumbent-io/incumbent/pkg/clients"
)

// A host does this for each of its controllers; a controller sees only the view.
func Example() {
	ctx, cancel := context.WithCancel(context.Background())
	fakes := &clients.Fakes{Kubernetes: fake.NewClientset(
		&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "greeting"}},
	)}
	pool, err := clients.NewPool(clients.PoolConfig{Fakes: fakes, Name: "example"})
	if err != nil {
		panic(err)
	}
	stopped := make(chan error)
	go func() { stopped <- pool.Run(ctx) }()

	// Init: the controller asks for informers and adds its handlers.
	view := pool.View("greeter", nil)
	added := make(chan string)
	configMaps := view.In(clients.Scope{Namespace: "default"}).Typed().Core().V1().ConfigMaps()
	_, err = configMaps.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(obj any) { added <- obj.(*corev1.ConfigMap).Name },
	})
	if err != nil {
		panic(err)
	}

	// The replica waits, warm, until it leads.
	if err := view.WaitForSync(ctx); err != nil {
		panic(err)
	}
	if err := pool.Contact(ctx); err != nil {
		panic(err)
	}

	// Run starts, and has returned.
	if err := view.Attach(); err != nil {
		panic(err)
	}
	fmt.Println("added:", <-added)
	if err := view.Detach(ctx); err != nil {
		panic(err)
	}
	view.Release()

	cancel()
	fmt.Println("stopped:", <-stopped)
	// Output:
	// added: greeting
	// stopped: <nil>
}
