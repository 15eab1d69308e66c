// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package preflight_test

import (
	"cmp"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/incumbent-io/incumbent/pkg/preflight"
)

// apiServer answers discovery and reviews. What it serves and grants may be changed
// while it is asked.
type apiServer struct {
	mu sync.Mutex
	// serves are resources by group version: "pods", or "nodes!" if cluster-scoped.
	serves map[string][]string
	// grants are "verb resource" or "verb resource/name", with " in namespace" added
	// for a Role. What is granted everywhere is granted in each namespace, and what is
	// granted on all objects is granted on each.
	grants []string
	// instead answers a request in place of this server, if it returns a code.
	instead func(path string) (code int, body any)
	// slow is how long each answer takes.
	slow time.Duration

	requests  []string
	agents    map[string]bool
	inFlight  int
	mostAsked int
}

// RoundTrip implements http.RoundTripper, for tests in fake time.
func (s *apiServer) RoundTrip(r *http.Request) (*http.Response, error) {
	answer := httptest.NewRecorder()
	s.ServeHTTP(answer, r)
	select {
	case <-r.Context().Done():
		return nil, r.Context().Err()
	default:
		return answer.Result(), nil
	}
}

// ServeHTTP implements http.Handler.
func (s *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name, code, body := s.answer(r)
	s.mu.Lock()
	s.requests = append(s.requests, name)
	s.inFlight++
	s.mostAsked = max(s.mostAsked, s.inFlight)
	slow := s.slow
	s.mu.Unlock()
	select {
	case <-time.After(slow):
	case <-r.Context().Done():
	}
	s.mu.Lock()
	s.inFlight--
	s.mu.Unlock()
	if body == nil {
		w.Header().Set("Retry-After", "1") // which nobody should obey here
		http.Error(w, cmp.Or(http.StatusText(code), "?"), code)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body)
}

// answer returns the request in short form, and what to answer it.
func (s *apiServer) answer(r *http.Request) (name string, code int, body any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.agents == nil {
		s.agents = map[string]bool{}
	}
	s.agents[r.Header.Get("User-Agent")] = true
	var review authorizationv1.SelfSubjectAccessReview
	name = r.Method + " " + r.URL.Path
	isReview := strings.HasSuffix(r.URL.Path, "/selfsubjectaccessreviews")
	if isReview {
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil || review.Spec.ResourceAttributes.Version == "" {
			return "bad " + name, http.StatusBadRequest, nil
		}
		name = question(review.Spec.ResourceAttributes)
	}
	if s.instead != nil {
		if code, body := s.instead(r.URL.Path); code != 0 {
			return name, code, body
		}
	}
	if isReview {
		review.Status.Allowed = s.allows(review.Spec.ResourceAttributes)
		return name, http.StatusCreated, review
	}
	gv := strings.TrimPrefix(strings.TrimPrefix(r.URL.Path, "/apis/"), "/api/")
	resources, ok := s.serves[gv]
	if !ok {
		return name, http.StatusNotFound, nil
	}
	list := metav1.APIResourceList{TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: gv}
	for _, resource := range resources {
		resource, clusterScoped := strings.CutSuffix(resource, "!")
		list.APIResources = append(list.APIResources, metav1.APIResource{Name: resource, Namespaced: !clusterScoped, Kind: "Any"})
	}
	return name, http.StatusOK, list
}

func (s *apiServer) allows(a *authorizationv1.ResourceAttributes) bool {
	for _, name := range []string{a.Name, ""} {
		for _, namespace := range []string{a.Namespace, ""} {
			asked := *a
			asked.Name, asked.Namespace = name, namespace
			if slices.Contains(s.grants, question(&asked)) {
				return true
			}
		}
	}
	return false
}

func question(a *authorizationv1.ResourceAttributes) string {
	q := a.Verb + " " + a.Resource
	if a.Subresource != "" {
		q += "/" + a.Subresource
	}
	if a.Name != "" {
		q += " " + a.Name
	}
	if a.Namespace != "" {
		q += " in " + a.Namespace
	}
	return q
}

// take returns the requests since the last call, sorted.
func (s *apiServer) take() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	taken := s.requests
	s.requests = nil
	slices.Sort(taken)
	return taken
}

func (s *apiServer) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// checker asks s without a network.
func (s *apiServer) checker(t *testing.T) *preflight.Checker {
	t.Helper()
	checker, err := preflight.New(preflight.Config{
		REST:         &rest.Config{Host: "https://apiserver.test", Transport: s, UserAgent: "manager"},
		OwnNamespace: "own-ns",
	})
	if err != nil {
		t.Fatal(err)
	}
	return checker
}
