// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

// Command clientgo labels every ConfigMap, on client-go alone.
package main

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	listers "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
)

const label, value = "example.com/seen", "true"

type labeler struct {
	client kubernetes.Interface
	lister listers.ConfigMapLister
	queue  workqueue.TypedRateLimitingInterface[cache.ObjectName]
}

// run works until ctx ends. It is called while this replica leads.
func (l *labeler) run(ctx context.Context) {
	factory := informers.NewSharedInformerFactory(l.client, 0)
	configMaps := factory.Core().V1().ConfigMaps()
	l.lister = configMaps.Lister()
	_, err := configMaps.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    l.enqueue,
		UpdateFunc: func(_, object any) { l.enqueue(object) },
	})
	if err != nil {
		klog.Fatal(err)
	}
	factory.Start(ctx.Done())
	defer factory.Shutdown()
	factory.WaitForCacheSync(ctx.Done())
	var worker sync.WaitGroup
	worker.Go(func() {
		for l.next(ctx) {
		}
	})
	<-ctx.Done()
	l.queue.ShutDown()
	worker.Wait()
}

func (l *labeler) enqueue(object any) {
	l.queue.Add(cache.MetaObjectToName(object.(metav1.Object)))
}

func (l *labeler) next(ctx context.Context) bool {
	key, shutdown := l.queue.Get()
	if shutdown {
		return false
	}
	defer l.queue.Done(key)
	if err := l.reconcile(ctx, key); err != nil {
		klog.ErrorS(err, "Reconcile failed", "configMap", key)
		l.queue.AddRateLimited(key)
		return true
	}
	l.queue.Forget(key)
	return true
}

func (l *labeler) reconcile(ctx context.Context, key cache.ObjectName) error {
	configMap, err := l.lister.ConfigMaps(key.Namespace).Get(key.Name)
	if apierrors.IsNotFound(err) {
		return nil // deleted
	}
	if err != nil || configMap.Labels[label] == value {
		return err
	}
	patch := []byte(`{"metadata":{"labels":{"` + label + `":"` + value + `"}}}`)
	configMaps := l.client.CoreV1().ConfigMaps(key.Namespace)
	_, err = configMaps.Patch(ctx, key.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	return err
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	config, err := rest.InClusterConfig()
	if err != nil {
		klog.Fatal(err)
	}
	client := kubernetes.NewForConfigOrDie(config)
	l := &labeler{
		client: client,
		queue:  workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[cache.ObjectName]()),
	}
	leaderelection.RunOrDie(ctx, leaderelection.LeaderElectionConfig{
		Lock: &resourcelock.LeaseLock{
			LeaseMeta:  metav1.ObjectMeta{Namespace: os.Getenv("POD_NAMESPACE"), Name: "labeler"},
			Client:     client.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: os.Getenv("POD_NAME")},
		},
		LeaseDuration:   15 * time.Second,
		RenewDeadline:   10 * time.Second,
		RetryPeriod:     2 * time.Second,
		ReleaseOnCancel: true,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: l.run,
			OnStoppedLeading: func() { klog.Info("Stopped leading") },
		},
	})
}
