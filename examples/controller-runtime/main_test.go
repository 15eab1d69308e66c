// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package main

import (
	"os"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/incumbent-io/incumbent/pkg/controllers"
	"github.com/incumbent-io/incumbent/pkg/manager"
	"github.com/incumbent-io/incumbent/test/cluster"

	"example.com/welcome-manager/hosted"
)

// asManager in the environment makes this test program the manager under test: the
// example's controller, and one beside it that gets into trouble when it is asked to.
const asManager = "TEST_AS_MANAGER"

// shared is the local cluster of all tests.
var shared *cluster.Cluster

func TestMain(m *testing.M) {
	if os.Getenv(asManager) != "" {
		ctrl.SetLogger(klog.Background())
		os.Exit(manager.Main("trial-manager", controllers.NewRegistry(newWelcome(), newTrial())))
	}
	os.Exit(cluster.Main(cluster.Config{}, func(c *cluster.Cluster) int {
		shared = c
		return m.Run()
	}))
}

func newTrial() controllers.Registration {
	configMaps := schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}
	return hosted.Controller{
		Name:    "trial",
		Summary: "Gets into trouble when a ConfigMap asks for it.",
		Access:  []controllers.Access{{Resource: configMaps, Verbs: []string{"list", "watch", "patch"}}},
		Setup:   setUpTrial,
	}.Descriptor()
}
