// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package configpropagation

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func TestOptionsTellEveryMistake(t *testing.T) {
	for _, tt := range []struct {
		name    string
		options Options
		want    []string
	}{
		{"defaults", *defaults(), nil},
		{"all", Options{Secrets: true, SourceNamespaces: []string{"platform", "shared"}, Workers: 100}, nil},
		{"everything wrong", Options{SourceNamespaces: []string{"Platform", "a", "a"}, Workers: 101}, []string{
			`o.sourceNamespaces[0]: Invalid value: "Platform": want the name of a namespace, for example platform: `,
			`o.sourceNamespaces[2]: Duplicate value: "a"`,
			`o.workers: Invalid value: 101: want a number from 1 to 100, for example 4`,
		}},
		{"no workers", Options{}, []string{`o.workers: Invalid value: 0: want a number from 1 to 100, for example 4`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			errs := tt.options.Validate(field.NewPath("o"))
			if len(errs) != len(tt.want) {
				t.Fatalf("got %v, want %v", errs, tt.want)
			}
			for i, err := range errs {
				if !strings.HasPrefix(err.Error(), tt.want[i]) {
					t.Errorf("got %q, want %q", err, tt.want[i])
				}
			}
		})
	}
}

func TestFlagsSetOptions(t *testing.T) {
	got, flags := defaults(), pflag.NewFlagSet("", pflag.ContinueOnError)
	got.AddFlags(flags)
	if err := flags.Parse([]string{"--secrets", "--source-namespaces=a,b", "--workers=7"}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(&Options{Secrets: true, SourceNamespaces: []string{"a", "b"}, Workers: 7}, got); diff != "" {
		t.Errorf("options differ (-want +got):\n%s", diff)
	}
}
