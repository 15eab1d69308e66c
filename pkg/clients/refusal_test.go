// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package clients_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/incumbent-io/incumbent/pkg/clients"
)

func TestSetTellsOfRefusals(t *testing.T) {
	const status = `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404}`
	for name, tc := range map[string]struct {
		code        int
		contentType string
		body        string
		want        int
	}{
		"forbidden":                 {403, "application/json", `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","code":403}`, 1},
		"not served":                {404, "text/plain; charset=utf-8", "404 page not found", 1},
		"the object is not there":   {404, "application/json", status, 0},
		"the same, in protobuf":     {404, "application/vnd.kubernetes.protobuf", "", 0},
		"the server has a bad time": {500, "text/plain", "oh", 0},
		"granted":                   {200, "application/json", `{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a"}}`, 0},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", tc.contentType)
				w.WriteHeader(tc.code)
				_, _ = w.Write([]byte(tc.body))
			}))
			defer server.Close()
			told := 0
			set, err := clients.NewSet(clients.SetConfig{REST: &rest.Config{Host: server.URL}, OnRefused: func() { told++ }})
			if err != nil {
				t.Fatal(err)
			}
			_, _ = set.Kubernetes().CoreV1().ConfigMaps("ns").Get(t.Context(), "a", metav1.GetOptions{})
			if told != tc.want {
				t.Errorf("told: got %d, want %d", told, tc.want)
			}
		})
	}
}
