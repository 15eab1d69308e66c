// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package options_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	cliflag "k8s.io/component-base/cli/flag"
	logsapi "k8s.io/component-base/logs/api/v1"

	"github.com/incumbent-io/incumbent/pkg/controllers"
	"github.com/incumbent-io/incumbent/pkg/options"
)

// complete returns the configuration of the fleet from a file, which may be nil, and
// arguments.
func complete(t *testing.T, file *options.File, args ...string) *options.Config {
	t.Helper()
	args = append(slices.Clone(args), "--kubeconfig="+writeFile(t, kubeconfig))
	o, err := options.Load("fleet-manager", fleet(), args, file)
	if err != nil {
		t.Fatal(err)
	}
	config, err := o.Complete(environment(map[string]string{"POD_NAMESPACE": "fleet"}))
	if err != nil {
		t.Fatal(err)
	}
	return config
}

// shown is what of a configuration a test compares.
type shown struct {
	Controllers string
	Groups      []options.Group
	Quota       quotaOptions
	Election    options.Election
	Standby     string
	QPS         float32
	Burst       int
	Address     string
	Ciphers     []string
	Logging     logsapi.LoggingConfiguration
	Shiny       bool
}

func show(config *options.Config) shown {
	s := shown{Groups: config.Groups, Election: config.Election, Standby: config.Standby, QPS: config.REST.QPS, Burst: config.REST.Burst, Logging: *config.Logging, Shiny: config.Features.Enabled("Shiny")}
	if config.Serving != nil {
		s.Address, s.Ciphers = fmt.Sprintf("%s:%d", config.Serving.SecureServing.BindAddress, config.Serving.SecureServing.BindPort), config.Serving.SecureServing.CipherSuites
	}
	for _, controller := range config.Enabled() {
		s.Controllers += controller.Name + " "
	}
	for _, controller := range config.Controllers {
		if quota, ok := controller.Options.(*quotaOptions); ok {
			s.Quota = *quota
		}
	}
	return s
}

// everything sets every part to something that is no default.
const everything = `controllers: ["*", -router]
controllerOptions:
  resource-quota: {workers: 5, kinds: [c], grace: 2s, limits: {x: 1}, nested: {Deep: 3}}
standby: cold
leaseGroups:
- {name: web, leaseName: my-lease, leaseNamespace: other, controllers: [resource-quota, store]}
leaderElection: {leaseDuration: 30s, renewDeadline: 20s, retryPeriod: 3s, resourceName: x, resourceNamespace: y, onLost: exit, identityDir: /id}
drainTimeout: 1m
clientConnection: {contentType: application/json, qps: 7, burst: 8}
serving: {bindAddress: 127.0.0.1, securePort: 1234, tlsCipherSuites: [TLS_AES_128_GCM_SHA256]}
featureGates: {Shiny: true}
logging: {verbosity: 3, flushFrequency: 1s, vmodule: [{filePattern: a, verbosity: 4}]}
`

func TestFileReplacesDefaults(t *testing.T) {
	got := show(complete(t, file(everything)))
	want := show(complete(t, nil))
	want.Controllers = "store quota shiny "
	want.Groups = []options.Group{
		{Name: "default", LeaseName: "x", LeaseNamespace: "y", Controllers: []string{"shiny"}},
		{Name: "net", LeaseName: "x-net", LeaseNamespace: "y", Controllers: []string{"router"}},
		{Name: "web", LeaseName: "my-lease", LeaseNamespace: "other", Controllers: []string{"quota", "store"}},
	}
	want.Quota = quotaOptions{Workers: 5, Kinds: []string{"c"}, Grace: metav1.Duration{Duration: 2 * time.Second}, Limits: map[string]uint8{"x": 1}}
	want.Quota.Nested.Deep = 3
	want.Election.Timing.LeaseDuration, want.Election.Timing.RenewDeadline, want.Election.Timing.RetryPeriod = 30*time.Second, 20*time.Second, 3*time.Second
	want.Election.OnLost, want.Election.IdentityDir, want.Election.DrainTimeout = "exit", "/id", time.Minute
	want.Standby, want.QPS, want.Burst, want.Shiny = "cold", 7, 8, true
	want.Address, want.Ciphers = "127.0.0.1:1234", []string{"TLS_AES_128_GCM_SHA256"}
	want.Logging.Verbosity, want.Logging.FlushFrequency.Duration.Duration = 3, time.Second
	want.Logging.VModule = logsapi.VModuleConfiguration{{FilePattern: "a", Verbosity: 4}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("configuration (-want +got):\n%s", diff)
	}
}

func TestFlagsWinOverTheFile(t *testing.T) {
	config := complete(t, file(everything),
		"--controllers=quota", "--controllers=store", "--quota_kinds=d,e", "--standby=warm",
		"--leader-elect-lease-duration=40s", "--leader-elect-on-lost=rejoin", "--drain-timeout=5s", "--kube-api-qps=9",
		"--bind-address=127.0.0.2", "--tls-cipher-suites=TLS_AES_256_GCM_SHA384", "--feature-gates=Shiny=false", "--vmodule=b=1", "--vmodule=c=2", "-v=0")
	got := show(config)
	want := show(complete(t, file(everything)))
	want.Controllers, want.Standby = "store quota ", "warm"
	want.Quota.Kinds = []string{"d", "e"}
	want.Election.Timing.LeaseDuration, want.Election.OnLost, want.Election.DrainTimeout = 40*time.Second, "rejoin", 5*time.Second
	want.QPS, want.Shiny = 9, false
	want.Address, want.Ciphers = "127.0.0.2:1234", []string{"TLS_AES_256_GCM_SHA384"}
	want.Logging.Verbosity, want.Logging.VModule = 0, logsapi.VModuleConfiguration{{FilePattern: "b", Verbosity: 1}, {FilePattern: "c", Verbosity: 2}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("configuration (-want +got):\n%s", diff)
	}
	pinned := []string{
		`controllers: the file says ["*","-router"], but --controllers sets ["quota","store"]`,
		`controllerOptions.quota.kinds: the file says ["c"], but --quota-kinds sets ["d","e"]`,
		`standby: the file says "cold", but --standby sets "warm"`,
		`leaderElection.leaseDuration: the file says "30s", but --leader-elect-lease-duration sets "40s"`,
		`leaderElection.onLost: the file says "exit", but --leader-elect-on-lost sets "rejoin"`,
		`drainTimeout: the file says "1m0s", but --drain-timeout sets "5s"`,
		`clientConnection.qps: the file says 7, but --kube-api-qps sets 9`,
		`serving.bindAddress: the file says "127.0.0.1", but --bind-address sets "127.0.0.2"`,
		`serving.tlsCipherSuites: the file says ["TLS_AES_128_GCM_SHA256"], but --tls-cipher-suites sets ["TLS_AES_256_GCM_SHA384"]`,
		`logging.verbosity: the file says 3, but --v sets 0`,
		`logging.vmodule: the file says [{"filePattern":"a","verbosity":4}], but --vmodule sets [{"filePattern":"b","verbosity":1},{"filePattern":"c","verbosity":2}]`,
		`featureGates.Shiny: the file says true, but --feature-gates sets false`,
	}
	if diff := cmp.Diff(pinned, options.Compare(config, config).Pinned); diff != "" {
		t.Errorf("pinned (-want +got):\n%s", diff)
	}
}

// TestEveryFlagWinsOverTheFileInAnyOrder shuffles flags that all say another thing
// than the file.
func TestEveryFlagWinsOverTheFileInAnyOrder(t *testing.T) {
	args := []string{
		"--controllers=*,-quota", "--quota-workers=9", "--quota-kinds=z", "--standby=warm", "--leader-elect-lease-duration=60s",
		"--leader-elect-renew-deadline=40s", "--leader-elect-retry-period=5s", "--leader-elect-on-lost=rejoin", "--leader-elect-identity-dir=/else",
		"--drain-timeout=7s", "--kube-api-qps=1", "--kube-api-burst=2", "--secure-port=4321", "--bind-address=::1",
		"--tls-cipher-suites=TLS_AES_256_GCM_SHA384", "--feature-gates=Shiny=false", "-v=1", "--vmodule=q=1", "--log-flush-frequency=9s",
	}
	want := show(complete(t, file(everything), args...))
	for range 20 {
		rand.Shuffle(len(args), func(i, j int) { args[i], args[j] = args[j], args[i] })
		if diff := cmp.Diff(want, show(complete(t, file(everything), args...))); diff != "" {
			t.Fatalf("with %q (-want +got):\n%s", args, diff)
		}
	}
}

func TestFeatureGatesByNameWinOverGroupsOfThem(t *testing.T) {
	for name, tc := range map[string]struct {
		file, flag string
		want       bool
	}{
		"a flag turns all off, the file says nothing":   {file: "{}", flag: "AllAlpha=false", want: false},
		"a flag turns all off that the file turned on":  {file: "{AllAlpha: true}", flag: "AllAlpha=false", want: false},
		"the file's name and the flag's group":          {file: "{Shiny: true}", flag: "AllAlpha=false", want: true},
		"the file's group and the flag's name":          {file: "{AllAlpha: true}", flag: "Shiny=false", want: false},
		"a flag that is silent about what the file set": {file: "{Shiny: true}", flag: "LoggingAlphaOptions=true", want: true},
	} {
		t.Run(name, func(t *testing.T) {
			got := complete(t, file("featureGates: "+tc.file), "--feature-gates="+tc.flag).Features.Enabled("Shiny")
			if got != tc.want {
				t.Errorf("got Shiny=%t, want %t", got, tc.want)
			}
		})
	}
}

func TestLoadIsPure(t *testing.T) {
	registry, args := fleet(), []string{"--controllers=*", "--quota-kinds=x", "--vmodule=a=1", "--feature-gates=AllAlpha=true"}
	load := func() []options.Row {
		o, err := options.Load("fleet-manager", registry, args, file(everything))
		if err != nil {
			t.Fatal(err)
		}
		return o.Table()
	}
	if diff := cmp.Diff(load(), load()); diff != "" {
		t.Errorf("the second table differs (-first +second):\n%s", diff)
	}
	config := complete(t, file(everything), args...)
	again, err := config.Reload(file(everything))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(show(config), show(again)); diff != "" {
		t.Errorf("the second configuration differs (-first +second):\n%s", diff)
	}
	without, err := config.Reload(nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(show(complete(t, nil, args...)), show(without)); diff != "" {
		t.Errorf("something of the file is left without it (-want +got):\n%s", diff)
	}
}

func TestGatesSayWhereTheListIs(t *testing.T) {
	for name, tc := range map[string]struct {
		file *options.File
		args []string
		want string
	}{
		"nowhere":           {want: "enabled by default"},
		"a file without it": {file: file(), want: "enabled by default"},
		"the file":          {file: file("controllers: [quota, store]"), want: "enabled by controllers in c.yaml"},
		"a flag":            {file: file("controllers: ['*']"), args: []string{"--controllers=quota,store"}, want: "enabled by --controllers"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, controller := range complete(t, tc.file, tc.args...).Controllers {
				if controller.Name == "quota" && controller.Decision.Reason != tc.want {
					t.Errorf("got %q, want %q", controller.Decision.Reason, tc.want)
				}
			}
		})
	}
}

func TestEveryControllerKnowsItsLeaseGroup(t *testing.T) {
	config := complete(t, file("leaseGroups: [{name: web, controllers: [shiny]}, {name: default, controllers: [router]}]"), "--controllers=store")
	got, want := map[string]string{}, map[string]string{"beacon": "", "quota": "default", "router": "default", "shiny": "web", "store": "default"}
	for _, controller := range config.Controllers {
		got[controller.Name] = controller.LeaseGroup
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("lease groups of controllers (-want +got):\n%s", diff)
	}
	groups := []options.Group{
		{Name: "default", LeaseName: "fleet-manager", LeaseNamespace: "fleet", Controllers: []string{"quota", "router", "store"}},
		{Name: "web", LeaseName: "fleet-manager-web", LeaseNamespace: "fleet", Controllers: []string{"shiny"}},
	}
	if diff := cmp.Diff(groups, config.Groups); diff != "" {
		t.Errorf("lease groups (-want +got):\n%s", diff)
	}
}

func TestLeasesThatTurnOutToBeOneAreRefused(t *testing.T) {
	o, err := options.Load("fleet-manager", fleet(), []string{"--kubeconfig=" + writeFile(t, kubeconfig)},
		file("leaseGroups: [{name: web, leaseName: fleet-manager, leaseNamespace: team, controllers: [shiny]}]"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = o.Complete(environment(nil)) // the kubeconfig's namespace is team
	want := `c.yaml:3: leaseGroups[0].leaseName: the lease groups "default" and "web" would share the lease "fleet-manager"; give each a lease of its own`
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestAManagerWithoutLedControllersHasNoLeaseGroup(t *testing.T) {
	every := controllers.NewRegistry(controllers.Descriptor[controllers.NoOptions]{Name: "beacon", Summary: "A test.", EveryReplica: true, Init: skip})
	o, err := options.Load("fleet-manager", every, []string{"--kubeconfig=" + writeFile(t, kubeconfig)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	config, err := o.Complete(environment(nil))
	if err != nil || len(config.Groups) > 0 {
		t.Errorf("got groups %v (%v), want none", config.Groups, err)
	}
}

// parse parses the arguments as a command does.
func parse(t *testing.T, line *options.CommandLine, args ...string) {
	t.Helper()
	flags := pflag.NewFlagSet("fleet-manager", pflag.ContinueOnError)
	flags.SetNormalizeFunc(cliflag.WordSepNormalizeFunc)
	flags.StringP("output", "o", "table", "A flag of a subcommand.")
	for _, section := range line.Flags().FlagSets {
		flags.AddFlagSet(section)
	}
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
}

func TestCommandLineLoadsTheFileUnderItsFlags(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte(head+"controllers: [quota]\nstandby: cold\ncontrollerOptions: {quota: {workers: 4, kinds: [f]}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	line := options.NewCommandLine("fleet-manager", fleet())
	parse(t, line, "controllers", "--quota-kinds=a,b", "--fencing", "-o", "json", "--config", path, "-v4", "--quota_kinds=c", "--fencing=false", "--kubeconfig", writeFile(t, kubeconfig))
	o, err := line.Load()
	if err != nil {
		t.Fatal(err)
	}
	config, err := o.Complete(environment(nil))
	if err != nil {
		t.Fatal(err)
	}
	got := show(config)
	want := show(complete(t, nil))
	want.Controllers, want.Standby, want.Logging.Verbosity = "quota ", "cold", 4
	want.Quota.Workers, want.Quota.Kinds = 4, []string{"a", "b", "c"}
	for i := range want.Groups {
		want.Groups[i].LeaseNamespace = "team"
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("configuration (-want +got):\n%s", diff)
	}
	if config.File == nil || config.File.Path != path {
		t.Errorf("got file %+v, want the one at %s", config.File, path)
	}
}

func TestCommandLineRefusesAFileThatIsNotThere(t *testing.T) {
	for args, want := range map[string]string{
		"--config=":           "--config is empty; give the path",
		"--config=/nonesuch":  "--config=/nonesuch: there is no such file",
		"--config=" + "/proc": "--config=/proc is a directory",
	} {
		line := options.NewCommandLine("fleet-manager", fleet())
		parse(t, line, args)
		if _, err := line.Load(); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", args, err, want)
		}
	}
}

// TestHelpShowsTheDefaults compares the help text of the command line, which keeps
// what it is given, with pflag's own rules for defaults.
func TestHelpShowsTheDefaults(t *testing.T) {
	sections := options.NewCommandLine("fleet-manager", fleet()).Flags()
	want := map[string][]string{
		"generic":          {"--config string", "--standby string", `(default "warm")`, "(default [*])"},
		"leader election":  {"--drain-timeout duration", "(default 30s)"},
		"quota controller": {"--quota-kinds strings", "(default [a,b])", "--quota-workers int", "(default 2)"},
		"secure serving":   {"--tls-cipher-suites strings"},
		"API client":       {"--kube-api-qps float32"},
		"logs":             {"--vmodule pattern=N,...", "-v, --v Level"},
	}
	for _, name := range slices.Sorted(maps.Keys(sections.FlagSets)) {
		usage := sections.FlagSets[name].FlagUsages()
		for _, text := range want[name] {
			if !strings.Contains(usage, text) {
				t.Errorf("section %q lacks %q:\n%s", name, text, usage)
			}
		}
		if strings.Contains(usage, "(default [])") || strings.Contains(usage, "(default 0s)") {
			t.Errorf("section %q shows an empty default:\n%s", name, usage)
		}
	}
}

// TestEffectiveSettingsHideWhatSoundsSecret shows a configuration as /configz and
// /flagz do.
func TestEffectiveSettingsHideWhatSoundsSecret(t *testing.T) {
	config := complete(t, nil, "--quota-api-token=swordfish", "--quota-workers=7", "--controllers=quota")
	content, err := json.Marshal(config.Effective())
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Kind              string
		Controllers       []string
		ControllerOptions map[string]map[string]any
		LeaderElection    struct{ LeaseDuration string }
	}
	if err := json.Unmarshal(content, &got); err != nil {
		t.Fatal(err)
	}
	quota := got.ControllerOptions["quota"]
	if got.Kind != options.Kind || got.Controllers[0] != "quota" || got.LeaderElection.LeaseDuration != "15s" || quota["workers"] != 7.0 || quota["apiToken"] != "***" {
		t.Errorf("got %s", content)
	}
	values := config.FlagValues()
	if values["quota-api-token"] != "***" || values["quota-workers"] != "7" || values["tls-private-key-file"] != "" {
		t.Errorf("flags: got %v", values)
	}
	if text := fmt.Sprint(string(content), values); strings.Contains(text, "swordfish") {
		t.Errorf("a secret is shown: %s", text)
	}
}
