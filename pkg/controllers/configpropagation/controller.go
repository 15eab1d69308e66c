// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package configpropagation

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"

	"github.com/incumbent-io/incumbent/pkg/controllers"
	"github.com/incumbent-io/incumbent/pkg/reconciler"
)

const (
	// timeout bounds one reconcile.
	timeout = 30 * time.Second
	// What fails is tried again after firstRetry, doubled up to maxRetry.
	firstRetry = 100 * time.Millisecond
	maxRetry   = 5 * time.Minute
)

// id names an object; its kind is kind.name, or namespaceKind.
type id struct{ kind, namespace, name string }

const namespaceKind = "Namespace"

// job is what is to be done about an object.
type job string

const (
	copying job = "copy"    // it is what it should be: a copy, or not there
	telling job = "status"  // its AnnotationStatus says what is wrong
	warning job = "refusal" // an Event tells of its malformed AnnotationRefuse
)

type key struct {
	job job
	id
}

// String returns the key as it is logged.
func (k key) String() string {
	return fmt.Sprintf("%s %s %s", k.job, k.kind, strings.TrimPrefix(k.namespace+"/"+k.name, "/"))
}

type controller struct {
	*reconciler.Reconciler[key]
	rules      rules
	client     kubernetes.Interface
	metadata   metadata.Interface
	clock      clock.PassiveClock
	recorder   events.EventRecorder
	reader     *reader
	namespaces cache.SharedIndexInformer
	// Invariant: filled by newController, and then only read.
	kinds   map[string]kind
	objects map[string]cache.SharedIndexInformer // metadata of all of a kind
	surveys map[string]*survey

	// changed gets sources whose problems have changed, while over is not closed.
	changed chan key
	over    <-chan struct{} // set by Run

	mu      sync.Mutex
	targets map[id]*target
	sources map[id]*announcement
	warned  map[id]string // what an Event has said of a namespace
}

var _ controllers.Controller = (*controller)(nil)

func newController(cc *controllers.Context, o *Options) (*controller, error) {
	client := cc.Clients.Kubernetes()
	c := &controller{
		rules:  rules{sourceNamespaces: o.SourceNamespaces},
		client: client, metadata: cc.Clients.Metadata(), clock: cc.Clock, recorder: cc.Events(scheme.Scheme),
		reader:     &reader{client: client, reads: map[id]*read{}},
		namespaces: cc.Informers.Metadata(namespaces).Informer(),
		kinds:      map[string]kind{}, objects: map[string]cache.SharedIndexInformer{}, surveys: map[string]*survey{},
		changed: make(chan key),
		targets: map[id]*target{}, sources: map[id]*announcement{}, warned: map[id]string{},
	}
	watches := []reconciler.Watch[key]{
		reconciler.Each(c.namespaces, c.keysOfNamespace, concerns),
		reconciler.Channel(c.changed),
	}
	for _, k := range kindsOf(o) {
		informer := cc.Informers.Metadata(k.resource).Informer()
		if err := informer.AddIndexers(cache.Indexers{sourcesByName: indexSources, copies: indexCopies}); err != nil {
			return nil, fmt.Errorf("index of %ss: %w", k.name, err)
		}
		c.kinds[k.name], c.objects[k.name], c.surveys[k.name] = k, informer, &survey{}
		watches = append(watches, reconciler.Each(informer, func(o *meta) []key { return c.keysOfObject(k, o) }))
	}
	var err error
	c.Reconciler, err = reconciler.New(reconciler.Config[key]{
		Name: Name, Reconcile: c.reconcile, Watches: watches, Workers: o.Workers, Timeout: timeout,
		RateLimiter: workqueue.NewTypedItemExponentialFailureRateLimiter[key](firstRetry, maxRetry),
		Metrics:     cc.Metrics, Tracer: cc.Tracer, Clock: cc.Clock,
	})
	return c, err
}

// Run implements controllers.Controller.
func (c *controller) Run(ctx context.Context) error {
	c.over = ctx.Done()
	for name, k := range c.kinds {
		c.surveys[name].begin(len(c.indexed(k, copies, all)))
	}
	return c.Reconciler.Run(ctx)
}

func (c *controller) reconcile(ctx context.Context, k key) (reconciler.Result, error) {
	switch k.job {
	case copying:
		return c.copy(ctx, k.id)
	case telling:
		return c.tell(ctx, k.id)
	default:
		return reconciler.Result{}, c.warn(k.id)
	}
}
