// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package objectttl

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/incumbent-io/incumbent/pkg/controllers"
)

func TestOptionsValidate(t *testing.T) {
	for _, test := range []struct {
		name      string
		resources []string
		workers   int      // 0: the default
		want      []string // one per error, each a list of what it must contain, separated by |
	}{
		{name: "the default", resources: []string{"v1/configmaps"}},
		{name: "several", resources: []string{"v1/configmaps", "apps/v1/deployments", "stable.example.com/v1beta1/crontabs", "example.com/latest/things"}},
		{name: "most workers", resources: []string{"v1/pods"}, workers: 100},

		{name: "empty list", resources: []string{}, want: []string{"resources: Required|v1/configmaps|-object-ttl"}},
		{name: "no workers", resources: []string{"v1/pods"}, workers: -1, want: []string{"workers|-1|1 to 100|for example 2"}},
		{name: "too many workers", resources: []string{"v1/pods"}, workers: 101, want: []string{"workers|101|1 to 100"}},
		{name: "only a resource", resources: []string{"configmaps"}, want: []string{`resources[0]|"configmaps"|GROUP/VERSION/RESOURCE|v1/configmaps`}},
		{name: "without a version", resources: []string{"apps/deployments"}, want: []string{`"apps/deployments"|GROUP/VERSION/RESOURCE|apps/v1/deployments`}},
		{name: "empty", resources: []string{""}, want: []string{`""|GROUP/VERSION/RESOURCE`}},
		{name: "empty part", resources: []string{"v1/"}, want: []string{`"v1/"|GROUP/VERSION/RESOURCE`}},
		{name: "empty group", resources: []string{"/v1/configmaps"}, want: []string{`"/v1/configmaps"|v1/configmaps`}},
		{name: "a kind", resources: []string{"v1/ConfigMap"}, want: []string{`"v1/ConfigMap"|lower-case plural|configmaps`}},
		{name: "a space", resources: []string{"v1/configmaps "}, want: []string{`lower-case plural`}},
		{name: "subresource of the core group", resources: []string{"v1/pods/status"}, want: []string{`"v1/pods/status"|subresource`}},
		{name: "subresource", resources: []string{"apps/v1/deployments/scale"}, want: []string{`"apps/v1/deployments/scale"|subresource`}},
		{name: "leases", resources: []string{"coordination.k8s.io/v1/leases"}, want: []string{`"coordination.k8s.io/v1/leases"|refused|who leads`}},
		{name: "core events", resources: []string{"v1/events"}, want: []string{`"v1/events"|refused|--event-ttl`}},
		{name: "events", resources: []string{"events.k8s.io/v1/events"}, want: []string{`refused|--event-ttl`}},
		{name: "duplicate", resources: []string{"v1/pods", "v1/configmaps", "v1/pods"}, want: []string{`resources[2]: Duplicate|"v1/pods"|resources[0]`}},
		{name: "two versions of one resource", resources: []string{"apps/v1/deployments", "apps/v1beta1/deployments"}, want: []string{`resources[1]: Duplicate|apps/v1beta1/deployments|"apps/v1/deployments"`}},
		{name: "all mistakes at once", resources: []string{"x", "v1/events", "v1/pods", "v1/pods"}, workers: -1, want: []string{"resources[0]", "resources[1]", "resources[3]", "workers"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			options := defaults()
			options.Resources = test.resources
			if test.workers != 0 {
				options.Workers = test.workers
			}
			for _, gvr := range options.resourceVersions() {
				if len(test.want) == 0 && !slices.Contains(test.resources, written(gvr)) {
					t.Errorf("parsed as %q, want one of %q", written(gvr), test.resources)
				}
			}
			errs := options.Validate(field.NewPath("controllers", Name))
			if len(errs) != len(test.want) {
				t.Fatalf("errors %v, want %d", errs, len(test.want))
			}
			for i, want := range test.want {
				for part := range strings.SplitSeq(want, "|") {
					if !strings.Contains(errs[i].Error(), part) {
						t.Errorf("error %d is %q, want %q in it", i, errs[i], part)
					}
				}
			}
		})
	}
}

func TestOptionsFromFlagsAndFile(t *testing.T) {
	options := defaults()
	if err := json.Unmarshal([]byte(`{"resources": ["v1/pods"], "workers": 3}`), options); err != nil {
		t.Fatal(err)
	}
	flags := pflag.NewFlagSet(t.Name(), pflag.ContinueOnError)
	options.AddFlags(flags)
	if err := flags.Parse([]string{"--resources=v1/configmaps,apps/v1/deployments"}); err != nil {
		t.Fatal(err)
	}
	want := &Options{Resources: []string{"v1/configmaps", "apps/v1/deployments"}, Workers: 3}
	if diff := cmp.Diff(want, options); diff != "" {
		t.Errorf("options differ (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"v1/configmaps"}, defaults().Resources); diff != "" {
		t.Errorf("defaults were changed by another value's flags (-want +got):\n%s", diff)
	}
}

func TestDescriptor(t *testing.T) {
	registry := controllers.NewRegistry(Descriptor())
	registration, ok := registry.Lookup("object-ttl")
	if !ok {
		t.Fatalf("registered as %v, want object-ttl", registry.Names())
	}
	configured := registration.Configure()
	if errs := configured.Options.Validate(field.NewPath("controllers", Name)); len(errs) > 0 {
		t.Errorf("the defaults are invalid: %v", errs)
	}
	configured.Options.(*Options).Resources = []string{"v1/configmaps", "apps/v1/deployments"}
	verbs := []string{"list", "watch", "delete"}
	want := []controllers.Access{
		{Resource: schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}, Verbs: verbs, Optional: true},
		{Resource: schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}, Verbs: verbs, Optional: true},
	}
	if diff := cmp.Diff(want, configured.Access()); diff != "" {
		t.Errorf("access differs (-want +got):\n%s", diff)
	}
	configured.Options.(*Options).Resources = []string{"v1/configmaps"}
	want = []controllers.Access{{Resource: schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}, Verbs: verbs}}
	if diff := cmp.Diff(want, configured.Access()); diff != "" {
		t.Errorf("access to a single resource differs (-want +got):\n%s", diff)
	}
}
