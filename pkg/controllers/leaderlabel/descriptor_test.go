// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package leaderlabel

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/incumbent-io/incumbent/pkg/controllers"
)

func TestDescriptor(t *testing.T) {
	registration, ok := controllers.NewRegistry(Descriptor()).Lookup("leader-label")
	if !ok {
		t.Fatal("not registered as leader-label")
	}
	want := []controllers.Access{{Resource: pods, Verbs: []string{"list", "watch", "patch"}, Namespace: controllers.OwnNamespace}}
	if diff := cmp.Diff(want, registration.Configure().Access()); diff != "" {
		t.Errorf("access differs (-want +got):\n%s", diff)
	}
}

func TestSkippedWithReason(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*controllers.Instance)
		want   []string
	}{
		{"no Pod", func(i *controllers.Instance) { i.PodName, i.PodNamespace, i.PodUID = "", "", "" }, []string{"POD_NAME, POD_NAMESPACE, POD_UID"}},
		{"no UID", func(i *controllers.Instance) { i.PodUID = "" }, []string{"lacks POD_UID "}},
		{"no election", func(i *controllers.Instance) { i.Lease, i.LeaseNamespace = "", "" }, []string{"--leader-elect=false"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			changed := instance
			test.change(&changed)
			_, err := Descriptor().Configure().Init(context.Background(), &controllers.Context{Instance: changed})
			reason, skipped := controllers.SkipReason(err)
			if !skipped {
				t.Fatalf("Init returned %v, want a skip", err)
			}
			for _, want := range test.want {
				if !strings.Contains(reason, want) {
					t.Errorf("reason %q, want %q in it", reason, want)
				}
			}
		})
	}
}
