// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package controllertest

import (
	"fmt"
	"maps"
	"strings"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/incumbent-io/incumbent/pkg/clients"
	"github.com/incumbent-io/incumbent/pkg/controllers/runner"
)

// inBubble tells whether the caller runs in a bubble of testing/synctest.
func inBubble() (yes bool) {
	defer func() {
		if reason := recover(); reason != nil {
			yes = false
		}
	}()
	synctest.Wait() // panics outside
	return true
}

const (
	// looks is how often, one after the other, everything must have been quiet, and
	// pause how long they are apart.
	looks = 3
	pause = 3 * time.Millisecond
	// patientLooks is the same for a controller without event handlers, which may not
	// have come to add them.
	patientLooks = 30
	// slowPause is for as long as something is going on.
	slowPause = 10 * time.Millisecond
)

// Settle waits until the controller has nothing more to do: its caches hold what the
// API server holds, its handlers know, its queues are empty, nothing is being
// reconciled, and no write is in flight. What is due later waits for Advance, a retry
// after a failure included. The test fails if that takes longer than Config.Timeout.
//
// In a bubble, this is exact: every goroutine waits for something. Outside, work is
// seen if it goes through the informers, the clients and queues with the metrics of the
// Context, and nothing of it must have been seen for several looks.
func (h *Harness) Settle() {
	h.t.Helper()
	began := time.Now()
	quiet, enough, before := 0, patientLooks, uint64(0)
	for quiet < enough {
		if h.bubble {
			synctest.Wait()
		}
		problem, mark, handlers := h.look()
		if handlers > 0 {
			enough = looks
		}
		switch {
		case problem == "" && h.bubble:
			return
		case problem == "" && mark == before:
			quiet++
		default:
			quiet = 0
		}
		if time.Since(began) > h.config.Timeout {
			h.t.Fatalf("controllertest: not settled within %v: %s", h.config.Timeout, problem)
		}
		before = mark
		if problem == "" {
			time.Sleep(pause)
		} else {
			time.Sleep(slowPause)
		}
	}
}

// look tells what keeps the controller from being settled, "" if nothing does, a number
// that grows with whatever happens, and how many event handlers there are.
func (h *Harness) look() (problem string, mark uint64, handlers int) {
	inFlight, written := h.traffic.state()
	busy, added := h.queues.state()
	mark = written + added
	status := h.Status()
	switch status.State {
	case runner.Building, runner.Draining:
		problem = fmt.Sprintf("the controller is %s: %s", status.State, status.Reason)
	case runner.Warm:
		if h.stop != nil {
			problem = "the controller is warm and does not run yet"
		}
	}
	switch {
	case problem != "":
	case h.bubble: // what is queued or in flight waits for the clock
	case inFlight > 0:
		problem = fmt.Sprintf("%d writes are in flight", inFlight)
	case len(busy) > 0:
		problem = "queues are not empty: " + strings.Join(busy, ", ")
	default:
		problem, handlers = h.lag(status.State == runner.Running)
	}
	return problem, mark, handlers
}

// lag names a cache that differs from the API server, or a handler that has not been
// told, and counts the handlers.
func (h *Harness) lag(running bool) (problem string, handlers int) {
	h.mu.Lock()
	view := h.view
	h.mu.Unlock()
	if view == nil || view.Err() != nil {
		return "", 0 // it cannot be listed; that is logged
	}
	for _, cached := range view.Tracked() {
		handlers += cached.Handlers
		gvr, err := h.resource(cached)
		if err != nil {
			continue // of generated code that hides what it is; nothing to compare
		}
		there, err := h.versions(gvr, cached.Scope)
		switch {
		case err != nil:
			return fmt.Sprintf("%s cannot be listed: %v", gvr.GroupResource(), err), handlers
		case !maps.Equal(there, cached.Versions):
			return fmt.Sprintf("the cache of %s has %d objects, the API server %d, or some of them differ", gvr.GroupResource(), len(cached.Versions), len(there)), handlers
		case running && !cached.Told:
			return fmt.Sprintf("handlers of %s have not been told of everything", gvr.GroupResource()), handlers
		}
	}
	return "", handlers
}

func (h *Harness) resource(cached clients.Tracked) (schema.GroupVersionResource, error) {
	if !cached.Resource.Empty() {
		return cached.Resource, nil
	}
	kinds, _, err := h.config.Scheme.ObjectKinds(cached.Example)
	if err != nil {
		return schema.GroupVersionResource{}, err
	}
	gvr, _ := meta.UnsafeGuessKindToResource(kinds[0])
	return gvr, nil
}

// versions asks the API server what a cache should hold.
func (h *Harness) versions(gvr schema.GroupVersionResource, scope clients.Scope) (map[types.NamespacedName]string, error) {
	options := metav1.ListOptions{LabelSelector: scope.LabelSelector, FieldSelector: scope.FieldSelector}
	if h.server != nil {
		return h.server.versions(gvr, scope.Namespace, options)
	}
	list, err := h.Metadata.Resource(gvr).Namespace(scope.Namespace).List(h.t.Context(), options)
	if err != nil {
		return nil, err
	}
	found := make(map[types.NamespacedName]string, len(list.Items))
	for i := range list.Items {
		found[nameOf(&list.Items[i])] = list.Items[i].ResourceVersion
	}
	return found, nil
}
