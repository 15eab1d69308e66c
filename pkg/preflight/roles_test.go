// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package preflight_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/incumbent-io/incumbent/pkg/controllers"
	"github.com/incumbent-io/incumbent/pkg/preflight"
)

var (
	configMaps = schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}
	events     = schema.GroupVersionResource{Group: "events.k8s.io", Version: "v1", Resource: "events"}

	incumbent = preflight.RolesConfig{Name: "incumbent", Namespace: "incumbent-system", ServiceAccount: "incumbent"}
)

// shippedNeeds are what the manager needs with the flags of manifests/base.
func shippedNeeds() []preflight.Need {
	return []preflight.Need{
		{Owner: "leader election", Access: controllers.Access{Resource: leases, Verbs: []string{"create", "get", "list", "watch", "update"}, Names: []string{"incumbent"}, Namespace: controllers.OwnNamespace}},
		{Owner: "events", Access: controllers.Access{Resource: events, Verbs: []string{"create", "patch"}}},
		{Owner: "leader-label", Access: controllers.Access{Resource: pods, Verbs: []string{"list", "watch", "patch"}, Namespace: controllers.OwnNamespace}},
		{Owner: "object-ttl", Access: controllers.Access{Resource: configMaps, Verbs: []string{"list", "watch", "delete"}}},
	}
}

func TestPrintedRolesReadWell(t *testing.T) {
	needs := append(shippedNeeds(),
		preflight.Need{Owner: "quota", Access: controllers.Access{Resource: configMaps, Verbs: []string{"watch", "get"}}},
		preflight.Need{Owner: "quota", Access: controllers.Access{Resource: widgets, Verbs: []string{"get"}, Optional: true}},
		preflight.Need{Owner: "quota", Access: controllers.Access{Resource: pods, Verbs: []string{"get"}, Names: []string{"null", "a"}, Namespace: "shop"}},
		preflight.Need{Owner: "nothing", Access: controllers.Access{Resource: nodes, Namespace: "nowhere"}},
	)
	grants, err := preflight.Roles(incumbent, needs)
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	if err := grants.Print(&got); err != nil {
		t.Fatal(err)
	}
	const want = `apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: incumbent
  namespace: incumbent-system
rules:
  # leader-label
  - apiGroups: [""]
    resources: [pods]
    verbs: [list, patch, watch]
  # leader election
  - apiGroups: [coordination.k8s.io]
    resources: [leases]
    verbs: [create]
  # leader election
  - apiGroups: [coordination.k8s.io]
    resourceNames: [incumbent]
    resources: [leases]
    verbs: [get, list, update, watch]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: incumbent
  namespace: incumbent-system
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: incumbent
subjects:
  - kind: ServiceAccount
    name: incumbent
    namespace: incumbent-system
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: incumbent
  namespace: shop
rules:
  # quota
  - apiGroups: [""]
    resourceNames: [a, "null"]
    resources: [pods]
    verbs: [get]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: incumbent
  namespace: shop
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: incumbent
subjects:
  - kind: ServiceAccount
    name: incumbent
    namespace: incumbent-system
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: incumbent
rules:
  # object-ttl, quota
  - apiGroups: [""]
    resources: [configmaps]
    verbs: [delete, get, list, watch]
  # events
  - apiGroups: [events.k8s.io]
    resources: [events]
    verbs: [create, patch]
  # quota (optional)
  - apiGroups: [example.com]
    resources: [widgets]
    verbs: [get]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: incumbent
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: ClusterRole
  name: incumbent
subjects:
  - kind: ServiceAccount
    name: incumbent
    namespace: incumbent-system
`
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(grants.Objects(), decode(t, []byte(got.String()))); diff != "" {
		t.Errorf("the text says something else than Objects (-objects +text):\n%s", diff)
	}
}

// decode reads documents strictly, as kubectl apply does.
func decode(t *testing.T, text []byte) (objects []runtime.Object) {
	t.Helper()
	decoder := serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict).UniversalDeserializer()
	for _, document := range bytes.Split(text, []byte("\n---\n")) {
		object, kind, err := decoder.Decode(document, nil, nil)
		if err != nil {
			t.Fatalf("%v in\n%s", err, document)
		}
		object.GetObjectKind().SetGroupVersionKind(*kind)
		objects = append(objects, object)
	}
	return objects
}

// A naive model of RBAC: what is granted is what is needed, and the order of the needs
// makes no difference.
func TestRolesGrantTheSumOfTheNeeds(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	pick := func(from ...string) []string {
		random.Shuffle(len(from), func(i, j int) { from[i], from[j] = from[j], from[i] })
		return from[:random.IntN(len(from)+1)]
	}
	resources := []schema.GroupVersionResource{pods, podStatus, configMaps, leases, widgets}
	for range 500 {
		var needs []preflight.Need
		for range random.IntN(8) {
			needs = append(needs, preflight.Need{Owner: "c" + string(rune('0'+random.IntN(3))), Access: controllers.Access{
				Resource:  resources[random.IntN(len(resources))],
				Verbs:     append(pick("get", "list", "create", "deletecollection"), "watch"),
				Names:     pick("a", "b"),
				Namespace: []string{"", controllers.OwnNamespace, "incumbent-system", "shop"}[random.IntN(4)],
			}})
		}
		grants, err := preflight.Roles(incumbent, needs)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(needed(needs), granted(grants.Objects())); diff != "" {
			t.Fatalf("for %v (-needed +granted):\n%s", needs, diff)
		}
		random.Shuffle(len(needs), func(i, j int) { needs[i], needs[j] = needs[j], needs[i] })
		again, err := preflight.Roles(incumbent, needs)
		if err != nil {
			t.Fatal(err)
		}
		var one, other strings.Builder
		if err := errors.Join(grants.Print(&one), again.Print(&other)); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(one.String(), other.String()); diff != "" {
			t.Fatalf("another order of the needs makes another text:\n%s", diff)
		}
	}
}

type permission struct{ Namespace, Group, Resource, Verb, Name string }

func needed(needs []preflight.Need) map[permission]bool {
	all := map[permission]bool{}
	for _, need := range needs {
		a := need.Access
		for _, verb := range a.Verbs {
			names := a.Names
			if len(names) == 0 || verb == "deletecollection" || verb == "create" && a.Resource != podStatus {
				names = []string{"*"}
			}
			for _, name := range names {
				namespace := strings.Replace(a.Namespace, controllers.OwnNamespace, "incumbent-system", 1)
				all[permission{namespace, a.Resource.Group, a.Resource.Resource, verb, name}] = true
			}
		}
	}
	return all
}

func granted(objects []runtime.Object) map[permission]bool {
	all := map[permission]bool{}
	grant := func(namespace string, rules []rbacv1.PolicyRule) {
		for _, rule := range rules {
			for _, verb := range rule.Verbs {
				names := rule.ResourceNames
				if len(names) == 0 {
					names = []string{"*"}
				}
				for _, name := range names {
					all[permission{namespace, rule.APIGroups[0], rule.Resources[0], verb, name}] = true
				}
			}
		}
	}
	for _, object := range objects {
		switch object := object.(type) {
		case *rbacv1.Role:
			grant(object.Namespace, object.Rules)
		case *rbacv1.ClusterRole:
			grant("", object.Rules)
		}
	}
	return all
}

func TestRolesNameAllThatIsMissing(t *testing.T) {
	_, err := preflight.Roles(preflight.RolesConfig{}, nil)
	if err == nil {
		t.Fatal("got no error")
	}
	for _, field := range []string{"name", "namespace", "serviceAccount"} {
		if !strings.Contains(err.Error(), field+": Required") {
			t.Errorf("got %v, want it to name %s", err, field)
		}
	}
}

func TestPrintReportsAFailedWrite(t *testing.T) {
	grants, err := preflight.Roles(incumbent, shippedNeeds())
	if err != nil {
		t.Fatal(err)
	}
	if err := grants.Print(failing{}); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("got %v, want %v", err, io.ErrShortWrite)
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, io.ErrShortWrite }

func TestTable(t *testing.T) {
	api := &apiServer{serves: core(), grants: []string{"list pods in own-ns", "watch pods in own-ns", "get leases a"}}
	checker := api.checker(t)
	check := func(access ...controllers.Access) preflight.Report {
		report, err := checker.Check(t.Context(), access)
		if err != nil {
			t.Fatal(err)
		}
		return report
	}
	rows := slices.Concat(
		preflight.Rows("leader-label", check(controllers.Access{Resource: pods, Verbs: []string{"list", "watch"}, Namespace: controllers.OwnNamespace})),
		preflight.Rows("quota", check(
			controllers.Access{Resource: leases, Verbs: []string{"get", "update"}, Names: []string{"a", "b"}},
			controllers.Access{Resource: widgets, Verbs: []string{"list"}, Optional: true},
		)),
	)
	var got strings.Builder
	if err := preflight.Table(&got, rows); err != nil {
		t.Fatal(err)
	}
	const want = `CONTROLLER     RESOURCE                               VERBS        NAMESPACE   RESULT
leader-label   v1 pods                                list,watch   own-ns      ok
quota          coordination.k8s.io/v1 leases (a, b)   get,update   (all)       missing: get, update
quota          example.com/v1 widgets                 list         (all)       optional, missing: not served

quota: not granted: update on leases.coordination.k8s.io "a" and get, update on leases.coordination.k8s.io "b" in all namespaces (the rbac subcommand prints the rules that grant it)
quota: widgets.example.com is not served in version v1 (the customresourcedefinition widgets.example.com is not installed, or lacks the version)
`
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}

	asJSON, err := json.Marshal(rows[1:])
	if err != nil {
		t.Fatal(err)
	}
	const wantJSON = `[{"controller":"quota","group":"coordination.k8s.io","version":"v1","resource":"leases","verbs":["get","update"],"names":["a","b"],"optional":false,"served":true,"missing":["get","update"],` +
		`"reason":"not granted: update on leases.coordination.k8s.io \"a\" and get, update on leases.coordination.k8s.io \"b\" in all namespaces (the rbac subcommand prints the rules that grant it)"},` +
		`{"controller":"quota","group":"example.com","version":"v1","resource":"widgets","verbs":["list"],"optional":true,"served":false,"missing":["list"],` +
		`"reason":"widgets.example.com is not served in version v1 (the customresourcedefinition widgets.example.com is not installed, or lacks the version)"}]`
	if diff := cmp.Diff(wantJSON, string(asJSON)); diff != "" {
		t.Errorf("JSON (-want +got):\n%s", diff)
	}
	if err := preflight.Table(failing{}, rows); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("a failed write gave %v", err)
	}
}
