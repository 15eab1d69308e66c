// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package preflight_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/incumbent-io/incumbent/pkg/controllers"
	"github.com/incumbent-io/incumbent/pkg/preflight"
)

var (
	pods    = schema.GroupVersionResource{Version: "v1", Resource: "pods"}
	status  = schema.GroupVersionResource{Version: "v1", Resource: "pods/status"}
	widgets = schema.GroupVersionResource{Group: "example.com", Version: "v1", Resource: "widgets"}
)

// apiServer answers discovery and reviews.
type apiServer struct {
	mu       sync.Mutex
	served   map[string][]string // path -> resources
	granted  map[string]bool     // "verb group/resource/sub namespace name"
	code     int                 // of every answer, if not 0
	requests []string
}

func (s *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	if s.code != 0 {
		http.Error(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","code":500}`, s.code)
		return
	}
	if r.Method == http.MethodPost {
		var review authorizationv1.SelfSubjectAccessReview
		_ = json.NewDecoder(r.Body).Decode(&review)
		a := review.Spec.ResourceAttributes
		key := strings.Join([]string{a.Verb, a.Group + "/" + a.Resource + "/" + a.Subresource, a.Namespace, a.Name}, " ")
		s.requests = append(s.requests, key)
		review.APIVersion, review.Kind = "authorization.k8s.io/v1", "SelfSubjectAccessReview"
		review.Status.Allowed = s.granted[key]
		_ = json.NewEncoder(w).Encode(review)
		return
	}
	s.requests = append(s.requests, r.URL.Path)
	resources, ok := s.served[r.URL.Path]
	if !ok {
		http.NotFound(w, r)
		return
	}
	list := metav1.APIResourceList{TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}}
	for _, name := range resources {
		list.APIResources = append(list.APIResources, metav1.APIResource{Name: name})
	}
	_ = json.NewEncoder(w).Encode(list)
}

func (s *apiServer) set(edit func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	edit()
}

func start(t *testing.T, s *apiServer) (*preflight.Checker, *clocktesting.FakePassiveClock) {
	t.Helper()
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	clock := clocktesting.NewFakePassiveClock(time.Now())
	c, err := preflight.New(preflight.Config{
		REST:         &rest.Config{Host: server.URL, ContentConfig: rest.ContentConfig{ContentType: "application/json"}},
		OwnNamespace: "system", Clock: clock,
	})
	if err != nil {
		t.Fatal(err)
	}
	return c, clock
}

func TestCheckNamesWhatIsMissing(t *testing.T) {
	s := &apiServer{
		served: map[string][]string{"/api/v1": {"pods", "pods/status"}},
		granted: map[string]bool{
			"get /pods/  ": true, "list /pods/  ": true, "update /pods/status  ": true,
			"get /pods/ system ": true, "get /pods/  a": true,
		},
	}
	for name, tc := range map[string]struct {
		access []controllers.Access
		want   string
	}{
		"all there":        {[]controllers.Access{{Resource: pods, Verbs: []string{"list", "get"}}, {Resource: status, Verbs: []string{"update"}}}, ""},
		"not served":       {[]controllers.Access{{Resource: widgets, Verbs: []string{"get"}}}, "the API server does not serve widgets.example.com/v1"},
		"not granted":      {[]controllers.Access{{Resource: pods, Verbs: []string{"watch", "list", "delete"}}}, "not granted: delete, watch on pods/v1"},
		"own namespace":    {[]controllers.Access{{Resource: pods, Verbs: []string{"get", "patch"}, Namespace: controllers.OwnNamespace}}, "not granted: patch on pods/v1 in the namespace system"},
		"one of two names": {[]controllers.Access{{Resource: pods, Verbs: []string{"get"}, Names: []string{"a", "b"}}}, "not granted: get on pods/v1 named a, b"},
		"optional":         {[]controllers.Access{{Resource: widgets, Verbs: []string{"get"}, Optional: true}}, ""},
		"nothing declared": {nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			c, _ := start(t, s)
			report, err := c.Check(t.Context(), tc.access)
			if err != nil {
				t.Fatal(err)
			}
			if got := report.Missing(); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestRecheckAsksOnlyForWhatIsMissing(t *testing.T) {
	s := &apiServer{served: map[string][]string{"/api/v1": {"pods"}}, granted: map[string]bool{"get /pods/  ": true}}
	c, clock := start(t, s)
	report, err := c.Check(t.Context(), []controllers.Access{
		{Resource: pods, Verbs: []string{"get", "watch"}},
		{Resource: widgets, Verbs: []string{"list"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	clock.SetTime(clock.Now().Add(time.Minute))
	s.set(func() {
		s.requests = nil
		s.granted["watch /pods/  "] = true
		s.granted["list example.com/widgets/  "] = true
		s.served["/apis/example.com/v1"] = []string{"widgets"}
	})
	if report, err = c.Recheck(t.Context(), report); err != nil || !report.Complete() {
		t.Errorf("got %v (%v), want everything there", report, err)
	}
	s.set(func() {
		if len(s.requests) != 4 {
			t.Errorf("got the requests %q, want two discoveries and two reviews", s.requests)
		}
		s.requests = nil
	})
	clock.SetTime(clock.Now().Add(time.Minute))
	if _, err := c.Recheck(t.Context(), report); err != nil {
		t.Error(err)
	}
	s.set(func() {
		if len(s.requests) > 0 {
			t.Errorf("got the requests %q although nothing is missing", s.requests)
		}
	})
}

func TestEqualQuestionsAreAskedOnce(t *testing.T) {
	s := &apiServer{served: map[string][]string{"/api/v1": {"pods"}}, granted: map[string]bool{"get /pods/  ": true}}
	c, _ := start(t, s)
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if report, err := c.Check(t.Context(), []controllers.Access{{Resource: pods, Verbs: []string{"get"}}}); err != nil || !report.Complete() {
				t.Errorf("got %v (%v)", report, err)
			}
		})
	}
	all.Wait()
	s.set(func() {
		if diff := cmp.Diff([]string{"/api/v1", "get /pods/  "}, s.requests); diff != "" {
			t.Errorf("requests (-want +got):\n%s", diff)
		}
	})
}

func TestWhatCannotBeFoundOutIsAnError(t *testing.T) {
	s := &apiServer{code: http.StatusInternalServerError}
	c, _ := start(t, s)
	if report, err := c.Check(t.Context(), []controllers.Access{{Resource: pods, Verbs: []string{"get"}}}); err == nil {
		t.Errorf("got %v, want an error", report)
	}
	s.set(func() {
		s.code, s.served, s.granted = 0, map[string][]string{"/api/v1": {"pods"}}, map[string]bool{"get /pods/  ": true}
	})
	if report, err := c.Check(t.Context(), []controllers.Access{{Resource: pods, Verbs: []string{"get"}}}); err != nil || !report.Complete() {
		t.Errorf("right after the failure: got %v (%v), want everything there", report, err)
	}
}

// ExamplePrintRoles prints the RBAC of two controllers that read the same resource.
func ExamplePrintRoles() {
	_ = preflight.PrintRoles(os.Stdout, preflight.RolesConfig{Name: "fleet", Namespace: "fleet-system", ServiceAccount: "fleet"}, []preflight.Need{
		{Owner: "quota", Access: controllers.Access{Resource: pods, Verbs: []string{"list", "watch"}}},
		{Owner: "drain", Access: controllers.Access{Resource: pods, Verbs: []string{"watch", "delete"}}},
	})
	// Output:
	// apiVersion: rbac.authorization.k8s.io/v1
	// kind: ClusterRole
	// metadata:
	//   name: fleet
	// rules:
	//   # drain, quota
	//   - apiGroups:
	//     - ""
	//     resources:
	//     - pods
	//     verbs:
	//     - delete
	//     - list
	//     - watch
	// ---
	// apiVersion: rbac.authorization.k8s.io/v1
	// kind: ClusterRoleBinding
	// metadata:
	//   name: fleet
	// roleRef:
	//   apiGroup: rbac.authorization.k8s.io
	//   kind: ClusterRole
	//   name: fleet
	// subjects:
	//   - kind: ServiceAccount
	//     name: fleet
	//     namespace: fleet-system
}
