// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

// Command stock is client-go's LeaderElector as a candidate of the fault campaign:
// the negative control, and the partner in mixed fleets. It does in OnStartedLeading
// what the writer of command ours does in Run, and ends with its leadership, as
// programs with client-go do.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/pflag"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"

	"github.com/incumbent-io/incumbent/test/faults/candidate"
	"github.com/incumbent-io/incumbent/test/faults/mono"
)

func main() {
	candidate.Note(candidate.Record{What: candidate.Began, At: mono.Began})
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		os.Exit(1)
	}
}

func run() error {
	lease := pflag.String("lease", "", "Name of the Lease.")
	timeout := pflag.Duration("timeout", 0, "Client timeout of requests on the Lease; 0 is none.")
	release := pflag.Bool("release", false, "Release the Lease when told to stop.")
	every := pflag.Duration("every", 0, "Pause between two writes; 0 writes nothing.")
	drain := pflag.Duration("drain", 0, "How long to go on after being told to stop.")
	pflag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	config, err := rest.InClusterConfig()
	if err != nil {
		return err
	}
	config.QPS = -1
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	config = rest.CopyConfig(config)
	config.Timeout = *timeout
	leases, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	namespace := os.Getenv("POD_NAMESPACE")
	// Pod and uid come first, so that the fencing component knows the holder.
	me := fmt.Sprintf("%s_%s_%s", os.Getenv("POD_NAME"), os.Getenv("POD_UID"), uuid.NewUUID())
	lock := &resourcelock.LeaseLock{
		LeaseMeta:  metav1.ObjectMeta{Namespace: namespace, Name: *lease},
		Client:     leases.CoordinationV1(),
		LockConfig: resourcelock.ResourceLockConfig{Identity: me},
	}
	work := candidate.Work{
		Client: client, Namespace: namespace, Identity: me, Every: *every, Drain: *drain,
		Permitted: func() error { return nil }, // as long as it works, nothing keeps it from writing
		IsRefusal: func(error) bool { return false },
	}
	var leading sync.WaitGroup
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: lock, LeaseDuration: 15 * time.Second, RenewDeadline: 10 * time.Second, RetryPeriod: 2 * time.Second,
		ReleaseOnCancel: *release, Name: *lease,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(ctx context.Context) {
				leading.Add(1)
				defer leading.Done()
				epoch := epochOf(ctx, client, lock)
				work.Epoch = func() int64 { return epoch }
				work.Run(ctx)
			},
			OnStoppedLeading: func() {},
			OnNewLeader: func(holder string) {
				if holder != me {
					candidate.Note(candidate.Record{What: candidate.Standing, Who: me, Note: holder})
				}
			},
		},
	})
	if err != nil {
		return err
	}
	candidate.Note(candidate.Record{What: candidate.Built, Who: me})
	elector.Run(ctx)
	leading.Wait()
	return nil
}

// epochOf returns the epoch of the present holder as Incumbent counts it, 0 if the
// Lease cannot be read.
func epochOf(ctx context.Context, client kubernetes.Interface, lock *resourcelock.LeaseLock) int64 {
	lease, err := client.CoordinationV1().Leases(lock.LeaseMeta.Namespace).Get(ctx, lock.LeaseMeta.Name, metav1.GetOptions{})
	if err != nil || lease.Spec.LeaseTransitions == nil {
		return 0
	}
	return lease.CreationTimestamp.Unix()<<20 | int64(*lease.Spec.LeaseTransitions)
}
