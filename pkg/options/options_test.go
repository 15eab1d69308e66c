// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package options_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/incumbent-io/incumbent/pkg/controllers"
	"github.com/incumbent-io/incumbent/pkg/leaderelection"
	"github.com/incumbent-io/incumbent/pkg/options"
)

type quotaOptions struct {
	Workers  int                `json:"workers"`
	Kinds    []string           `json:"kinds"`
	Grace    metav1.Duration    `json:"grace"`
	Limits   map[string]uint8   `json:"limits"`
	Nested   struct{ Deep int } `json:"nested"`
	APIToken string             `json:"apiToken"`
}

func (o *quotaOptions) AddFlags(flags *pflag.FlagSet) {
	flags.IntVar(&o.Workers, "workers", o.Workers, "Number of workers.")
	flags.StringSliceVar(&o.Kinds, "kinds", o.Kinds, "Kinds.")
	flags.StringVar(&o.APIToken, "api-token", o.APIToken, "A secret that does not belong here.")
}

func (o *quotaOptions) Validate(path *field.Path) field.ErrorList {
	if o.Workers < 1 {
		return field.ErrorList{field.Invalid(path.Child("workers"), o.Workers, "must be at least 1")}
	}
	return nil
}

func registry() *controllers.Registry {
	nothing := controllers.Skip("a test")
	return controllers.NewRegistry(
		controllers.Descriptor[*quotaOptions]{
			Name: "quota", Summary: "Keeps quotas.", Needs: []string{"store"},
			Options: func() *quotaOptions { return &quotaOptions{Workers: 2, Kinds: []string{"a", "b"}} },
			Init: func(context.Context, *controllers.Context, *quotaOptions) (controllers.Controller, error) {
				return nil, nothing
			},
		},
		controllers.Descriptor[controllers.NoOptions]{
			Name: "store", Summary: "Stores.",
			Init: func(context.Context, *controllers.Context, controllers.NoOptions) (controllers.Controller, error) {
				return nil, nothing
			},
		},
	)
}

// load returns options with the arguments parsed.
func load(t *testing.T, args ...string) *options.Options {
	t.Helper()
	o, err := options.Load("fleet-manager", registry(), args, nil)
	if err != nil {
		t.Fatalf("load %q: %v", args, err)
	}
	return o
}

func TestLoadNamesValueChoicesAndFix(t *testing.T) {
	for _, tc := range []struct {
		args string
		want []string // each within one line, in this order; nil: no mistake
	}{
		{args: ""},
		{args: "--controllers=-store,quota --leader-elect=false --quota-workers=1"},
		{args: "--controllers=nosuch", want: []string{`--controllers: unknown controller "nosuch"; valid names: quota, store`}},
		{args: "--controllers=-store", want: []string{`--controllers: "-store" only disables, which would run nothing; did you mean "*,-store"?`}},
		{args: "--leader-elect-lease-duration=900ms", want: []string{`--leader-elect-lease-duration: 900ms must be a whole number of seconds`}},
		{args: "--leader-elect-lease-duration=15500ms", want: []string{`--leader-elect-lease-duration: 15.5s must be a whole number of seconds`}},
		{args: "--leader-elect-renew-deadline=20s", want: []string{`--leader-elect-lease-duration: 15s less`}},
		{args: "--leader-elect-retry-period=9s", want: []string{`--leader-elect-renew-deadline: 10s must be greater than 1.2 times the retry period`}},
		{args: "--leader-elect-lease-duration=0", want: []string{`--leader-elect-lease-duration=0s must be positive`}},
		{args: "--leader-elect-retry-period=-1s", want: []string{`--leader-elect-retry-period=-1s must be positive`}},
		{args: "--leader-elect-resource-lock=configmaps", want: []string{`--leader-elect-resource-lock="configmaps" is not supported; the only choice is "leases"`}},
		{args: "--leader-elect-resource-name=No_Name", want: []string{`--leader-elect-resource-name="No_Name" is no name for a Lease`}},
		{args: "--leader-elect-resource-namespace=a.b", want: []string{`--leader-elect-resource-namespace="a.b" is no name of a namespace`}},
		{args: "--leader-elect-on-lost=panic", want: []string{`--leader-elect-on-lost="panic" is not a choice; use one of ["rejoin" "exit"]`}},
		{args: "--fencing --leader-elect=false", want: []string{"--fencing needs a leader"}},
		{args: "--drain-timeout=0", want: []string{"--drain-timeout=0s must be positive"}},
		{args: "--kube-api-content-type=text/html", want: []string{`--kube-api-content-type="text/html" is not known`}},
		{args: "--kube-api-burst=0", want: []string{"--kube-api-burst=0 would let no request pass"}},
		{args: "--kube-api-burst=0 --kube-api-qps=0"},
		{args: "--secure-port=70000", want: []string{"--secure-port=70000 must be between 1 and 65535, or 0 to serve nothing"}},
		{args: "--logging-format=xml", want: []string{`--logging-format="xml" is not supported; use text or json`}},
		{args: "--quota-workers=0", want: []string{"--quota-workers: Invalid value: 0: must be at least 1"}},
		{args: "--controllers=nosuch --leader-elect-lease-duration=1ms --quota-workers=-3", want: []string{
			`--controllers: unknown controller "nosuch"`,
			`--leader-elect-lease-duration: 1ms must be`,
			`--quota-workers: Invalid value: -3`,
		}},
	} {
		t.Run(tc.args, func(t *testing.T) {
			_, err := options.Load("fleet-manager", registry(), strings.Fields(tc.args), nil)
			if len(tc.want) == 0 {
				if err != nil {
					t.Errorf("got %v, want no mistake", err)
				}
				return
			}
			if err == nil {
				t.Fatalf("got no mistake, want %q", tc.want)
			}
			rest := err.Error()
			for _, want := range tc.want {
				_, after, found := strings.Cut(rest, want)
				if !found {
					t.Fatalf("got:\n%v\nwant it to contain, in order: %q", err, tc.want)
				}
				rest = after
			}
		})
	}
}

const kubeconfig = `apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://127.0.0.1:6443"}}]
users: [{name: u, user: {token: t}}]
contexts: [{name: x, context: {cluster: c, user: u, namespace: team}}]
current-context: x
`

func writeFile(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func environment(variables map[string]string) func(string) string {
	return func(name string) string { return variables[name] }
}

func TestCompleteFillsInDefaults(t *testing.T) {
	path := writeFile(t, kubeconfig)
	pod := map[string]string{"POD_NAME": "fleet-0", "POD_NAMESPACE": "fleet", "POD_UID": "1234"}
	for name, tc := range map[string]struct {
		args          []string
		env           map[string]string
		wantNamespace string
		wantLease     string
	}{
		"in a Pod":           {env: pod, wantNamespace: "fleet", wantLease: "fleet-manager"},
		"from a workstation": {wantNamespace: "team", wantLease: "fleet-manager"},
		"by flags": {
			args: []string{"--leader-elect-resource-name=x", "--leader-elect-resource-namespace=y"},
			env:  pod, wantNamespace: "y", wantLease: "x",
		},
	} {
		t.Run(name, func(t *testing.T) {
			config, err := load(t, append(tc.args, "--kubeconfig="+path)...).Complete(environment(tc.env))
			if err != nil {
				t.Fatal(err)
			}
			want := options.Election{
				Enabled: true, Timing: leaderelection.Timing{}.WithDefaults(), OnLost: leaderelection.Rejoin, DrainTimeout: 30 * time.Second,
			}
			if diff := cmp.Diff(want, config.Election); diff != "" {
				t.Errorf("election (-want +got):\n%s", diff)
			}
			groups := []options.Group{{Name: "default", LeaseNamespace: tc.wantNamespace, LeaseName: tc.wantLease, Controllers: []string{"quota", "store"}}}
			if diff := cmp.Diff(groups, config.Groups); diff != "" {
				t.Errorf("lease groups (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(options.Pod{Name: tc.env["POD_NAME"], Namespace: tc.env["POD_NAMESPACE"], UID: tc.env["POD_UID"]}, config.Pod); diff != "" {
				t.Errorf("pod (-want +got):\n%s", diff)
			}
			var enabled []string
			for _, controller := range config.Enabled() {
				enabled = append(enabled, controller.Name)
			}
			if diff := cmp.Diff([]string{"store", "quota"}, enabled); diff != "" {
				t.Errorf("enabled, in order of start (-want +got):\n%s", diff)
			}
			if config.REST.RateLimiter == nil || !strings.HasPrefix(config.REST.UserAgent, "fleet-manager/") {
				t.Errorf("client: got limiter %v and user agent %q", config.REST.RateLimiter, config.REST.UserAgent)
			}
		})
	}
}

func TestControllerFlagsReachItsOptions(t *testing.T) {
	config, err := load(t, "--quota-workers=7", "--kubeconfig="+writeFile(t, kubeconfig)).Complete(environment(nil))
	if err != nil {
		t.Fatal(err)
	}
	if got := config.Enabled()[1].Options.(*quotaOptions).Workers; got != 7 {
		t.Errorf("workers: got %d, want what the flag says, 7", got)
	}
}

func TestFencingRefusesWhatThePolicyCannotFence(t *testing.T) {
	reporter := controllers.Descriptor[controllers.NoOptions]{
		Name: "reporter", Summary: "Reports from every replica.", EveryReplica: true,
		Access: func(controllers.NoOptions) []controllers.Access {
			return []controllers.Access{{Resource: schema.GroupVersionResource{Version: "v1", Resource: "nodes"}, Verbs: []string{"list", "patch"}}}
		},
		Init: func(context.Context, *controllers.Context, controllers.NoOptions) (controllers.Controller, error) {
			return nil, controllers.Skip("a test")
		},
	}
	pod := map[string]string{"POD_NAME": "fleet-0", "POD_NAMESPACE": "fleet", "POD_UID": "1234"}
	for name, tc := range map[string]struct {
		env      map[string]string
		registry *controllers.Registry
		want     string
	}{
		"a Pod":                     {env: pod, registry: registry()},
		"no Pod":                    {registry: registry(), want: "--fencing needs the environment variables POD_NAME"},
		"a writer on every replica": {env: pod, registry: controllers.NewRegistry(reporter), want: `controller "reporter" runs on every replica and needs patch on nodes`},
	} {
		t.Run(name, func(t *testing.T) {
			o, err := options.Load("fleet-manager", tc.registry, []string{"--fencing", "--kubeconfig=" + writeFile(t, kubeconfig)}, nil)
			if err != nil {
				t.Fatal(err)
			}
			config, err := o.Complete(environment(tc.env))
			switch {
			case tc.want == "" && (err != nil || !config.Election.Fencing):
				t.Errorf("got %v, want fencing accepted", err)
			case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)):
				t.Errorf("got %v, want it to contain %q", err, tc.want)
			}
		})
	}
}

func TestCompleteNeedsAnAPIServer(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	missing := filepath.Join(t.TempDir(), "missing")
	for name, tc := range map[string]struct {
		args []string
		want []string
	}{
		"nowhere":              {want: []string{"no API server to talk to", "--kubeconfig=PATH"}},
		"missing kubeconfig":   {args: []string{"--kubeconfig=" + missing}, want: []string{"--kubeconfig=", missing, "pass the path of a readable kubeconfig file"}},
		"garbage":              {args: []string{"--kubeconfig=" + writeFile(t, "][")}, want: []string{"cannot be used"}},
		"no current context":   {args: []string{"--kubeconfig=" + writeFile(t, strings.Replace(kubeconfig, "current-context: x", "", 1))}, want: []string{"cannot be used"}},
		"a folder, not a file": {args: []string{"--kubeconfig=" + t.TempDir()}, want: []string{"cannot be used"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := load(t, tc.args...).Complete(environment(nil))
			for _, want := range tc.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("got error %v, want it to contain %q", err, want)
				}
			}
			if err != nil && strings.Contains(err.Error(), "\n") {
				t.Errorf("got more than one line: %q", err)
			}
		})
	}
}
