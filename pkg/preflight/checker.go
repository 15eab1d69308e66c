// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package preflight

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"

	"k8s.io/client-go/rest"

	"github.com/incumbent-io/incumbent/pkg/controllers"
)

// Config says whom to ask.
type Config struct {
	// REST reaches the API server, as the user that the controllers will be. It is
	// copied; its RateLimiter, QPS, Burst and Timeout are not used. Required.
	REST *rest.Config
	// OwnNamespace is what controllers.OwnNamespace stands for. Empty: unknown, and
	// whatever needs it is missing.
	OwnNamespace string
}

// Checker asks the API server what it serves and grants. It holds no goroutine and
// needs no closing. It is safe for concurrent use, and meant to be shared by all
// controllers of a manager.
type Checker struct {
	server *server
	own    string
}

// New checks the configuration. It requests nothing.
func New(config Config) (*Checker, error) {
	if config.REST == nil {
		return nil, errors.New("preflight: Config.REST is required")
	}
	server, err := newServer(config.REST)
	if err != nil {
		return nil, fmt.Errorf("preflight: %w", err)
	}
	return &Checker{server: server, own: config.OwnNamespace}, nil
}

// Check finds out for each entry of access whether it is there. An error means that
// it could not: nothing is known, and the Report is empty. Errors of ctx are wrapped.
func (c *Checker) Check(ctx context.Context, access []controllers.Access) (Report, error) {
	return each(ctx, access, c.look)
}

// Recheck asks only about what was missing in previous, required or not, and about
// entries that previous does not have; the rest it takes from there. While nothing is
// missing it asks nothing. The cost of a controller that waits for a resource is one
// request, and one per verb that is not granted.
//
// Since the rest may have changed, Check has the last word before a controller starts.
func (c *Checker) Recheck(ctx context.Context, access []controllers.Access, previous Report) (Report, error) {
	return each(ctx, access, func(ctx context.Context, a controllers.Access) (Result, error) {
		old, known := previous.find(c.resolve(a))
		switch {
		case known && len(old.refused) > 0:
			return c.ask(ctx, old, old.refused)
		case known && old.ok():
			return old, nil
		default:
			return c.look(ctx, a)
		}
	})
}

// each looks at all entries at once. The first error ends all.
func each(ctx context.Context, access []controllers.Access, look func(context.Context, controllers.Access) (Result, error)) (Report, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	results := make([]Result, len(access))
	inParallel(len(access), func(i int) {
		var err error
		if results[i], err = look(ctx, access[i]); err != nil {
			cancel(err)
		}
	})
	if err := context.Cause(ctx); err != nil {
		return Report{}, fmt.Errorf("preflight: cannot find out what the API server serves and grants: %w", err)
	}
	return Report{Results: results}, nil
}

// finalizers is a subresource that is a permission only, and served by nobody: without
// "update" on it an API server with the admission plugin
// OwnerReferencesPermissionEnforcement accepts no owner reference that blocks deletion.
const finalizers = "finalizers"

// look finds out about one entry.
func (c *Checker) look(ctx context.Context, a controllers.Access) (Result, error) {
	r := Result{Access: c.resolve(a)}
	if r.Access.Namespace == controllers.OwnNamespace {
		return r.unplaced(), nil
	}
	found, err := c.server.versions.get(ctx, a.Resource.GroupVersion())
	if err != nil {
		return Result{}, err
	}
	resource, subresource := split(a.Resource)
	name := a.Resource.Resource
	if subresource == finalizers {
		name, subresource = resource.Resource, ""
	}
	namespaced, served := found.namespaced[name]
	if !served && !found.unknown {
		_, parent := found.namespaced[resource.Resource]
		return r.unserved(parent && subresource != ""), nil
	}
	r.Served = true
	r.clusterScoped = served && !namespaced
	return c.ask(ctx, r, r.reviews())
}

// ask completes r by the answers to the reviews.
func (c *Checker) ask(ctx context.Context, r Result, reviews []review) (Result, error) {
	allowed := make([]bool, len(reviews))
	errs := make([]error, len(reviews))
	inParallel(len(reviews), func(i int) {
		allowed[i], errs[i] = c.server.reviews.get(ctx, reviews[i])
	})
	for _, err := range errs {
		if err != nil {
			return Result{}, err
		}
	}
	var refused []review
	for i, review := range reviews {
		if !allowed[i] {
			refused = append(refused, review)
		}
	}
	return r.reviewed(refused), nil
}

// resolve puts the manager's own namespace in, if it is known.
func (c *Checker) resolve(a controllers.Access) controllers.Access {
	if a.Namespace == controllers.OwnNamespace && c.own != "" {
		a.Namespace = c.own
	}
	a.Verbs, a.Names = slices.Clone(a.Verbs), slices.Clone(a.Names)
	return a
}

// find returns the result of an entry that is equal to a.
func (r Report) find(a controllers.Access) (Result, bool) {
	for _, result := range r.Results {
		if reflect.DeepEqual(result.Access, a) {
			return result, true
		}
	}
	return Result{}, false
}

// inParallel calls f with 0 to n-1, and returns when all calls have returned.
func inParallel(n int, f func(int)) {
	var calls sync.WaitGroup
	for i := range n {
		calls.Go(func() { f(i) })
	}
	calls.Wait()
}
