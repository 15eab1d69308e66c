// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package leaderelection_test

import (
	"context"
	"log"
	"os/signal"
	"syscall"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	clientgo "k8s.io/client-go/tools/leaderelection"

	"github.com/incumbent-io/incumbent/pkg/leaderelection"
)

// A program that writes only while it provably leads.
func Example() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	cfg, err := rest.InClusterConfig()
	if err != nil {
		log.Fatal(err)
	}
	identity, err := leaderelection.OpenIdentity(leaderelection.IdentityConfig{Dir: "/var/run/identity"})
	if err != nil {
		log.Fatal(err)
	}
	var elector *leaderelection.Elector
	lead := func(ctx context.Context) {
		fence := elector.NewFence()
		defer fence.Shut()
		guarded := rest.CopyConfig(cfg)
		guarded.WrapTransport = fence.WrapTransport
		client := kubernetes.NewForConfigOrDie(guarded)
		if err := fence.Open(ctx); err != nil {
			return
		}
		// Outside this term, this write fails with ErrNotLeader.
		_, err := client.CoreV1().ConfigMaps("default").Create(ctx, &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: "example"},
		}, metav1.CreateOptions{})
		log.Println(leaderelection.TermFrom(ctx).Epoch(), err)
		<-ctx.Done() // asked to stop, or the lease was lost
	}
	elector, err = leaderelection.New(leaderelection.Config{
		Namespace: "default", LeaseName: "example", Identity: identity, REST: cfg,
		Callbacks: clientgo.LeaderCallbacks{OnStartedLeading: lead},
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := elector.Run(ctx); err != nil {
		log.Fatal(err)
	}
}
