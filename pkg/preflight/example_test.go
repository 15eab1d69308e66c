// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package preflight_test

import (
	"context"
	"fmt"
	"os"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"

	"github.com/incumbent-io/incumbent/pkg/controllers"
	"github.com/incumbent-io/incumbent/pkg/preflight"
)

// The API server of this example knows no widgets.
func Example() {
	api := &apiServer{serves: map[string][]string{"v1": {"pods"}}, grants: []string{"list pods", "watch pods"}}
	checker, err := preflight.New(preflight.Config{REST: &rest.Config{Host: "https://apiserver.test", Transport: api}})
	if err != nil {
		panic(err)
	}
	access := []controllers.Access{
		{Resource: schema.GroupVersionResource{Version: "v1", Resource: "pods"}, Verbs: []string{"list", "watch"}},
		{Resource: schema.GroupVersionResource{Group: "example.com", Version: "v1", Resource: "widgets"}, Verbs: []string{"list"}},
	}
	report, err := checker.Check(context.Background(), access)
	if err != nil {
		panic(err)
	}
	fmt.Println(report.Blocked())
	if err := preflight.Table(os.Stdout, preflight.Rows("quota", report)); err != nil {
		panic(err)
	}
	// Output:
	// widgets.example.com is not served in version v1 (the customresourcedefinition widgets.example.com is not installed, or lacks the version) true
	// CONTROLLER   RESOURCE                 VERBS        NAMESPACE   RESULT
	// quota        v1 pods                  list,watch   (all)       ok
	// quota        example.com/v1 widgets   list         (all)       missing: not served
	//
	// quota: widgets.example.com is not served in version v1 (the customresourcedefinition widgets.example.com is not installed, or lacks the version)
}

func ExampleRoles() {
	pods := schema.GroupVersionResource{Version: "v1", Resource: "pods"}
	grants, err := preflight.Roles(
		preflight.RolesConfig{Name: "fleet", Namespace: "fleet-system", ServiceAccount: "fleet"},
		[]preflight.Need{
			{Owner: "quota", Access: controllers.Access{Resource: pods, Verbs: []string{"list", "watch"}}},
			{Owner: "drain", Access: controllers.Access{Resource: pods, Verbs: []string{"delete", "list", "watch"}}},
		},
	)
	if err != nil {
		panic(err)
	}
	if err := grants.Print(os.Stdout); err != nil {
		panic(err)
	}
	// Output:
	// apiVersion: rbac.authorization.k8s.io/v1
	// kind: ClusterRole
	// metadata:
	//   name: fleet
	// rules:
	//   # drain, quota
	//   - apiGroups: [""]
	//     resources: [pods]
	//     verbs: [delete, list, watch]
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
