// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package configrollout

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/incumbent-io/incumbent/pkg/controllers"
)

func TestOptionsValidate(t *testing.T) {
	seconds := func(n time.Duration) metav1.Duration { return metav1.Duration{Duration: n * time.Second} }
	for _, test := range []struct {
		name   string
		change func(*Options)
		want   []string // one per error, each a list of what it must contain, separated by |
	}{
		{"the defaults", func(*Options) {}, nil},
		{"at once", func(o *Options) { o.QuietPeriod, o.MaxDelay = seconds(0), seconds(0) }, nil},
		{"negative quiet period", func(o *Options) { o.QuietPeriod = seconds(-1) }, []string{"quietPeriod|-1s|0s to 24h|for example 5s"}},
		{"long quiet period", func(o *Options) { o.QuietPeriod, o.MaxDelay = seconds(100000), seconds(100000) }, []string{"quietPeriod|24h", "maxDelay|24h"}},
		{"delay shorter than quiet", func(o *Options) { o.MaxDelay = seconds(1) }, []string{"maxDelay|1s|quietPeriod|5s"}},
		{"no workers", func(o *Options) { o.Workers = 0 }, []string{"workers|0|1 to 100"}},
		{"all mistakes at once", func(o *Options) { o.QuietPeriod, o.MaxDelay, o.Workers = seconds(-1), seconds(-1), 101 }, []string{"quietPeriod", "maxDelay", "workers"}},
	} {
		options := defaults()
		test.change(options)
		errs := options.Validate(field.NewPath("controllers", Name))
		if len(errs) != len(test.want) {
			t.Errorf("%s: errors %v, want %d", test.name, errs, len(test.want))
			continue
		}
		for i, want := range test.want {
			for part := range strings.SplitSeq(want, "|") {
				if !strings.Contains(errs[i].Error(), part) {
					t.Errorf("%s: error %d is %q, want %q in it", test.name, i, errs[i], part)
				}
			}
		}
	}
}

func TestOptionsFromFlagsAndFile(t *testing.T) {
	options := defaults()
	if err := json.Unmarshal([]byte(`{"secrets": true, "quietPeriod": "2s", "maxDelay": "3m", "workers": 7}`), options); err != nil {
		t.Fatal(err)
	}
	flags := pflag.NewFlagSet(t.Name(), pflag.ContinueOnError)
	options.AddFlags(flags)
	if err := flags.Parse([]string{"--quiet-period=1s", "--workers=8"}); err != nil {
		t.Fatal(err)
	}
	want := &Options{Secrets: true, QuietPeriod: metav1.Duration{Duration: time.Second}, MaxDelay: metav1.Duration{Duration: 3 * time.Minute}, Workers: 8}
	if diff := cmp.Diff(want, options); diff != "" {
		t.Errorf("options differ (-want +got):\n%s", diff)
	}
}

func TestAccessToSecretsIsAskedForOnlyIfTheyAreWatched(t *testing.T) {
	registration, ok := controllers.NewRegistry(Descriptor()).Lookup("config-rollout")
	if !ok {
		t.Fatal("not registered as config-rollout")
	}
	if !registration.Info().DisabledByDefault {
		t.Error("enabled by default, though it may write to all workloads")
	}
	configured := registration.Configure()
	var got []string
	note := func() {
		got = nil
		for _, a := range configured.Access() {
			got = append(got, strings.TrimSpace(strings.Join(append([]string{a.Namespace, a.Resource.Resource}, a.Rule().Verbs...), " ")))
		}
	}
	want := []string{
		"configmaps get list watch", "deployments get list patch watch", "statefulsets get list patch watch", "daemonsets get list patch watch",
	}
	note()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("by default (-want +got):\n%s", diff)
	}
	configured.Options.(*Options).Secrets = true
	note()
	if diff := cmp.Diff(append(want, "secrets get list watch", controllers.OwnNamespace+" secrets create"), got); diff != "" {
		t.Errorf("with Secrets (-want +got):\n%s", diff)
	}
}
