// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package preflight

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"

	"github.com/incumbent-io/incumbent/pkg/controllers"
)

// How fast a Checker may ask. A thousand controllers start together.
const (
	checkQPS   = 50
	checkBurst = 200
)

// fresh is how long an answer serves others who ask the same.
const fresh = time.Second

// Config says whom a Checker asks.
type Config struct {
	// REST reaches the API server, as the account whose permissions count. Required.
	REST *rest.Config
	// OwnNamespace is what controllers.OwnNamespace stands for.
	OwnNamespace string
	// Clock times how long answers are shared. nil means the system's.
	Clock clock.PassiveClock
}

// Checker finds out about access. It is safe for concurrent use.
type Checker struct {
	client       kubernetes.Interface
	ownNamespace string
	clock        clock.PassiveClock

	mu        sync.Mutex
	questions map[any]*question
}

// question is one request, whose answer is shared. The fields but done and asked are
// set before done is closed.
type question struct {
	done  chan struct{}
	asked time.Time
	yes   func(resource string) bool
	err   error
}

// New checks the configuration. It requests nothing.
func New(config Config) (*Checker, error) {
	if config.REST == nil {
		return nil, errors.New("preflight: Config.REST is required")
	}
	own := rest.CopyConfig(config.REST)
	own.UserAgent += " preflight"
	own.RateLimiter, own.QPS, own.Burst = nil, checkQPS, checkBurst
	client, err := kubernetes.NewForConfig(own)
	if err != nil {
		return nil, fmt.Errorf("preflight: %w", err)
	}
	if config.Clock == nil {
		config.Clock = clock.RealClock{}
	}
	return &Checker{client: client, ownNamespace: config.OwnNamespace, clock: config.Clock, questions: map[any]*question{}}, nil
}

// Check finds out about every entry of access. An error means that something could
// not be found out; then there is no report.
func (c *Checker) Check(ctx context.Context, access []controllers.Access) (Report, error) {
	return c.Recheck(ctx, c.unknown(access))
}

// Recheck asks again for what is missing in a report, and keeps the rest as it is.
func (c *Checker) Recheck(ctx context.Context, before Report) (Report, error) {
	report := slices.Clone(before)
	errs := make([]error, len(report))
	var all sync.WaitGroup
	for i := range report {
		if report[i].OK() {
			continue
		}
		all.Go(func() { errs[i] = c.find(ctx, &report[i]) })
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return report, nil
}

// unknown returns a report in which everything is missing.
func (c *Checker) unknown(access []controllers.Access) Report {
	report := make(Report, len(access))
	for i, a := range access {
		if a.Namespace == controllers.OwnNamespace {
			a.Namespace = c.ownNamespace
		}
		report[i] = Entry{Access: a}
	}
	return report
}

func (c *Checker) find(ctx context.Context, entry *Entry) (err error) {
	if entry.Served, err = c.served(ctx, entry.Resource); err != nil || !entry.Served {
		return err
	}
	verbs := slices.Sorted(slices.Values(entry.Verbs))
	if len(entry.NotGranted) > 0 { // the others are granted already
		verbs = entry.NotGranted
	}
	entry.NotGranted = nil
	for _, verb := range verbs {
		granted, err := c.granted(ctx, entry.Access, verb)
		if err != nil {
			return err
		}
		if !granted {
			entry.NotGranted = append(entry.NotGranted, verb)
		}
	}
	return nil
}

// served looks the resource up in the discovery document of its group and version.
func (c *Checker) served(ctx context.Context, resource schema.GroupVersionResource) (bool, error) {
	version := resource.GroupVersion()
	return c.ask(ctx, version, resource.Resource, func(ctx context.Context) (func(string) bool, error) {
		path := "/apis/" + version.String()
		if version.Group == "" {
			path = "/api/" + version.Version
		}
		var list metav1.APIResourceList
		err := c.client.CoreV1().RESTClient().Get().AbsPath(path).Do(ctx).Into(&list)
		if apierrors.IsNotFound(err) {
			return func(string) bool { return false }, nil
		}
		if err != nil {
			return nil, fmt.Errorf("discovery of %s: %w", version, err)
		}
		return func(name string) bool {
			return slices.ContainsFunc(list.APIResources, func(r metav1.APIResource) bool { return r.Name == name })
		}, nil
	})
}

// granted has the verb reviewed, for each name if there are any.
func (c *Checker) granted(ctx context.Context, access controllers.Access, verb string) (bool, error) {
	names := access.Names
	if len(names) == 0 {
		names = []string{""}
	}
	for _, name := range names {
		resource, subresource := splitResource(access.Resource.Resource)
		attributes := authorizationv1.ResourceAttributes{
			Group: access.Resource.Group, Version: access.Resource.Version, Resource: resource, Subresource: subresource,
			Verb: verb, Name: name, Namespace: access.Namespace,
		}
		granted, err := c.ask(ctx, attributes, "", func(ctx context.Context) (func(string) bool, error) { return c.review(ctx, attributes) })
		if err != nil || !granted {
			return false, err
		}
	}
	return true, nil
}

// review asks for one permission. A cluster that grants no reviews cannot tell, and
// then the requests themselves will; everybody has them by the role
// system:basic-user.
func (c *Checker) review(ctx context.Context, attributes authorizationv1.ResourceAttributes) (func(string) bool, error) {
	review, err := c.client.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, &authorizationv1.SelfSubjectAccessReview{
		Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &attributes},
	}, metav1.CreateOptions{})
	switch {
	case apierrors.IsForbidden(err), apierrors.IsNotFound(err), apierrors.IsMethodNotSupported(err):
		return func(string) bool { return true }, nil
	case err != nil:
		return nil, fmt.Errorf("review of %s on %s: %w", attributes.Verb, attributes.Resource, err)
	}
	allowed := review.Status.Allowed
	if !allowed && !review.Status.Denied && review.Status.EvaluationError != "" {
		return nil, fmt.Errorf("review of %s on %s: %s", attributes.Verb, attributes.Resource, review.Status.EvaluationError)
	}
	return func(string) bool { return allowed }, nil
}

// ask sends a request unless the same one was sent within a second. A failed one is
// not shared with those who come later.
func (c *Checker) ask(ctx context.Context, key any, resource string, request func(context.Context) (func(string) bool, error)) (bool, error) {
	c.mu.Lock()
	now := c.clock.Now()
	for key, q := range c.questions {
		if now.Sub(q.asked) >= fresh {
			delete(c.questions, key)
		}
	}
	q, shared := c.questions[key]
	if !shared {
		q = &question{done: make(chan struct{}), asked: now}
		c.questions[key] = q
	}
	c.mu.Unlock()
	if !shared {
		q.yes, q.err = request(ctx)
		if q.err != nil {
			c.mu.Lock()
			if c.questions[key] == q {
				delete(c.questions, key)
			}
			c.mu.Unlock()
		}
		close(q.done)
	}
	select {
	case <-q.done:
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
	if q.err != nil {
		return false, q.err
	}
	return q.yes(resource), nil
}
