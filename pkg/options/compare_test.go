// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package options_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	logsapi "k8s.io/component-base/logs/api/v1"

	"github.com/incumbent-io/incumbent/pkg/options"
)

// told is what Changes tell, less the configuration.
type told struct {
	Enabled, Disabled, Reconfigured []string
	Logging                         bool
	NeedsRestart, Pinned            []string
}

func tell(c options.Changes) told {
	return told{c.Enabled, c.Disabled, c.Reconfigured, c.Logging, c.NeedsRestart, c.Pinned}
}

func reload(t *testing.T, running *options.Config, lines ...string) options.Changes {
	t.Helper()
	next, err := running.Reload(file(lines...))
	if err != nil {
		t.Fatal(err)
	}
	return options.Compare(running, next)
}

func TestCompareTellsWhatChanges(t *testing.T) {
	for name, tc := range map[string]struct {
		running, next []string
		args          []string
		want          told
	}{
		"nothing":                  {running: []string{"standby: cold"}, next: []string{"standby: cold"}},
		"the same, written out":    {next: []string{"standby: warm", "controllerOptions: {quota: {workers: 2}}", "leaderElection: {leaseDuration: 15s}"}},
		"a controller less":        {next: []string{"controllers: ['*', -quota]"}, want: told{Disabled: []string{"quota"}}},
		"another list, same gates": {next: []string{"controllers: [store, quota, router]"}},
		"controllers more":         {running: []string{"controllers: [store]"}, next: []string{"controllers: ['*', beacon]"}, want: told{Enabled: []string{"beacon", "quota", "router"}}},
		"options":                  {next: []string{"controllerOptions: {quota: {workers: 3, limits: {a: 1}}}"}, want: told{Reconfigured: []string{"quota"}}},
		"options of a disabled one": {
			running: []string{"controllers: ['*', -quota]"},
			next:    []string{"controllers: ['*', -quota]", "controllerOptions: {quota: {workers: 3}}"},
		},
		"options of one that starts": {
			running: []string{"controllers: ['*', -quota]"},
			next:    []string{"controllerOptions: {quota: {workers: 3}}"},
			want:    told{Enabled: []string{"quota"}},
		},
		"verbosity": {next: []string{"logging: {verbosity: 2}"}, want: told{Logging: true}},
		"vmodule":   {next: []string{"logging: {vmodule: [{filePattern: a, verbosity: 2}]}"}, want: told{Logging: true}},
		"everything": {next: []string{everything}, want: told{
			Disabled: []string{"router"}, Reconfigured: []string{"quota"}, Logging: true,
			NeedsRestart: []string{
				`standby: "warm" -> "cold"`,
				`leaseGroups: null -> [{"name":"web","leaseName":"my-lease","leaseNamespace":"other","controllers":["resource-quota","store"]}]`,
				`leaderElection.leaseDuration: "15s" -> "30s"`,
				`leaderElection.renewDeadline: "10s" -> "20s"`,
				`leaderElection.retryPeriod: "2s" -> "3s"`,
				`leaderElection.resourceName: "fleet-manager" -> "x"`,
				`leaderElection.resourceNamespace: "" -> "y"`,
				`leaderElection.onLost: "rejoin" -> "exit"`,
				`leaderElection.identityDir: "" -> "/id"`,
				`drainTimeout: "30s" -> "1m0s"`,
				`clientConnection.contentType: "application/vnd.kubernetes.protobuf" -> "application/json"`,
				`clientConnection.qps: 50 -> 7`,
				`clientConnection.burst: 100 -> 8`,
				`serving.bindAddress: "0.0.0.0" -> "127.0.0.1"`,
				`serving.securePort: 10257 -> 1234`,
				`serving.tlsCipherSuites: null -> ["TLS_AES_128_GCM_SHA256"]`,
				`featureGates.Shiny: false -> true`,
				`logging.flushFrequency: "5s" -> "1s"`,
			},
		}},
		"a pinned field": {
			next: []string{"controllers: [store]", "controllerOptions: {quota: {workers: 5}}"}, args: []string{"--controllers=*", "--quota-workers=7"},
			want: told{Pinned: []string{
				`controllers: the file says ["store"], but --controllers sets ["*"]`,
				`controllerOptions.quota.workers: the file says 5, but --quota-workers sets 7`,
			}},
		},
		"a field that file and flag agree on": {next: []string{"standby: cold"}, args: []string{"--standby=cold"}},
	} {
		t.Run(name, func(t *testing.T) {
			running := complete(t, file(tc.running...), tc.args...)
			before := show(running)
			if diff := cmp.Diff(tc.want, tell(reload(t, running, tc.next...))); diff != "" {
				t.Errorf("changes (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(before, show(running)); diff != "" {
				t.Errorf("the running configuration was changed (-before +after):\n%s", diff)
			}
		})
	}
}

func TestWhatNeedsNoRestartTakesEffect(t *testing.T) {
	running := complete(t, nil)
	want := show(running)
	changes := reload(t, running, everything)
	want.Controllers = "store quota " // shiny waits for its feature gate
	want.Quota = show(changes.Config).Quota
	want.Logging.Verbosity, want.Logging.VModule = 3, logsapi.VModuleConfiguration{{FilePattern: "a", Verbosity: 4}}
	if diff := cmp.Diff(want, show(changes.Config)); diff != "" {
		t.Errorf("what runs from now on (-want +got):\n%s", diff)
	}
	if got := show(changes.Config).Quota.Workers; got != 5 {
		t.Errorf("got %d workers of quota, want those of the file, 5", got)
	}
	for i, controller := range changes.Config.Controllers {
		if want := running.Controllers[i].LeaseGroup; controller.LeaseGroup != want {
			t.Errorf("controller %q: got lease group %q, want %q until the restart", controller.Name, controller.LeaseGroup, want)
		}
	}
}

func TestARestartThatIsDueIsNotForgotten(t *testing.T) {
	running := complete(t, nil)
	first := reload(t, running, "standby: cold", "featureGates: {Shiny: true}", "controllers: [store]")
	second := reload(t, first.Config, "standby: cold", "featureGates: {Shiny: true}", "controllers: [store, shiny]")
	want := told{NeedsRestart: []string{`standby: "warm" -> "cold"`, "featureGates.Shiny: false -> true"}}
	if diff := cmp.Diff(want, tell(second)); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
	back := reload(t, second.Config)
	if diff := cmp.Diff(told{Enabled: []string{"quota", "router"}}, tell(back)); diff != "" {
		t.Errorf("changes on the way back (-want +got):\n%s", diff)
	}
}

func TestUnchangedControllersKeepTheirValue(t *testing.T) {
	running := complete(t, nil)
	changes := reload(t, running, "controllers: ['*', -store]", "controllerOptions: {quota: {workers: 3}}")
	for i, now := range running.Controllers {
		then := changes.Config.Controllers[i]
		if kept, want := now.Configured == then.Configured, now.Name != "quota"; kept != want {
			t.Errorf("controller %q: kept %t, want %t", now.Name, kept, want)
		}
	}
}

// TestRunningFencingRefusesWritersUntilItIsOff enables a controller that writes
// without leading in the file that turns fencing off: the policy is still there.
func TestRunningFencingRefusesWritersUntilItIsOff(t *testing.T) {
	const one = "leaseGroups: [{name: default, controllers: [router]}]"
	o, err := options.Load("fleet-manager", fleet(), []string{"--kubeconfig=" + writeFile(t, kubeconfig)}, file(one, "fencing: true"))
	if err != nil {
		t.Fatal(err)
	}
	running, err := o.Complete(environment(map[string]string{"POD_NAME": "fleet-0", "POD_NAMESPACE": "fleet", "POD_UID": "1234"}))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := running.Reload(file(one, "fencing: true", "controllers: ['*', beacon]")); err == nil {
		t.Error("a writer on every replica under fencing: got no mistake")
	}
	changes := reload(t, running, one, "controllers: ['*', beacon]")
	if diff := cmp.Diff(told{NeedsRestart: []string{"fencing: true -> false"}}, tell(changes)); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
	for _, controller := range changes.Config.Controllers {
		if controller.Name == "beacon" && controller.Decision.Reason != "writes without leading, which fencing refuses until the manager is restarted" {
			t.Errorf("got reason %q", controller.Decision.Reason)
		}
	}
}

func TestReloadRefusesABadFile(t *testing.T) {
	running := complete(t, nil)
	if _, err := running.Reload(file("controllers: [quotta]")); err == nil {
		t.Error("got no mistake")
	}
}
