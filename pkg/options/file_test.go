// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package options_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/component-base/featuregate"
	logsapi "k8s.io/component-base/logs/api/v1"

	"github.com/incumbent-io/incumbent/pkg/controllers"
	"github.com/incumbent-io/incumbent/pkg/options"
)

// fleet is a registry with a controller of every sort.
func fleet() *controllers.Registry {
	plain := func(name string, change func(*controllers.Descriptor[controllers.NoOptions])) controllers.Registration {
		d := controllers.Descriptor[controllers.NoOptions]{
			Name: name, Summary: "A test.",
			Init: skip,
		}
		change(&d)
		return d
	}
	type descriptor = *controllers.Descriptor[controllers.NoOptions]
	return controllers.NewRegistry(
		controllers.Descriptor[*quotaOptions]{
			Name: "quota", Summary: "Keeps quotas.", Aliases: []string{"resource-quota"}, Needs: []string{"store"},
			Options: func() *quotaOptions { return &quotaOptions{Workers: 2, Kinds: []string{"a", "b"}} },
			Init: func(context.Context, *controllers.Context, *quotaOptions) (controllers.Controller, error) {
				return nil, controllers.Skip("a test")
			},
		},
		plain("store", func(descriptor) {}),
		plain("router", func(d descriptor) { d.LeaseGroup = "net" }),
		plain("shiny", func(d descriptor) {
			d.FeatureGates = map[featuregate.Feature]featuregate.FeatureSpec{"Shiny": {PreRelease: featuregate.Alpha}}
		}),
		plain("beacon", func(d descriptor) {
			d.EveryReplica, d.DisabledByDefault = true, true
			d.Access = func(controllers.NoOptions) []controllers.Access {
				return []controllers.Access{{Resource: schema.GroupVersionResource{Version: "v1", Resource: "nodes"}, Verbs: []string{"patch"}}}
			}
		}),
	)
}

func skip(context.Context, *controllers.Context, controllers.NoOptions) (controllers.Controller, error) {
	return nil, controllers.Skip("a test")
}

const head = "apiVersion: config.incumbent.io/v1alpha1\nkind: ManagerConfiguration\n"

// file returns a configuration file with the lines after the first two.
func file(lines ...string) *options.File {
	return &options.File{Path: "c.yaml", Content: []byte(head + strings.Join(lines, "\n") + "\n")}
}

func TestMistakesInTheFileNamePlaceValueAndFix(t *testing.T) {
	const (
		names     = "beacon, quota, router, shiny, store"
		label     = `a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')`
		subdomain = `a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')`
		gates     = "AllAlpha, AllBeta, ContextualLogging, LoggingAlphaOptions, LoggingBetaOptions, Shiny"
		alias     = "is an alias, which a configuration file must not hold; write the value out"
	)
	for name, tc := range map[string]struct {
		lines []string
		args  []string
		want  []string // exactly; nil: no mistake
	}{
		"nothing but the head":       {},
		"null leaves the default":    {lines: []string{"controllers:", "controllerOptions: {quota: }", "leaseGroups: ~", "leaderElection: {leaseDuration: null}"}},
		"an unknown field":           {lines: []string{"controler: []"}, want: []string{`c.yaml:3: controler: unknown field "controler"; did you mean "controllers"? valid: apiVersion, kind, controllers, controllerOptions, standby, leaseGroups, leaderElection, drainTimeout, fencing, clientConnection, serving, tracing, featureGates, logging`}},
		"a field twice":              {lines: []string{"fencing: false", "standby: warm", "fencing: true"}, want: []string{"c.yaml:5: fencing: is set a second time, after line 3; keep one of the two"}},
		"kind twice":                 {lines: []string{"kind: ManagerConfiguration"}, want: []string{"c.yaml:3: kind: is set a second time, after line 2; keep one of the two"}},
		"a field in wrong case":      {lines: []string{"Standby: warm"}, want: []string{`c.yaml:3: Standby: unknown field "Standby"; did you mean "standby"? valid: apiVersion, kind, controllers, controllerOptions, standby, leaseGroups, leaderElection, drainTimeout, fencing, clientConnection, serving, tracing, featureGates, logging`}},
		"a duration without a unit":  {lines: []string{"drainTimeout: 30"}, want: []string{`c.yaml:3: drainTimeout: 30 is not valid; want a duration with its unit, such as "15s" or "1m30s"`}},
		"no duration at all":         {lines: []string{"logging: {flushFrequency: soon}"}, want: []string{`c.yaml:3: logging.flushFrequency: "soon" is not valid; want a duration with its unit, such as "15s" or "1m30s"`}},
		"yes is not true":            {lines: []string{"fencing: yes"}, want: []string{`c.yaml:3: fencing: "yes" is not valid; want true or false`}},
		"a number is not a string":   {lines: []string{"clientConnection:", "  kubeconfig: 5"}, want: []string{`c.yaml:4: clientConnection.kubeconfig: 5 is not a string; put it into quotes: "5"`}},
		"a string is not a list":     {lines: []string{"controllers: quota"}, want: []string{`c.yaml:3: controllers: "quota" is not valid; want a list`}},
		"a list is not a mapping":    {lines: []string{"serving: [1]"}, want: []string{`c.yaml:3: serving: a list is not valid; want fields with values`}},
		"an empty item":              {lines: []string{"controllers:", "- quota", "-"}, want: []string{`c.yaml:5: controllers[1]: is empty; remove the item, or give it a value`}},
		"too large a number":         {lines: []string{"serving: {securePort: 99999999999999999999}"}, want: []string{`c.yaml:3: serving.securePort: 99999999999999999999 is not valid; want a whole number from -9223372036854775808 to 9223372036854775807`}},
		"a fraction":                 {lines: []string{"clientConnection: {burst: 1.5}"}, want: []string{`c.yaml:3: clientConnection.burst: 1.5 is not valid; want a whole number from -2147483648 to 2147483647`}},
		"infinity":                   {lines: []string{"clientConnection: {qps: .inf}"}, want: []string{`c.yaml:3: clientConnection.qps: .inf is not a value that JSON knows`}},
		"an alias":                   {lines: []string{"fencing: &f false", "standby: *f"}, want: []string{"c.yaml:4: standby: *f " + alias}},
		"an alias within a value":    {lines: []string{"controllers: &l ['*']", "controllerOptions: {quota: *l}"}, want: []string{"c.yaml:4: controllerOptions.quota: *l " + alias}},
		"a list as a field's name":   {lines: []string{"leaderElection: {[a]: b}"}, want: []string{"c.yaml:3: leaderElection: a list is no name of a field"}},
		"an unknown controller":      {lines: []string{"controllers: ['*', -quotta]"}, want: []string{`c.yaml:3: controllers: unknown controller "quotta"; did you mean "quota"? valid names: ` + names}},
		"only negatives":             {lines: []string{"controllers: [-quota]"}, want: []string{`c.yaml:3: controllers: "-quota" only disables, which would run nothing; did you mean "*,-quota"?`}},
		"an empty list":              {lines: []string{"controllers: []"}, want: []string{`c.yaml:3: controllers: the list is empty, which would run nothing; use "*" for all that are on by default, or names: ` + names}},
		"options of nobody":          {lines: []string{"controllerOptions:", "  resorce-quota: {}"}, want: []string{`c.yaml:4: controllerOptions.resorce-quota: unknown controller "resorce-quota"; did you mean "resource-quota"? valid: ` + names}},
		"options twice, by alias":    {lines: []string{"controllerOptions:", "  quota: {}", "  resource-quota: {}"}, want: []string{`c.yaml:5: controllerOptions.resource-quota: is the same controller as "quota" above; keep one of the two`}},
		"an unknown option":          {lines: []string{"controllerOptions:", "  quota:", "    worker: 1"}, want: []string{`c.yaml:5: controllerOptions.quota.worker: unknown field "worker"; did you mean "workers"? valid: workers, kinds, grace, limits, nested, apiToken`}},
		"an unknown inner option":    {lines: []string{"controllerOptions:", "  quota:", "    nested: {Deeper: 1}"}, want: []string{`c.yaml:5: controllerOptions.quota.nested.Deeper: unknown field "Deeper"; did you mean "Deep"? valid: Deep`}},
		"a bad option":               {lines: []string{"controllerOptions:", "  resource-quota:", "    workers: 0"}, want: []string{`c.yaml:5: controllerOptions.quota.workers: Invalid value: 0: must be at least 1`}},
		"a bad option, by flag":      {lines: []string{"controllerOptions: {quota: {workers: 3}}"}, args: []string{"--quota-workers=0"}, want: []string{`--quota-workers: Invalid value: 0: must be at least 1`}},
		"a bad item of an option":    {lines: []string{"controllerOptions: {quota: {limits: {a: 300}}}"}, want: []string{`c.yaml:3: controllerOptions.quota.limits.a: 300 is not valid; want a whole number from 0 to 255`}},
		"options where there are no": {lines: []string{"controllerOptions: {store: {workers: 1}}"}, want: []string{`c.yaml:3: controllerOptions.store.workers: unknown field "workers"; there are none here`}},
		"standby":                    {lines: []string{"standby: hot"}, want: []string{`c.yaml:3: standby: "hot" is not a choice; use one of ["warm" "cold"]`}},

		"a group's unknown controller":    {lines: []string{"leaseGroups:", "- name: web", "  controllers:", "  - store", "  - quoat"}, want: []string{`c.yaml:7: leaseGroups[0].controllers[1]: unknown controller "quoat"; did you mean "quota"? valid: ` + names}},
		"a controller in two groups":      {lines: []string{"leaseGroups:", "- {name: web, controllers: [shiny]}", "- {name: dns, controllers: [router, shiny]}"}, want: []string{`c.yaml:5: leaseGroups[1].controllers[1]: the controller "shiny" already stands in leaseGroups[0].controllers[0]; a controller belongs to one lease group`}},
		"every replica in a group":        {lines: []string{"leaseGroups: [{name: web, controllers: [beacon, shiny]}]"}, want: []string{`c.yaml:3: leaseGroups[0].controllers[0]: the controller "beacon" runs on every replica, without a lease; remove it here`}},
		"a group twice":                   {lines: []string{"leaseGroups:", "- {name: web, controllers: [shiny]}", "- {name: web, controllers: [router]}"}, want: []string{`c.yaml:5: leaseGroups[1].name: "web" is the name of leaseGroups[0], too; join the two, or rename one`}},
		"a group without a name":          {lines: []string{"leaseGroups:", "- controllers: [shiny]"}, want: []string{`c.yaml:4: leaseGroups[0].name: is missing; name the lease group, for instance "name: net"`}},
		"a group without controllers":     {lines: []string{"leaseGroups:", "- name: web"}, want: []string{`c.yaml:4: leaseGroups[0]: the lease group "web" has no controllers; name some in it, or remove it`}},
		"a group's name":                  {lines: []string{"leaseGroups: [{name: Web, leaseName: w, controllers: [shiny]}]"}, want: []string{`c.yaml:3: leaseGroups[0].name: "Web" is no name of a lease group: ` + label}},
		"a group's lease":                 {lines: []string{"leaseGroups: [{name: web, leaseName: w_w, controllers: [shiny]}]"}, want: []string{`c.yaml:3: leaseGroups[0].leaseName: "w_w" is no name for a Lease: ` + subdomain}},
		"a group's namespace":             {lines: []string{"leaseGroups: [{name: web, leaseNamespace: a.b, controllers: [shiny]}]"}, want: []string{`c.yaml:3: leaseGroups[0].leaseNamespace: "a.b" is no name of a namespace: must not contain dots`}},
		"two groups, one lease":           {lines: []string{"leaseGroups:", "- {name: web, leaseName: one, controllers: [shiny]}", "- {name: net, leaseName: one}"}, want: []string{`c.yaml:4: leaseGroups[0].leaseName: the lease groups "net" and "web" would share the lease "one"; give each a lease of its own`}},
		"the default group's lease":       {lines: []string{"leaseGroups: [{name: web, leaseName: fleet-manager, controllers: [shiny]}]"}, want: []string{`c.yaml:3: leaseGroups[0].leaseName: the lease groups "default" and "web" would share the lease "fleet-manager"; give each a lease of its own`}},
		"the default group renamed":       {lines: []string{"leaseGroups: [{name: default, leaseName: x, leaseNamespace: y}]"}, want: []string{`c.yaml:3: leaseGroups[0].leaseName: "x": the lease of the default group is set by leaderElection.resourceName`, `c.yaml:3: leaseGroups[0].leaseNamespace: "y": the lease of the default group is set by leaderElection.resourceNamespace`}},
		"a need across groups":            {lines: []string{"leaseGroups: [{name: web, controllers: [quota]}]"}, want: []string{`c.yaml:3: leaseGroups: controller "quota" in the lease group "web" needs controller "store" in the lease group "default"; put both into one lease group`}},
		"fencing with two groups":         {lines: []string{"fencing: true"}, want: []string{`c.yaml:3: fencing guards the writes of one leader, but there are 2 lease groups (default, net); put all controllers into one by leaseGroups, or run each group in a Deployment of its own`}},
		"fencing with one group":          {lines: []string{"fencing: true", "leaseGroups: [{name: default, controllers: [router]}]"}},
		"groups without an election":      {lines: []string{"leaderElection: {leaderElect: false}", "leaseGroups: [{name: web, controllers: [shiny]}]"}},
		"fencing without an election":     {lines: []string{"fencing: true", "leaderElection: {leaderElect: false}"}, want: []string{"c.yaml:3: fencing needs a leader: use it with leaderElection.leaderElect: true, or remove the fencing policy and this setting"}},
		"timing":                          {lines: []string{"leaderElection:", "  leaseDuration: 900ms"}, want: []string{"c.yaml:4: leaderElection.leaseDuration: 900ms must be a whole number of seconds, at least 1s, because the Lease stores seconds; use 1s"}},
		"timing against a default":        {lines: []string{"leaderElection:", "  retryPeriod: 9s"}, want: []string{"c.yaml: leaderElection.renewDeadline: 10s must be greater than 1.2 times the retry period, 10.8s, to leave time for a second try; raise it or lower the retry period"}},
		"timing by a flag":                {lines: []string{"leaderElection: {retryPeriod: 3s}"}, args: []string{"--leader-elect-retry-period=9s", "--leader-elect-renew-deadline=10s"}, want: []string{"--leader-elect-renew-deadline: 10s must be greater than 1.2 times the retry period, 10.8s, to leave time for a second try; raise it or lower the retry period"}},
		"not positive":                    {lines: []string{"leaderElection: {retryPeriod: 0s}", "drainTimeout: -1s"}, want: []string{"c.yaml:4: drainTimeout: -1s must be positive, for instance 30s", "c.yaml:3: leaderElection.retryPeriod: 0s must be positive"}},
		"the lock":                        {lines: []string{"leaderElection: {resourceLock: endpoints}"}, want: []string{`c.yaml:3: leaderElection.resourceLock: "endpoints" is not supported; the only choice is "leases"`}},
		"onLost":                          {lines: []string{"leaderElection: {onLost: panic}"}, want: []string{`c.yaml:3: leaderElection.onLost: "panic" is not a choice; use one of ["rejoin" "exit"]`}},
		"burst":                           {lines: []string{"clientConnection: {burst: 0}"}, want: []string{"c.yaml:3: clientConnection.burst: 0 would let no request pass; use at least 1, or clientConnection.qps: 0 for no limit"}},
		"the content type":                {lines: []string{"clientConnection: {contentType: text/html}"}, want: []string{`c.yaml:3: clientConnection.contentType: "text/html" is not known; use application/json or application/vnd.kubernetes.protobuf`}},
		"the port":                        {lines: []string{"serving: {securePort: 65536}"}, want: []string{"c.yaml:3: serving.securePort: 65536 must be between 1 and 65535, or 0 to serve nothing"}},
		"the address":                     {lines: []string{"serving: {bindAddress: here}"}, want: []string{`c.yaml:3: serving.bindAddress: "here" is not valid; want an IP address, such as "0.0.0.0"`}},
		"half a pair of certificate, key": {lines: []string{"serving: {tlsPrivateKeyFile: k}"}, want: []string{"c.yaml:3: serving.tlsPrivateKeyFile goes with the other file of the pair; set serving.tlsCertFile: PATH, too"}},
		"the TLS version":                 {lines: []string{"serving: {tlsMinVersion: '1.3'}"}, want: []string{`c.yaml:3: serving.tlsMinVersion: "1.3" is not known; use one of VersionTLS10, VersionTLS11, VersionTLS12, VersionTLS13`}},
		"an unknown feature gate":         {lines: []string{"featureGates:", "  Shin: true"}, want: []string{`c.yaml:4: featureGates.Shin: unknown feature gate "Shin"; did you mean "Shiny"? valid: ` + gates}},
		"a feature gate that is no bool":  {lines: []string{"featureGates: {Shiny: 1}"}, want: []string{`c.yaml:3: featureGates.Shiny: 1 is not valid; want true or false`}},
		"an unknown gate, by flag":        {args: []string{"--feature-gates=shiny=true"}, want: []string{`--feature-gates: unknown feature gate "shiny"; did you mean "Shiny"? valid: ` + gates}},
		"the log format":                  {lines: []string{"logging: {format: xml}"}, want: []string{`c.yaml:3: logging.format: "xml" is not supported; use text or json`}},
		"vmodule":                         {lines: []string{"logging:", "  vmodule:", "  - {filePattern: 'a=b', verbosity: 1}"}, want: []string{`c.yaml:5: logging.vmodule[0]: Invalid value: "a=b": File pattern must not contain equal sign or comma`}},
		"a log option of a gate":          {lines: []string{"logging: {options: {text: {splitStream: true}}}"}, want: []string{`c.yaml:3: logging.options.text.splitStream: Forbidden: Feature LoggingAlphaOptions is disabled`}},
		"many at once": {
			lines: []string{"fencing: 1", "standby: hot", "controllers: [nosuch]"}, args: []string{"--drain-timeout=0"},
			want: []string{
				"c.yaml:3: fencing: 1 is not valid; want true or false",
				`c.yaml:5: controllers: unknown controller "nosuch"; valid names: ` + names,
				`c.yaml:4: standby: "hot" is not a choice; use one of ["warm" "cold"]`,
				"--drain-timeout=0s must be positive, for instance 30s",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := options.Load("fleet-manager", fleet(), tc.args, file(tc.lines...))
			var got []string
			if err != nil {
				got = strings.Split(err.Error(), "\n")
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("mistakes (-want +got):\n%s", diff)
			}
		})
	}
}

func TestWhatIsNoConfigurationFileIsRefused(t *testing.T) {
	const hint = `it begins with "apiVersion: config.incumbent.io/v1alpha1" and "kind: ManagerConfiguration"`
	for name, tc := range map[string]struct{ content, want string }{
		"empty":                {"", "c.yaml: is empty; a configuration file is not: " + hint},
		"nothing but comments": {"# nothing\n\n", "c.yaml: is empty; a configuration file is not: " + hint},
		"null":                 {"null\n", "c.yaml: is empty; a configuration file is not: " + hint},
		"text":                 {"hello", `c.yaml:1: "hello" is no configuration file; ` + hint},
		"a list":               {"- a\n", `c.yaml:1: a list is no configuration file; ` + hint},
		"half-written YAML":    {head + "controllers: [\"*\", \"-fo", `c.yaml:3: is neither YAML nor JSON: found unexpected end of stream`},
		"half-written JSON":    {`{"apiVersion": "config.incumbent.io/v1alpha1", "kind": "Manag`, `c.yaml: is neither YAML nor JSON: found unexpected end of stream`},
		"a tab":                {head + "leaderElection:\n\tleaseDuration: 15s\n", `c.yaml:4: is neither YAML nor JSON: found character that cannot start any token`},
		"binary":               {"\x7fELF\x02\x01\x01\x00", `c.yaml: is neither YAML nor JSON: control characters are not allowed`},
		"an unknown anchor":    {head + "standby: *x\n", `c.yaml: is neither YAML nor JSON: unknown anchor 'x' referenced`},
		"two documents":        {head + "---\n" + head, "c.yaml:3: a second document begins here; a configuration file holds one, so remove the others and the line ---"},
		"bad second document":  {head + "---\n[", `c.yaml:4: is neither YAML nor JSON: did not find expected node content`},
		"no apiVersion":        {"kind: ManagerConfiguration\n", `c.yaml: apiVersion is missing; write "apiVersion: config.incumbent.io/v1alpha1"`},
		"another kind": {
			"apiVersion: apps/v1\nkind: Deployment\nspec: {replicas: 3}\n",
			"c.yaml:1: apiVersion: \"apps/v1\" is not supported; the only choice is config.incumbent.io/v1alpha1\nc.yaml:2: kind: \"Deployment\" is not supported; the only choice is ManagerConfiguration",
		},
		"too large": {head + "#" + strings.Repeat("x", options.MaxFileSize), "c.yaml: is larger than 1 MiB"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := options.Load("fleet-manager", fleet(), nil, &options.File{Path: "c.yaml", Content: []byte(tc.content)})
			if err == nil {
				t.Fatalf("got no mistake, want %q", tc.want)
			}
			if diff := cmp.Diff(tc.want, err.Error()); diff != "" {
				t.Errorf("mistake (-want +got):\n%s", diff)
			}
		})
	}
}

func TestReadFileSaysWhyItCannot(t *testing.T) {
	directory := t.TempDir()
	at := func(name string) string { return filepath.Join(directory, name) }
	for name, size := range map[string]int{"whole": options.MaxFileSize, "large": options.MaxFileSize + 1} {
		if err := os.WriteFile(at(name), make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(at("pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct{ path, want string }{
		"largest":     {path: at("whole")},
		"too large":   {path: at("large"), want: "--config=" + at("large") + " is larger than 1 MiB, more than a ConfigMap could hold; is it the right file?"},
		"missing":     {path: at("missing"), want: "--config=" + at("missing") + ": there is no such file (file does not exist); give the path of a configuration file, or leave the flag out"},
		"a directory": {path: directory, want: "--config=" + directory + " is a directory; give the path of a file in it"},
		"a pipe":      {path: at("pipe"), want: "--config=" + at("pipe") + " is not a regular file, and so cannot be read again when it changes; write the configuration into a file"},
		"empty":       {want: "--config is empty; give the path of a configuration file, or leave the flag out"},
		"below a file": {path: at("whole/x"), want: "--config=" + at("whole/x") + " cannot be read: stat " + at("whole/x") +
			": not a directory"},
	} {
		t.Run(name, func(t *testing.T) {
			var got string
			if _, err := options.ReadFile(tc.path); err != nil {
				got = err.Error()
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
		})
	}
}

// FuzzLoad looks for content that Load cannot bear: a panic during a reload would
// take a leader down.
func FuzzLoad(f *testing.F) {
	for _, content := range []string{
		"", head, "{", "- - - -", "? [a]\n: b", "a: &a [*a]", head + "controllerOptions: {quota: {workers: 1, limits: {a: 1}}}",
		head + "leaseGroups: [{name: a, controllers: [quota, store]}]\nfeatureGates: {AllAlpha: true}\nlogging: {vmodule: [{filePattern: a}]}",
		head + "serving: {bindAddress: '::1'}\nclientConnection: {qps: 1e400}\n<<: {a: b}\n", head + "standby: !!binary aGk=\nfencing: !x true",
		head + "logging: {options: {json: {infoBufferSize: 1Ki}}}\ndrainTimeout: 2020-01-01", head + "controllers: [!!null a, 0x1f, 1_0]",
		strings.Repeat("[", 20000), strings.Repeat("{a: ", 5000), "\xff\xfe", "%YAML 9.9\n---\n",
	} {
		f.Add([]byte(content))
	}
	registry := fleet()
	f.Fuzz(func(t *testing.T, content []byte) {
		o, err := options.Load("fleet-manager", registry, nil, &options.File{Path: "c.yaml", Content: content})
		if (o == nil) == (err == nil) {
			t.Errorf("got options %v and error %v, want exactly one", o, err)
		}
		if err != nil && !strings.HasPrefix(err.Error(), "c.yaml") {
			t.Errorf("got %q, which does not name the file", err)
		}
	})
}

func TestJSONIsAConfigurationFileToo(t *testing.T) {
	content := "{\n\t\"apiVersion\": \"config.incumbent.io/v1alpha1\", \"kind\": \"ManagerConfiguration\",\n\t\"controllers\": [\n\t\t\"store\"\n\t],\n\t\"leaderElection\": {\"identityDir\": \"\\/a\\u0062\\\\/\\ud83d\\ude00\"}\n}\n"
	got := show(complete(t, &options.File{Path: "c.json", Content: []byte(content)}))
	want := show(complete(t, nil))
	want.Controllers, want.Election.IdentityDir = "store ", `/ab\/`+"\U0001F600"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("configuration (-want +got):\n%s", diff)
	}
}

// TestLoggingHasComponentBasesShape loads what component-base itself writes.
func TestLoggingHasComponentBasesShape(t *testing.T) {
	logging := logsapi.NewLoggingConfiguration()
	logging.Verbosity = 3
	logging.VModule = logsapi.VModuleConfiguration{{FilePattern: "a", Verbosity: 1}}
	logging.Options.Text.SplitStream, logging.Options.JSON.SplitStream = true, true
	content, err := json.Marshal(logging)
	if err != nil {
		t.Fatal(err)
	}
	got := complete(t, file("logging: "+string(content), "featureGates: {LoggingAlphaOptions: true}")).Logging
	if diff := cmp.Diff(logging, got); diff != "" {
		t.Errorf("logging (-want +got):\n%s", diff)
	}
}

func TestAFileFullOfMistakesIsCutShort(t *testing.T) {
	_, err := options.Load("fleet-manager", fleet(), nil, file("controllers: ["+strings.Repeat("a,", 1000)+"]"))
	if err == nil {
		t.Fatal("got no mistake")
	}
	lines := strings.Split(err.Error(), "\n")
	if last := lines[len(lines)-1]; len(lines) != 101 || last != "and 900 more mistakes" {
		t.Errorf("got %d lines, the last %q; want 101, the last telling of 900 more", len(lines), last)
	}
}
