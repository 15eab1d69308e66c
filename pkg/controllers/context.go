// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package controllers

import (
	"go.opentelemetry.io/otel/trace"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"

	"github.com/incumbent-io/incumbent/pkg/clients"
)

// Context is what a controller is given when it is built. It is valid for one run:
// everything in it ends when Run has returned, or when the build is discarded.
type Context struct {
	// Name is the controller's name.
	Name string
	// Instance tells who this process is.
	Instance Instance
	// Clients are this run's clients. Writes are refused until Run is called, and
	// for ever once it has returned or the term is over. Reads always pass.
	Clients *clients.Set
	// Informers is this run's view of the caches that all controllers of the
	// process share. Ask for informers and add handlers in Init: they are filled
	// before Run, and the handlers see the first object when Run is called.
	Informers *clients.Informers
	// Clock is the clock to use for everything that waits.
	Clock clock.WithTicker
	// Metrics makes the metrics of a workqueue, on the manager's own registry. Pass
	// it to the queue's configuration; the queue's name should begin with Name.
	Metrics workqueue.MetricsProvider
	// Tracer makes spans; it is never nil. Pass it to the reconciler.
	Tracer trace.TracerProvider
	// WarmWhen adds caches of the author's own making to those that must be synced
	// before Run is called. Call it in Init.
	WarmWhen func(synced ...cache.InformerSynced)
	// Served tells whether the API server serves the resource and grants what the
	// controller's Access declares for it. Ask it in Init about optional entries;
	// when an answer changes, the controller is built anew. For a resource that
	// Access does not declare it is false.
	Served func(resource schema.GroupVersionResource) bool
	// Events returns a recorder of Kubernetes Events for objects of the scheme's
	// types. Pass client-go's scheme.Scheme, or your own scheme for CRDs; a type
	// that the scheme does not know is dropped with a log line.
	Events func(scheme *runtime.Scheme) events.EventRecorder
}

// Instance identifies this process. The Pod fields are empty outside a Pod.
type Instance struct {
	// Manager is the manager's name.
	Manager string
	// Lease is the name of the Lease of the controller's lease group, in
	// LeaseNamespace. Both are empty for a controller that does not take part in an
	// election.
	Lease, LeaseNamespace string
	// Namespace is the manager's own, which OwnNamespace stands for: the Pod's, or else
	// that of the kubeconfig file. It is never empty.
	Namespace string
	// Identity is the holder identity that this process writes into the Lease.
	Identity string
	// PodName, PodNamespace and PodUID come from the downward API (the environment
	// variables POD_NAME, POD_NAMESPACE and POD_UID).
	PodName, PodNamespace, PodUID string
}
