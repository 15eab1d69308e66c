// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package preflight

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/flowcontrol"
	"k8s.io/klog/v2"
)

const (
	// qps and burst limit the requests apart from those of controllers. A burst is
	// enough for all controllers of a manager at its start.
	qps, burst = 20, 100
	// inFlight bounds the seats that a check takes at the API server at one time.
	inFlight = 10
	// giveUp is how long a request may take.
	giveUp = 10 * time.Second

	reviewsPath = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
)

// server is the API server, asked as little as possible.
type server struct {
	client *rest.RESTClient
	slots  chan struct{} // one for each request in flight

	versions *answers[schema.GroupVersion, resources]
	reviews  *answers[review, bool]

	// untold end with the first log line about what this user may not ask.
	untoldDiscovery, untoldReviews sync.Once
}

// resources are those of one API group version.
type resources struct {
	// unknown means that this user may not list them, so each counts as served.
	unknown bool
	// namespaced has an entry for each that is served, subresources included.
	namespaced map[string]bool
}

// review is the question whether this user may do something.
type review struct {
	resource                               schema.GroupResource
	version, subresource, verb, ns, object string
}

func newServer(config *rest.Config) (*server, error) {
	config = rest.CopyConfig(config)
	if config.UserAgent == "" {
		config.UserAgent = rest.DefaultKubernetesUserAgent()
	}
	config.UserAgent += " preflight"
	config.RateLimiter = flowcontrol.NewTokenBucketRateLimiter(qps, burst)
	config.Timeout = giveUp
	config.ContentConfig = rest.ContentConfig{
		ContentType:          runtime.ContentTypeJSON,
		AcceptContentTypes:   runtime.ContentTypeJSON,
		NegotiatedSerializer: scheme.Codecs.WithoutConversion(),
	}
	httpClient, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, err
	}
	client, err := rest.UnversionedRESTClientForConfigAndClient(config, httpClient)
	if err != nil {
		return nil, err
	}
	s := &server{client: client, slots: make(chan struct{}, inFlight)}
	s.versions = newAnswers(s.list, func(resources) bool { return true })
	// A refusal is asked about again and again until it is one no more: an old one
	// would only delay that.
	s.reviews = newAnswers(s.review, func(allowed bool) bool { return allowed })
	return s, nil
}

// list gets the resources of a group version; none if it is not served.
func (s *server) list(ctx context.Context, gv schema.GroupVersion) (resources, error) {
	path := "/apis/" + gv.String()
	if gv.Group == "" {
		path = "/api/" + gv.Version
	}
	var list metav1.APIResourceList
	err := s.do(ctx, s.client.Get().AbsPath(path), &list)
	switch {
	case apierrors.IsNotFound(err):
		return resources{}, nil
	case apierrors.IsForbidden(err):
		s.untoldDiscovery.Do(func() {
			klog.FromContext(ctx).Info("May not ask which resources are served; each one counts as served", "err", err)
		})
		return resources{unknown: true}, nil
	case err != nil:
		return resources{}, fmt.Errorf("asking for the resources of %s: %w", gv, err)
	}
	found := resources{namespaced: make(map[string]bool, len(list.APIResources))}
	for _, r := range list.APIResources {
		found.namespaced[r.Name] = r.Namespaced
	}
	return found, nil
}

// review asks whether this user may do it.
//
// An authorizer that fails leaves an evaluation error. If another one has allowed or
// denied the action, that stands: the API reference says that an answer can be had in
// spite of the error. If none has, the API server answers the action itself with an
// internal error instead of 403, so the truth is that nobody knows.
func (s *server) review(ctx context.Context, r review) (allowed bool, err error) {
	question := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
		ResourceAttributes: &authorizationv1.ResourceAttributes{
			Group: r.resource.Group, Version: r.version, Resource: r.resource.Resource, Subresource: r.subresource,
			Verb: r.verb, Namespace: r.ns, Name: r.object,
		},
	}}
	var reply authorizationv1.SelfSubjectAccessReview
	err = s.do(ctx, s.client.Post().AbsPath(reviewsPath).Body(question), &reply)
	switch status := reply.Status; {
	case apierrors.IsForbidden(err), apierrors.IsNotFound(err):
		s.untoldReviews.Do(func() {
			klog.FromContext(ctx).Info("May not ask what is granted; everything counts as granted", "err", err)
		})
		return true, nil
	case err != nil:
		return false, fmt.Errorf("asking whether %s on %s is granted: %w", r.verb, nameOf(r.resource, r.subresource), err)
	case !status.Allowed && !status.Denied && status.EvaluationError != "":
		return false, fmt.Errorf("asking whether %s on %s is granted: the API server cannot tell: %s", r.verb, nameOf(r.resource, r.subresource), status.EvaluationError)
	default:
		return status.Allowed, nil
	}
}

func (s *server) do(ctx context.Context, request *rest.Request, into runtime.Object) error {
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return request.MaxRetries(0).Do(ctx).Into(into)
}

// split returns a resource without its subresource, and the subresource.
func split(gvr schema.GroupVersionResource) (schema.GroupResource, string) {
	resource, subresource, _ := strings.Cut(gvr.Resource, "/")
	return schema.GroupResource{Group: gvr.Group, Resource: resource}, subresource
}

// nameOf writes a resource as its CustomResourceDefinition is called.
func nameOf(resource schema.GroupResource, subresource string) string {
	if subresource == "" {
		return resource.String()
	}
	return resource.String() + "/" + subresource
}
