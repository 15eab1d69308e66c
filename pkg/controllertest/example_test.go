// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package controllertest_test

import (
	"fmt"
	"testing"
	"testing/synctest"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/incumbent-io/incumbent/pkg/controllertest"
)

// The shortest test of a small controller. In a bubble, Settle is exact and waiting
// costs nothing.
func testGreeter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := controllertest.Run(t, greeter(), controllertest.Config{})
		_, err := h.Kubernetes.CoreV1().ConfigMaps("default").Create(t.Context(), configMap("default", "a"), metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		h.Settle()
		if got, want := fmt.Sprint(h.Events()), "[Normal Greeted ConfigMap default/a: Hello, a]"; got != want {
			t.Errorf("events: got %s, want %s", got, want)
		}
	})
}

func Example() {
	tests := []testing.InternalTest{{Name: "TestGreeter", F: testGreeter}}
	fmt.Println(len(tests), "test")
	// Output: 1 test
}
