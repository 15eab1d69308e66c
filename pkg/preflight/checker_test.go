// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package preflight_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/ktesting"

	"github.com/incumbent-io/incumbent/pkg/controllers"
	"github.com/incumbent-io/incumbent/pkg/preflight"
)

var (
	pods       = schema.GroupVersionResource{Version: "v1", Resource: "pods"}
	podStatus  = schema.GroupVersionResource{Version: "v1", Resource: "pods/status"}
	nodes      = schema.GroupVersionResource{Version: "v1", Resource: "nodes"}
	namespaces = schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}
	leases     = schema.GroupVersionResource{Group: "coordination.k8s.io", Version: "v1", Resource: "leases"}
	widgets    = schema.GroupVersionResource{Group: "example.com", Version: "v1", Resource: "widgets"}
)

// core is what every test's API server serves, unless it says otherwise.
func core() map[string][]string {
	return map[string][]string{
		"v1":                     {"pods", "pods/status", "pods/eviction", "nodes!", "namespaces!"},
		"coordination.k8s.io/v1": {"leases"},
	}
}

func TestCheck(t *testing.T) {
	for _, tt := range []struct {
		name     string
		serves   map[string][]string // added to core
		grants   []string
		access   controllers.Access
		requests []string
		missing  []string
		reason   string
	}{
		{
			name:     "all there",
			grants:   []string{"list pods", "watch pods"},
			access:   controllers.Access{Resource: pods, Verbs: []string{"list", "watch"}},
			requests: []string{"GET /api/v1", "list pods", "watch pods"},
		}, {
			name:     "group version not served",
			access:   controllers.Access{Resource: widgets, Verbs: []string{"list", "watch"}},
			requests: []string{"GET /apis/example.com/v1"},
			missing:  []string{"list", "watch"},
			reason:   "widgets.example.com is not served in version v1 (the customresourcedefinition widgets.example.com is not installed, or lacks the version)",
		}, {
			name:     "resource absent from its group version",
			serves:   map[string][]string{"example.com/v1": {"gadgets"}},
			access:   controllers.Access{Resource: widgets, Verbs: []string{"list"}},
			requests: []string{"GET /apis/example.com/v1"},
			missing:  []string{"list"},
			reason:   "widgets.example.com is not served in version v1 (the customresourcedefinition widgets.example.com is not installed, or lacks the version)",
		}, {
			name:     "built-in API of another release",
			access:   controllers.Access{Resource: schema.GroupVersionResource{Group: "apps", Version: "v9", Resource: "deployments"}, Verbs: []string{"get"}},
			requests: []string{"GET /apis/apps/v9"},
			missing:  []string{"get"},
			reason:   "deployments.apps is not served in version v9 (this API server is of another release, or has it switched off)",
		}, {
			name:     "subresource served and granted",
			grants:   []string{"patch pods/status"},
			access:   controllers.Access{Resource: podStatus, Verbs: []string{"patch"}},
			requests: []string{"GET /api/v1", "patch pods/status"},
		}, {
			name:     "subresource switched off",
			serves:   map[string][]string{"example.com/v1": {"widgets"}},
			access:   controllers.Access{Resource: schema.GroupVersionResource{Group: "example.com", Version: "v1", Resource: "widgets/status"}, Verbs: []string{"update"}},
			requests: []string{"GET /apis/example.com/v1"},
			missing:  []string{"update"},
			reason:   `widgets.example.com has no subresource "status" in version v1 (its CustomResourceDefinition can switch it on)`,
		}, {
			name:     "finalizers, which is a permission and never served",
			serves:   map[string][]string{"example.com/v1": {"widgets"}},
			grants:   []string{"update widgets/finalizers"},
			access:   controllers.Access{Resource: schema.GroupVersionResource{Group: "example.com", Version: "v1", Resource: "widgets/finalizers"}, Verbs: []string{"update"}},
			requests: []string{"GET /apis/example.com/v1", "update widgets/finalizers"},
		}, {
			name:     "finalizers of what is not served",
			access:   controllers.Access{Resource: schema.GroupVersionResource{Group: "example.com", Version: "v1", Resource: "widgets/finalizers"}, Verbs: []string{"update"}},
			requests: []string{"GET /apis/example.com/v1"},
			missing:  []string{"update"},
			reason:   "widgets.example.com/finalizers is not served in version v1 (the customresourcedefinition widgets.example.com is not installed, or lacks the version)",
		}, {
			name:     "some verbs not granted",
			serves:   map[string][]string{"example.com/v1": {"widgets"}},
			grants:   []string{"get widgets"},
			access:   controllers.Access{Resource: widgets, Verbs: []string{"get", "list", "watch", "list"}},
			requests: []string{"GET /apis/example.com/v1", "get widgets", "list widgets", "watch widgets"},
			missing:  []string{"list", "watch"},
			reason:   "not granted: list, watch on widgets.example.com in all namespaces (the rbac subcommand prints the rules that grant it)",
		}, {
			name:     "granted by a Role, needed everywhere",
			grants:   []string{"list pods in shop"},
			access:   controllers.Access{Resource: pods, Verbs: []string{"list"}},
			requests: []string{"GET /api/v1", "list pods"},
			missing:  []string{"list"},
			reason:   "not granted: list on pods in all namespaces (the rbac subcommand prints the rules that grant it)",
		}, {
			name:     "needed in a namespace",
			grants:   []string{"list pods in shop"},
			access:   controllers.Access{Resource: pods, Verbs: []string{"list", "watch"}, Namespace: "shop"},
			requests: []string{"GET /api/v1", "list pods in shop", "watch pods in shop"},
			missing:  []string{"watch"},
			reason:   "not granted: watch on pods in namespace shop (the rbac subcommand prints the rules that grant it)",
		}, {
			name:     "needed in the manager's own namespace",
			grants:   []string{"list pods in own-ns"},
			access:   controllers.Access{Resource: pods, Verbs: []string{"list"}, Namespace: controllers.OwnNamespace},
			requests: []string{"GET /api/v1", "list pods in own-ns"},
		}, {
			name:   "needed by name, where creation cannot be",
			grants: []string{"get leases a in own-ns", "get leases b in own-ns", "update leases a in own-ns"},
			access: controllers.Access{Resource: leases, Verbs: []string{"create", "get", "update", "patch"}, Names: []string{"a", "b"}, Namespace: controllers.OwnNamespace},
			requests: []string{
				"GET /apis/coordination.k8s.io/v1", "create leases in own-ns",
				"get leases a in own-ns", "get leases b in own-ns",
				"patch leases a in own-ns", "patch leases b in own-ns",
				"update leases a in own-ns", "update leases b in own-ns",
			},
			missing: []string{"create", "update", "patch"},
			reason: `not granted: create on leases.coordination.k8s.io and patch on leases.coordination.k8s.io "a" and update, patch on leases.coordination.k8s.io "b"` +
				` in namespace own-ns (the rbac subcommand prints the rules that grant it)`,
		}, {
			name:     "same verbs missing on several names",
			access:   controllers.Access{Resource: pods, Verbs: []string{"get"}, Names: []string{"a", "b"}, Namespace: "shop"},
			requests: []string{"GET /api/v1", "get pods a in shop", "get pods b in shop"},
			missing:  []string{"get"},
			reason:   `not granted: get on pods "a", "b" in namespace shop (the rbac subcommand prints the rules that grant it)`,
		}, {
			name:     "creation of a named object's subresource",
			grants:   []string{"create pods/eviction a in shop"},
			access:   controllers.Access{Resource: schema.GroupVersionResource{Version: "v1", Resource: "pods/eviction"}, Verbs: []string{"create"}, Names: []string{"a"}, Namespace: "shop"},
			requests: []string{"GET /api/v1", "create pods/eviction a in shop"},
		}, {
			name:     "cluster-scoped",
			access:   controllers.Access{Resource: nodes, Verbs: []string{"list"}},
			requests: []string{"GET /api/v1", "list nodes"},
			missing:  []string{"list"},
			reason:   "not granted: list on nodes (the rbac subcommand prints the rules that grant it)",
		}, {
			name:     "cluster-scoped, but a namespace is named: a Role grants nothing",
			grants:   []string{"list nodes in shop"},
			access:   controllers.Access{Resource: nodes, Verbs: []string{"list"}, Namespace: "shop"},
			requests: []string{"GET /api/v1", "list nodes"},
			missing:  []string{"list"},
			reason:   "not granted: list on nodes (nodes is cluster-scoped, so its Access must name no namespace)",
		}, {
			name:     "a namespace is within itself",
			grants:   []string{"get namespaces in shop"},
			access:   controllers.Access{Resource: namespaces, Verbs: []string{"get"}, Namespace: "shop"},
			requests: []string{"GET /api/v1", "get namespaces in shop"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			api := &apiServer{serves: core(), grants: tt.grants}
			for gv, resources := range tt.serves {
				api.serves[gv] = resources
			}
			report, err := api.checker(t).Check(t.Context(), []controllers.Access{tt.access})
			if err != nil {
				t.Fatal(err)
			}
			got := report.Results[0]
			if diff := cmp.Diff(tt.missing, got.Missing); diff != "" {
				t.Errorf("missing (-want +got):\n%s", diff)
			}
			if got.Reason != tt.reason {
				t.Errorf("got reason\n%s\nwant\n%s", got.Reason, tt.reason)
			}
			if diff := cmp.Diff(tt.requests, api.take()); diff != "" {
				t.Errorf("requests (-want +got):\n%s", diff)
			}
			served := !strings.Contains(tt.reason, "served") && !strings.Contains(tt.reason, "subresource")
			if got.Served != served {
				t.Errorf("got Served %v, want %v", got.Served, served)
			}
			if reason, blocked := report.Blocked(); blocked != (tt.reason != "") || reason != tt.reason {
				t.Errorf("got Blocked %q, %v", reason, blocked)
			}
			if report.Has(tt.access.Resource) != (tt.reason == "") {
				t.Errorf("got Has %v", report.Has(tt.access.Resource))
			}
		})
	}
}

func TestWithoutAnOwnNamespaceWhatNeedsItIsMissing(t *testing.T) {
	api := &apiServer{serves: core()}
	checker, err := preflight.New(preflight.Config{REST: &rest.Config{Host: "https://apiserver.test", Transport: api}})
	if err != nil {
		t.Fatal(err)
	}
	report, err := checker.Check(t.Context(), []controllers.Access{{Resource: pods, Verbs: []string{"list"}, Namespace: controllers.OwnNamespace}})
	if err != nil {
		t.Fatal(err)
	}
	if reason, blocked := report.Blocked(); !blocked || !strings.Contains(reason, "POD_NAMESPACE") {
		t.Errorf("got Blocked %q, %v, want a reason that names POD_NAMESPACE", reason, blocked)
	}
	if got := api.take(); len(got) != 0 {
		t.Errorf("got requests %v, want none", got)
	}
}

func TestAnErrorMeansThatNothingIsKnown(t *testing.T) {
	unclear := authorizationv1.SelfSubjectAccessReview{Status: authorizationv1.SubjectAccessReviewStatus{EvaluationError: "webhook: no route to host"}}
	for _, tt := range []struct {
		name, path string
		code       int
		body       any
		want       string
	}{
		{"discovery fails", "/api/v1", http.StatusInternalServerError, nil, "asking for the resources of v1"},
		{"discovery is not ready", "/api/v1", http.StatusServiceUnavailable, nil, "asking for the resources of v1"},
		{"too many requests", "/api/v1", http.StatusTooManyRequests, nil, "asking for the resources of v1"},
		{"who is asking", "/api/v1", http.StatusUnauthorized, nil, "asking for the resources of v1"},
		{"reviews fail", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", http.StatusInternalServerError, nil, "asking whether list on pods is granted"},
		{"the authorizer fails", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", http.StatusCreated, unclear, "cannot tell: webhook: no route to host"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			api := &apiServer{serves: core(), instead: func(path string) (int, any) {
				if path == tt.path {
					return tt.code, tt.body
				}
				return 0, nil
			}}
			checker := api.checker(t)
			access := []controllers.Access{{Resource: pods, Verbs: []string{"list"}}, {Resource: widgets, Verbs: []string{"get"}}}
			report, err := checker.Check(t.Context(), access)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got error %v, want one about %q", err, tt.want)
			}
			if len(report.Results) != 0 {
				t.Errorf("got the report %v beside the error, want none", report)
			}
			if got := api.take(); len(got) > len(slices.Compact(slices.Clone(got))) {
				t.Errorf("got requests %v, want none repeated", got)
			}
			// An error is not kept.
			api.change(func() { api.instead, api.grants = nil, []string{"list pods", "get widgets"} })
			if _, err := checker.Check(t.Context(), access); err != nil {
				t.Errorf("once it answers: %v", err)
			}
		})
	}
}

func TestAnAuthorizersErrorDoesNotChangeADecision(t *testing.T) {
	for _, tt := range []struct {
		status  authorizationv1.SubjectAccessReviewStatus
		blocked bool
	}{
		{authorizationv1.SubjectAccessReviewStatus{Allowed: true, EvaluationError: "role not found"}, false},
		{authorizationv1.SubjectAccessReviewStatus{Denied: true, EvaluationError: "role not found"}, true},
		{authorizationv1.SubjectAccessReviewStatus{Reason: "RBAC: role not found"}, true},
	} {
		api := &apiServer{serves: core(), instead: func(path string) (int, any) {
			if !strings.Contains(path, "reviews") {
				return 0, nil
			}
			return http.StatusCreated, authorizationv1.SelfSubjectAccessReview{Status: tt.status}
		}}
		report, err := api.checker(t).Check(t.Context(), []controllers.Access{{Resource: pods, Verbs: []string{"list"}}})
		if err != nil {
			t.Fatal(err)
		}
		if _, blocked := report.Blocked(); blocked != tt.blocked {
			t.Errorf("%+v: got blocked %v, want %v", tt.status, blocked, tt.blocked)
		}
	}
}

func TestWhatThisUserMayNotAskCountsAsThere(t *testing.T) {
	for _, tt := range []struct {
		name, path, message string
		codes               []int
	}{
		{"discovery", "/api/v1", "May not ask which resources are served; each one counts as served", []int{http.StatusForbidden}},
		{"reviews", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", "May not ask what is granted; everything counts as granted", []int{http.StatusForbidden, http.StatusNotFound}},
	} {
		for _, code := range tt.codes {
			t.Run(fmt.Sprint(tt.name, " ", code), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					logger := ktesting.NewLogger(ktesting.NopTL{}, ktesting.NewConfig(ktesting.BufferLogs(true), ktesting.Verbosity(0)))
					ctx := klog.NewContext(t.Context(), logger)
					api := &apiServer{serves: core(), grants: []string{"list pods", "get pods/status"}, instead: func(path string) (int, any) {
						if path == tt.path {
							return code, nil
						}
						return 0, nil
					}}
					checker := api.checker(t)
					for range 3 {
						report, err := checker.Check(ctx, []controllers.Access{{Resource: pods, Verbs: []string{"list"}}, {Resource: podStatus, Verbs: []string{"get"}}})
						if err != nil {
							t.Fatal(err)
						}
						if reason, blocked := report.Blocked(); blocked {
							t.Errorf("got blocked: %s", reason)
						}
						time.Sleep(time.Minute)
					}
					lines := 0
					for _, entry := range logger.GetSink().(ktesting.Underlier).GetBuffer().Data() {
						if entry.Message == tt.message {
							lines++
						}
					}
					if lines != 1 {
						t.Errorf("got %d log lines, want 1", lines)
					}
				})
			})
		}
	}
}

func TestControllersThatCheckAtOnceShareRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := &apiServer{serves: core(), grants: []string{"list pods", "watch pods"}, slow: 100 * time.Millisecond}
		checker := api.checker(t)
		check := func() {
			report, err := checker.Check(t.Context(), []controllers.Access{{Resource: pods, Verbs: []string{"list", "watch"}}, {Resource: nodes, Verbs: []string{"get"}}})
			if err != nil {
				t.Error(err)
			}
			if !report.Has(pods) || report.Has(nodes) {
				t.Errorf("got %v", report)
			}
		}
		var controllers sync.WaitGroup
		for range 12 {
			controllers.Go(check)
		}
		controllers.Wait()
		if diff := cmp.Diff([]string{"GET /api/v1", "get nodes", "list pods", "watch pods"}, api.take()); diff != "" {
			t.Errorf("twelve controllers (-want +got):\n%s", diff)
		}

		time.Sleep(500 * time.Millisecond)
		check()
		if diff := cmp.Diff([]string{"get nodes"}, api.take()); diff != "" {
			t.Errorf("half a second later, when only a refusal may be outdated (-want +got):\n%s", diff)
		}

		time.Sleep(time.Second)
		check()
		if diff := cmp.Diff([]string{"GET /api/v1", "get nodes", "list pods", "watch pods"}, api.take()); diff != "" {
			t.Errorf("a second later (-want +got):\n%s", diff)
		}
	})
}

func TestOneWhoGivesUpLeavesTheOthersTheirAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := &apiServer{serves: core(), grants: []string{"list pods"}, slow: time.Second}
		checker := api.checker(t)
		access := []controllers.Access{{Resource: pods, Verbs: []string{"list"}}}
		impatient, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		var checks sync.WaitGroup
		checks.Go(func() {
			if _, err := checker.Check(impatient, access); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("the one whose time was up got %v, want %v", err, context.DeadlineExceeded)
			}
		})
		synctest.Wait()
		for range 3 {
			checks.Go(func() {
				if _, err := checker.Check(t.Context(), access); err != nil {
					t.Error(err)
				}
			})
		}
		checks.Wait()
		if diff := cmp.Diff([]string{"GET /api/v1", "GET /api/v1", "list pods"}, api.take()); diff != "" {
			t.Errorf("requests (-want +got):\n%s", diff)
		}
	})
}

func TestASilentAPIServerIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := &apiServer{serves: core(), slow: time.Hour}
		began := time.Now()
		_, err := api.checker(t).Check(t.Context(), []controllers.Access{{Resource: pods, Verbs: []string{"list"}}})
		if took := time.Since(began); err == nil || took != 10*time.Second {
			t.Errorf("got %v after %v, want an error after 10s", err, took)
		}
	})
}

func TestRequestsAreFewAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := &apiServer{serves: map[string][]string{}, slow: 10 * time.Millisecond}
		var access []controllers.Access
		for i := range 50 {
			group := fmt.Sprintf("g%d.example.com", i)
			api.serves[group+"/v1"] = []string{"widgets"}
			access = append(access, controllers.Access{Resource: schema.GroupVersionResource{Group: group, Version: "v1", Resource: "widgets"}, Verbs: []string{"get", "list"}})
		}
		config := &rest.Config{Host: "https://apiserver.test", Transport: api, UserAgent: "manager", QPS: 0.001, Burst: 1}
		checker, err := preflight.New(preflight.Config{REST: config})
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if _, err := checker.Check(t.Context(), access); err != nil {
			t.Fatal(err)
		}
		if api.mostAsked != 10 {
			t.Errorf("got %d requests at a time, want 10", api.mostAsked)
		}
		// 150 requests: a burst of 100, and 50 at 20 per second.
		if took := time.Since(began).Round(500 * time.Millisecond); took != 2500*time.Millisecond {
			t.Errorf("took %v, want 2.5s", took)
		}
		if diff := cmp.Diff(map[string]bool{"manager preflight": true}, api.agents); diff != "" {
			t.Errorf("user agents (-want +got):\n%s", diff)
		}
	})
}

func TestRecheckAsksOnlyAboutWhatWasMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := &apiServer{serves: core(), grants: []string{"list pods", "watch pods", "get leases a in own-ns"}}
		checker := api.checker(t)
		access := []controllers.Access{
			{Resource: pods, Verbs: []string{"list", "watch", "delete"}},
			{Resource: widgets, Verbs: []string{"list", "watch"}, Optional: true},
			{Resource: leases, Verbs: []string{"get", "update"}, Names: []string{"a", "b"}, Namespace: controllers.OwnNamespace},
			{Resource: nodes, Verbs: []string{"get"}, Optional: true},
			{Resource: podStatus, Verbs: []string{}},
		}
		report, err := checker.Check(t.Context(), access)
		if err != nil {
			t.Fatal(err)
		}
		first := report
		recheck := func() {
			t.Helper()
			time.Sleep(time.Minute)
			api.take()
			if report, err = checker.Recheck(t.Context(), access, report); err != nil {
				t.Fatal(err)
			}
		}
		// What was known is kept, even when it has gone.
		api.change(func() { api.grants = []string{"delete pods"} })
		recheck()
		if diff := cmp.Diff([]string{
			"GET /apis/example.com/v1", "delete pods",
			"get leases b in own-ns", "get nodes", "update leases a in own-ns", "update leases b in own-ns",
		}, api.take()); diff != "" {
			t.Errorf("first recheck (-want +got):\n%s", diff)
		}
		if !report.Has(pods) || report.Equal(first) {
			t.Errorf("got %v, want pods to be there now", report)
		}

		api.change(func() {
			api.serves["example.com/v1"] = []string{"widgets"}
			api.grants = append(api.grants, "list widgets", "get leases b in own-ns")
		})
		recheck()
		if diff := cmp.Diff([]string{
			"GET /apis/example.com/v1", "get leases b in own-ns", "get nodes",
			"list widgets", "update leases a in own-ns", "update leases b in own-ns", "watch widgets",
		}, api.take()); diff != "" {
			t.Errorf("the resource has appeared (-want +got):\n%s", diff)
		}
		if got, want := report.Results[2].Missing, []string{"update"}; !slices.Equal(got, want) {
			t.Errorf("got missing %v on leases, want %v", got, want)
		}

		api.change(func() {
			api.grants = append(api.grants, "watch widgets", "get nodes", "update leases in own-ns")
		})
		recheck()
		if diff := cmp.Diff([]string{
			"get nodes", "update leases a in own-ns", "update leases b in own-ns", "watch widgets",
		}, api.take()); diff != "" {
			t.Errorf("everything is there (-want +got):\n%s", diff)
		}
		if reason, blocked := report.Blocked(); blocked {
			t.Errorf("got blocked: %s", reason)
		}

		recheck()
		if got := api.take(); len(got) != 0 {
			t.Errorf("nothing is missing, but a recheck asks %v", got)
		}

		access[0].Verbs = []string{"list", "patch"}
		recheck()
		if diff := cmp.Diff([]string{"GET /api/v1", "list pods", "patch pods"}, api.take()); diff != "" {
			t.Errorf("an entry has changed (-want +got):\n%s", diff)
		}
	})
}

func TestReport(t *testing.T) {
	api := &apiServer{serves: core(), grants: []string{"list pods in a", "get nodes"}}
	checker := api.checker(t)
	check := func(access ...controllers.Access) preflight.Report {
		t.Helper()
		report, err := checker.Check(t.Context(), access)
		if err != nil {
			t.Fatal(err)
		}
		return report
	}
	inA := controllers.Access{Resource: pods, Verbs: []string{"list"}, Namespace: "a"}
	inB := controllers.Access{Resource: pods, Verbs: []string{"list"}, Namespace: "b"}
	missing := controllers.Access{Resource: widgets, Verbs: []string{"list"}}
	optional := controllers.Access{Resource: widgets, Verbs: []string{"list"}, Optional: true}

	var nothing preflight.Report
	if _, blocked := nothing.Blocked(); blocked || nothing.Has(pods) {
		t.Error("a controller that needs nothing is blocked, or has something that it has not asked for")
	}
	if report := check(inA); !report.Has(pods) || report.Has(podStatus) || report.Has(widgets) {
		t.Errorf("got %v, want pods and nothing else", report)
	}
	if check(inA, inB).Has(pods) {
		t.Error("pods count as there, but are not in one of two namespaces")
	}
	if reason, blocked := check(inA, optional).Blocked(); blocked {
		t.Errorf("blocked for want of something optional: %s", reason)
	}
	want := "widgets.example.com is not served in version v1; not granted: list on pods in namespace b; not granted: list on pods in namespace c" +
		" (the customresourcedefinition widgets.example.com is not installed, or lacks the version; the rbac subcommand prints the rules that grant it)"
	inC := inB
	inC.Namespace = "c"
	if reason, blocked := check(missing, inA, inB, inC).Blocked(); !blocked || reason != want {
		t.Errorf("got %v,\n%s\nwant\n%s", blocked, reason, want)
	}
	for _, tt := range []struct {
		name string
		a, b preflight.Report
		want bool
	}{
		{"the same", check(inA, optional), check(inA, optional), true},
		{"one blocked", check(inA), check(inB), false},
		{"blocked for another reason", check(inB), check(inC), false},
		{"optional there and not", check(controllers.Access{Resource: nodes, Verbs: []string{"get"}, Optional: true}), check(controllers.Access{Resource: nodes, Verbs: []string{"list"}, Optional: true}), false},
		{
			"optional missing in two ways",
			check(controllers.Access{Resource: nodes, Verbs: []string{"get", "list"}, Optional: true}),
			check(controllers.Access{Resource: nodes, Verbs: []string{"list", "watch"}, Optional: true}), true,
		},
	} {
		if got := tt.a.Equal(tt.b); got != tt.want || tt.b.Equal(tt.a) != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestNewRefusesWhatNoClientAccepts(t *testing.T) {
	for _, config := range []preflight.Config{{}, {REST: &rest.Config{Host: "http://a b"}}, {REST: &rest.Config{Host: "h", Username: "u", BearerToken: "t"}}} {
		if _, err := preflight.New(config); err == nil {
			t.Errorf("New(%v) returned no error", config.REST)
		}
	}
}

// Over a real connection, with a path before that of the API, as behind a proxy, and
// with a configuration for protobuf.
func TestCheckOverTheNetwork(t *testing.T) {
	api := &apiServer{serves: core(), grants: []string{"list pods"}}
	server := httptest.NewServer(http.StripPrefix("/clusters/one", api))
	defer server.Close()
	config := &rest.Config{Host: server.URL + "/clusters/one", Transport: server.Client().Transport, ContentConfig: rest.ContentConfig{ContentType: "application/vnd.kubernetes.protobuf"}}
	before := rest.CopyConfig(config)
	checker, err := preflight.New(preflight.Config{REST: config})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, config, cmpopts.IgnoreUnexported(rest.Config{}), cmpopts.IgnoreFields(rest.Config{}, "Transport")); diff != "" {
		t.Errorf("the configuration was changed (-before +after):\n%s", diff)
	}
	report, err := checker.Check(t.Context(), []controllers.Access{{Resource: pods, Verbs: []string{"list"}}})
	if err != nil {
		t.Fatal(err)
	}
	if reason, blocked := report.Blocked(); blocked {
		t.Error(reason)
	}
	server.Close()
	if _, err := checker.Recheck(t.Context(), []controllers.Access{{Resource: podStatus, Verbs: []string{"get"}}, {Resource: leases, Verbs: []string{"get"}}}, report); err == nil {
		t.Error("an API server that is away gave no error")
	}
}
