// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package leaderelection

import (
	"context"
	"fmt"
	"net/http"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/flowcontrol"
)

// leaseAPI is what the Elector asks of the API server, all of it about one
// Lease. Simulations implement it in memory.
type leaseAPI interface {
	// get is a quorum read.
	get(ctx context.Context) (*coordinationv1.Lease, error)
	// list is a quorum read that tells the version of an absence, too: the lease
	// is nil when there is none.
	list(ctx context.Context) (lease *coordinationv1.Lease, version string, err error)
	// watch begins after version, with bookmarks, and ends itself after timeout.
	watch(ctx context.Context, version string, timeout time.Duration) (watch.Interface, error)
	create(ctx context.Context, lease *coordinationv1.Lease) (*coordinationv1.Lease, error)
	// update is a PUT with the uid and version that lease carries.
	update(ctx context.Context, lease *coordinationv1.Lease) (*coordinationv1.Lease, error)
	// close closes the idle connections.
	close()
}

// restAPI speaks to a real API server. Writes, reads and the watch have a
// client each: HTTP/1.1 on connections of its own, so that a request that hangs
// delays no other and one that timed out takes its connection with it.
type restAPI struct {
	namespace, name string
	writer, reader  *rest.RESTClient
	watcher         *rest.RESTClient
	transports      []http.RoundTripper
}

func newRESTAPI(cfg *rest.Config, namespace, name string) (*restAPI, error) {
	api := &restAPI{namespace: namespace, name: name}
	for _, client := range []**rest.RESTClient{&api.writer, &api.reader, &api.watcher} {
		c, err := api.client(cfg)
		if err != nil {
			return nil, fmt.Errorf("lease client: %w", err)
		}
		*client = c
	}
	return api, nil
}

func (a *restAPI) client(cfg *rest.Config) (*rest.RESTClient, error) {
	cfg = rest.CopyConfig(cfg)
	cfg.APIPath = "/apis"
	cfg.GroupVersion = &coordinationv1.SchemeGroupVersion
	cfg.NegotiatedSerializer = scheme.Codecs.WithoutConversion()
	if cfg.UserAgent == "" {
		cfg.UserAgent = rest.DefaultKubernetesUserAgent()
	}
	cfg.Timeout = 0 // every request has its own
	cfg.RateLimiter = flowcontrol.NewTokenBucketRateLimiter(20, 40)
	if cfg.Transport == nil {
		// A dialer of its own keeps client-go from sharing the transport.
		cfg.Dial = leaseDialer(cfg.Dial)
		cfg.NextProtos = []string{"http/1.1"}
	}
	client, err := rest.HTTPClientFor(cfg)
	if err != nil {
		return nil, err
	}
	a.transports = append(a.transports, client.Transport)
	return rest.RESTClientForConfigAndClient(cfg, client)
}

func (a *restAPI) get(ctx context.Context) (*coordinationv1.Lease, error) {
	lease := &coordinationv1.Lease{}
	return lease, a.reader.Get().MaxRetries(0).Namespace(a.namespace).Resource("leases").Name(a.name).
		Do(ctx).Into(lease)
}

// one selects the lease by its name, which also is how RBAC with resourceNames
// allows a list or watch.
func (a *restAPI) one() metav1.ListOptions {
	return metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, a.name).String()}
}

func (a *restAPI) list(ctx context.Context) (*coordinationv1.Lease, string, error) {
	opts, leases := a.one(), &coordinationv1.LeaseList{}
	err := a.watcher.Get().MaxRetries(0).Namespace(a.namespace).Resource("leases").
		VersionedParams(&opts, scheme.ParameterCodec).Do(ctx).Into(leases)
	if err != nil || len(leases.Items) == 0 {
		return nil, leases.ResourceVersion, err
	}
	return &leases.Items[0], leases.ResourceVersion, nil
}

func (a *restAPI) watch(ctx context.Context, version string, timeout time.Duration) (watch.Interface, error) {
	opts, seconds := a.one(), int64(timeout/time.Second)
	opts.Watch, opts.AllowWatchBookmarks = true, true
	opts.ResourceVersion, opts.TimeoutSeconds = version, &seconds
	return a.watcher.Get().MaxRetries(0).Namespace(a.namespace).Resource("leases").
		VersionedParams(&opts, scheme.ParameterCodec).Watch(ctx)
}

func (a *restAPI) create(ctx context.Context, lease *coordinationv1.Lease) (*coordinationv1.Lease, error) {
	created := &coordinationv1.Lease{}
	return created, a.writer.Post().MaxRetries(0).Namespace(a.namespace).Resource("leases").
		Body(lease).Do(ctx).Into(created)
}

func (a *restAPI) update(ctx context.Context, lease *coordinationv1.Lease) (*coordinationv1.Lease, error) {
	updated := &coordinationv1.Lease{}
	return updated, a.writer.Put().MaxRetries(0).Namespace(a.namespace).Resource("leases").Name(a.name).
		Body(lease).Do(ctx).Into(updated)
}

func (a *restAPI) close() {
	for _, t := range a.transports {
		utilnet.CloseIdleConnectionsFor(t)
	}
}
