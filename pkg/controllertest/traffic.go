// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package controllertest

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/incumbent-io/incumbent/pkg/controllers"
)

// Request is one request to the API server.
type Request struct {
	// Verb is the Kubernetes verb, such as create or patch.
	Verb string
	// Resource may name a subresource, as in pods/status.
	Resource        schema.GroupVersionResource
	Namespace, Name string
}

// String returns the request in one line, such as "patch configmaps team-a/limits".
func (r Request) String() string {
	name := strings.TrimPrefix(r.Namespace+"/"+r.Name, "/")
	return strings.TrimSuffix(r.Verb+" "+r.Resource.GroupResource().String()+" "+name, " ")
}

func (r Request) writes() bool {
	return !slices.Contains([]string{"get", "list", "watch"}, r.Verb)
}

// traffic sees every request of the controller: its clients' and its informers'.
type traffic struct {
	access  []controllers.Access
	own     string // namespace
	absent  []schema.GroupVersionResource
	onWrite func(Request) error
	// undeclared is told of a request that the access does not cover, once for each
	// verb and resource.
	undeclared func(Request)

	mu       sync.Mutex
	writes   []Request // since they were last taken
	inFlight int
	seen     uint64
	told     map[string]bool
}

// admit counts a write, and returns an error in place of the API server's answer.
// Otherwise done must be called with what came of the request.
func (t *traffic) admit(r Request) (done func(), err error) {
	t.check(r)
	if slices.Contains(t.absent, schema.GroupVersionResource{Group: r.Resource.Group, Version: r.Resource.Version, Resource: resourceOf(r)}) {
		return nil, notServed(r)
	}
	if !r.writes() {
		return func() {}, nil
	}
	t.mu.Lock()
	t.writes = append(t.writes, r)
	t.inFlight++
	t.seen++
	t.mu.Unlock()
	done = func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.inFlight--
		t.seen++
	}
	if t.onWrite != nil {
		if err := t.onWrite(r); err != nil {
			done()
			return nil, err
		}
	}
	return done, nil
}

// state returns how many writes are in flight, and a number that grows with each.
func (t *traffic) state() (inFlight int, seen uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.inFlight, t.seen
}

func (t *traffic) take() []Request {
	t.mu.Lock()
	defer t.mu.Unlock()
	taken := t.writes
	t.writes = nil
	return taken
}

// check tells of a request that the controller's Access does not cover.
func (t *traffic) check(r Request) {
	if covered(t.access, t.own, r) {
		return
	}
	key := r.Verb + " " + r.Resource.String()
	t.mu.Lock()
	known := t.told[key]
	t.told[key] = true
	t.mu.Unlock()
	if !known {
		t.undeclared(r)
	}
}

// covered tells whether RBAC rules made of the access allow the request.
func covered(access []controllers.Access, own string, r Request) bool {
	switch r.Resource.Group {
	case "authorization.k8s.io", "authentication.k8s.io":
		return strings.HasPrefix(r.Resource.Resource, "self") // everybody may
	}
	for _, a := range access {
		namespace := a.Namespace
		if namespace == controllers.OwnNamespace {
			namespace = own
		}
		if a.Resource.GroupResource() == r.Resource.GroupResource() && slices.Contains(a.Verbs, r.Verb) &&
			(namespace == "" || namespace == r.Namespace) && (len(a.Names) == 0 || slices.Contains(a.Names, r.Name) || r.Name == "") {
			return true
		}
	}
	return false
}

// resourceOf returns the resource without its subresource.
func resourceOf(r Request) string {
	resource, _, _ := strings.Cut(r.Resource.Resource, "/")
	return resource
}

// fence lets the writes of one run through from Open to Shut, like that of a term.
//
//	closed ──Open──► open ──Shut──► shut for ever
type fence struct {
	mu    sync.Mutex
	state fenceState
}

type fenceState string

const (
	fenceClosed fenceState = ""
	fenceOpen   fenceState = "open"
	fenceShut   fenceState = "shut"
)

func (f *fence) check(r Request) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !r.writes() || f.state == fenceOpen {
		return nil
	}
	why := "Run has not been called"
	if f.state == fenceShut {
		why = "the run is over"
	}
	return &notLeader{fmt.Sprintf("%s: not sent, because %s", r, why)}
}

func (f *fence) set(state fenceState) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.state != fenceShut {
		f.state = state
	}
}

// notLeader is a fence's refusal.
type notLeader struct{ text string }

func (e *notLeader) Error() string { return e.text }

// NotLeader has controllers.IsNotLeader recognise the error.
func (e *notLeader) NotLeader() bool { return true }
