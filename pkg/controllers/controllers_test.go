// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package controllers_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/component-base/featuregate"

	"github.com/incumbent-io/incumbent/pkg/controllers"
)

func initNothing(context.Context, *controllers.Context, controllers.NoOptions) (controllers.Controller, error) {
	return nil, controllers.Skip("a test")
}

// descriptor returns the smallest valid descriptor.
func descriptor(name string) controllers.Descriptor[controllers.NoOptions] {
	return controllers.Descriptor[controllers.NoOptions]{Name: name, Summary: "Does nothing.", Init: initNothing}
}

// gateRegistry has a controller of each kind that the gate tells apart.
func gateRegistry() *controllers.Registry {
	off := descriptor("drain")
	off.DisabledByDefault = true
	gated := descriptor("quota-audit")
	gated.FeatureGates = map[featuregate.Feature]featuregate.FeatureSpec{"QuotaAudit": {Default: false, PreRelease: featuregate.Alpha}}
	old := descriptor("quota")
	old.Aliases = []string{"resource-quota"}
	return controllers.NewRegistry(descriptor("cleanup"), off, gated, old)
}

func features(t *testing.T, registry *controllers.Registry, on ...featuregate.Feature) featuregate.FeatureGate {
	t.Helper()
	gate := featuregate.NewFeatureGate()
	if err := gate.Add(registry.FeatureGates()); err != nil {
		t.Fatal(err)
	}
	for _, feature := range on {
		if err := gate.Set(string(feature) + "=true"); err != nil {
			t.Fatal(err)
		}
	}
	return gate
}

func TestGateDecidesWithReasons(t *testing.T) {
	registry := gateRegistry()
	for list, want := range map[string][]string{
		"*": {
			"cleanup yes: enabled by default",
			"drain no: disabled by default",
			"quota yes: enabled by default",
			"quota-audit no: feature gate QuotaAudit is off",
		},
		"*,-cleanup,drain": {
			"cleanup no: disabled by --controllers",
			"drain yes: enabled by --controllers",
			"quota yes: enabled by default",
			"quota-audit no: feature gate QuotaAudit is off",
		},
		"-cleanup,resource-quota": {
			"cleanup no: disabled by --controllers",
			`drain no: not named in --controllers, which has no "*"`,
			"quota yes: enabled by --controllers",
			"quota-audit no: feature gate QuotaAudit is off",
		},
		"quota-audit,cleanup,*": {
			"cleanup yes: enabled by --controllers",
			"drain no: disabled by default",
			"quota yes: enabled by default",
			"quota-audit no: feature gate QuotaAudit is off",
		},
		"*,quota,quota": {
			"cleanup yes: enabled by default",
			"drain no: disabled by default",
			"quota yes: enabled by --controllers",
			"quota-audit no: feature gate QuotaAudit is off",
		},
	} {
		t.Run(list, func(t *testing.T) {
			decisions, errs := registry.Gate(strings.Split(list, ","), features(t, registry))
			if len(errs) > 0 {
				t.Fatalf("unexpected mistakes: %v", errs)
			}
			var got []string
			for _, d := range decisions {
				got = append(got, fmt.Sprintf("%s %s: %s", d.Name, map[bool]string{true: "yes", false: "no"}[d.Enabled], d.Reason))
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("decisions (-want +got):\n%s", diff)
			}
		})
	}
}

func TestGateReturnsEveryMistake(t *testing.T) {
	const valid = "cleanup, drain, quota, quota-audit"
	registry := gateRegistry()
	for _, tc := range []struct {
		list []string
		want []string
	}{
		{list: nil, want: []string{`the list is empty, which would run nothing; use "*" for all that are on by default, or names: ` + valid}},
		{list: []string{"-quota"}, want: []string{`"-quota" only disables, which would run nothing; did you mean "*,-quota"?`}},
		{list: []string{"-quota", "-cleanup"}, want: []string{`"-quota,-cleanup" only disables, which would run nothing; did you mean "*,-quota,-cleanup"?`}},
		{list: []string{"quota", "-quota"}, want: []string{`controller "quota" is both enabled and disabled (by "quota" and "-quota"); keep one of the two`}},
		{list: []string{"-quota", "*", "resource-quota"}, want: []string{`controller "quota" is both enabled and disabled (by "-quota" and "resource-quota"); keep one of the two`}},
		{list: []string{"*", "qouta"}, want: []string{`unknown controller "qouta"; did you mean "quota"? valid names: ` + valid}},
		{list: []string{"Quota"}, want: []string{`unknown controller "Quota"; did you mean "quota"? valid names: ` + valid}},
		{list: []string{"nosuch"}, want: []string{`unknown controller "nosuch"; valid names: ` + valid}},
		{list: []string{"*", ""}, want: []string{`"" is not a name; valid names: ` + valid}},
		{list: []string{"*", "-"}, want: []string{`"-" is not a name; valid names: ` + valid}},
		{list: []string{"-*"}, want: []string{`"-*" is not a name; to run only some controllers, list them without "*"; valid names: ` + valid}},
		{list: []string{"nosuch", "-resource-qota", ""}, want: []string{
			`unknown controller "nosuch"; valid names: ` + valid,
			`unknown controller "resource-qota"; did you mean "resource-quota"? valid names: ` + valid,
			`"" is not a name; valid names: ` + valid,
		}},
	} {
		t.Run(strings.Join(tc.list, ","), func(t *testing.T) {
			decisions, errs := registry.Gate(tc.list, features(t, registry))
			var got []string
			for _, err := range errs {
				got = append(got, err.Error())
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("mistakes (-want +got):\n%s", diff)
			}
			if decisions != nil {
				t.Errorf("decisions beside mistakes: %v", decisions)
			}
		})
	}
}

// TestGateAgreesWithNaiveModel compares the gate with the definition of its list, on
// lists made at random.
func TestGateAgreesWithNaiveModel(t *testing.T) {
	registry := gateRegistry()
	words := []string{"*", "cleanup", "-cleanup", "drain", "-drain", "quota", "-quota", "resource-quota", "quota-audit", "-quota-audit"}
	gates := map[bool]featuregate.FeatureGate{false: features(t, registry), true: features(t, registry, "QuotaAudit")}
	random := rand.New(rand.NewPCG(1, 2))
	for range 20000 {
		var list []string
		for range 1 + random.IntN(4) {
			list = append(list, words[random.IntN(len(words))])
		}
		gateOn := random.IntN(2) == 1
		decisions, errs := registry.Gate(list, gates[gateOn])

		has := func(name string) bool {
			return slices.Contains(list, name) || name == "quota" && slices.Contains(list, "resource-quota")
		}
		mistaken := !slices.ContainsFunc(list, func(item string) bool { return item[0] != '-' })
		for _, name := range registry.Names() {
			mistaken = mistaken || has(name) && has("-"+name)
		}
		if mistaken != (len(errs) > 0) {
			t.Fatalf("%q: mistaken is %v, got mistakes %v", list, mistaken, errs)
		}
		for _, d := range decisions {
			want := !has("-"+d.Name) && (has(d.Name) || has("*") && d.Name != "drain") && (gateOn || d.Name != "quota-audit")
			if d.Enabled != want {
				t.Fatalf("%q, feature %v: %s enabled is %v, want %v (%s)", list, gateOn, d.Name, d.Enabled, want, d.Reason)
			}
		}
	}
}

func TestNewRegistryPanicsOnProgrammersMistakes(t *testing.T) {
	with := func(change func(*controllers.Descriptor[controllers.NoOptions])) controllers.Registration {
		d := descriptor("quota")
		change(&d)
		return d
	}
	type D = *controllers.Descriptor[controllers.NoOptions]
	for name, tc := range map[string]struct {
		registrations []controllers.Registration
		want          string
	}{
		"nil":                    {[]controllers.Registration{nil}, "registration 0: is nil"},
		"empty name":             {[]controllers.Registration{with(func(d D) { d.Name = "" })}, `name or alias ""`},
		"upper case":             {[]controllers.Registration{with(func(d D) { d.Name = "Quota" })}, `name or alias "Quota"`},
		"leading dash":           {[]controllers.Registration{with(func(d D) { d.Name = "-quota" })}, `name or alias "-quota"`},
		"no summary":             {[]controllers.Registration{with(func(d D) { d.Summary = "" })}, `"quota" has no Summary`},
		"no init":                {[]controllers.Registration{with(func(d D) { d.Init = nil })}, `"quota" has no Init`},
		"twice":                  {[]controllers.Registration{descriptor("quota"), descriptor("quota")}, `registration 1: controller "quota": the name or alias "quota" is taken by controller "quota"`},
		"alias is a name":        {[]controllers.Registration{descriptor("cleanup"), with(func(d D) { d.Aliases = []string{"cleanup"} })}, `the name or alias "cleanup" is taken by controller "cleanup"`},
		"unknown need":           {[]controllers.Registration{with(func(d D) { d.Needs = []string{"nosuch"} })}, `controller "quota" needs "nosuch"`},
		"needs itself":           {[]controllers.Registration{with(func(d D) { d.Needs = []string{"quota"} })}, "in a circle: quota needs quota"},
		"cycle":                  {[]controllers.Registration{with(func(d D) { d.Needs = []string{"b"} }), func() controllers.Registration { d := descriptor("b"); d.Needs = []string{"quota"}; return d }()}, "in a circle: b needs quota needs b"},
		"bad lease group":        {[]controllers.Registration{with(func(d D) { d.LeaseGroup = "Big One" })}, `lease group "Big One"`},
		"group on every replica": {[]controllers.Registration{with(func(d D) { d.LeaseGroup, d.EveryReplica = "net", true })}, `belongs to no lease group, but names "net"`},
		"need across groups":     {[]controllers.Registration{descriptor("b"), with(func(d D) { d.LeaseGroup, d.Needs = "net", []string{"b"} })}, `controller "quota" in the lease group "net" needs controller "b" in the lease group "default"`},
		"need of every replica":  {[]controllers.Registration{descriptor("b"), with(func(d D) { d.EveryReplica, d.Needs = true, []string{"b"} })}, `controller "quota" (on every replica) needs controller "b" in the lease group "default"`},
		"options forgotten": {[]controllers.Registration{controllers.Descriptor[*nilOptions]{Name: "quota", Summary: "x", Init: func(context.Context, *controllers.Context, *nilOptions) (controllers.Controller, error) {
			return nil, nil
		}}}, `"quota" has no Options function`},
		"options are nil": {[]controllers.Registration{controllers.Descriptor[*nilOptions]{Name: "quota", Summary: "x", Options: func() *nilOptions { return nil }, Init: func(context.Context, *controllers.Context, *nilOptions) (controllers.Controller, error) {
			return nil, nil
		}}}, `"quota": Options returns nil`},
		"gate declared in two ways": {[]controllers.Registration{
			with(func(d D) { d.FeatureGates = map[featuregate.Feature]featuregate.FeatureSpec{"A": {Default: true}} }),
			func() controllers.Registration {
				d := descriptor("b")
				d.FeatureGates = map[featuregate.Feature]featuregate.FeatureSpec{"A": {Default: false}}
				return d
			}(),
		}, `controller "b" declares the feature gate "A" differently`},
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if got := fmt.Sprint(recover()); !strings.Contains(got, tc.want) {
					t.Errorf("panic: got %s, want it to contain %s", got, tc.want)
				}
			}()
			controllers.NewRegistry(tc.registrations...)
		})
	}
}

type nilOptions struct{ controllers.NoOptions }

func TestStartOrderPutsNeedsFirst(t *testing.T) {
	c := descriptor("c")
	a := descriptor("a")
	a.Needs = []string{"d", "c"}
	d := descriptor("d")
	d.Needs = []string{"c"}
	order, err := controllers.NewRegistry(a, descriptor("b"), c, d).StartOrder()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"c", "d", "a", "b"}, order); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
}

func TestInitMustReturnSomething(t *testing.T) {
	d := descriptor("quota")
	d.Init = func(context.Context, *controllers.Context, controllers.NoOptions) (controllers.Controller, error) {
		return nil, nil
	}
	registration, _ := controllers.NewRegistry(d).Lookup("quota")
	if _, err := registration.Configure().Init(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "controllers.Skip") {
		t.Errorf("Init returned nothing at all: got error %v, want one that points to Skip", err)
	}
}

func TestSkipReason(t *testing.T) {
	reason, skipped := controllers.SkipReason(fmt.Errorf("wrapped: %w", controllers.Skip("no Pod")))
	if reason != "no Pod" || !skipped {
		t.Errorf("got %q, %v; want the reason through the wrapping", reason, skipped)
	}
	if _, skipped := controllers.SkipReason(errors.New("other")); skipped {
		t.Error("another error was taken for a skip")
	}
}

func TestTermOutsideARunIsOver(t *testing.T) {
	term := controllers.TermFrom(t.Context())
	if err := term.Check(); !controllers.IsNotLeader(fmt.Errorf("wrapped: %w", err)) {
		t.Errorf("Check: got %v, want an error that IsNotLeader recognises", err)
	}
	if controllers.IsNotLeader(errors.New("other")) || controllers.IsNotLeader(nil) {
		t.Error("IsNotLeader took another error for a refusal")
	}
}

func TestRuleIsSortedAndMerged(t *testing.T) {
	rule := controllers.Access{Verbs: []string{"watch", "list", "watch"}, Names: []string{"x"}}.Rule()
	if diff := cmp.Diff([]string{"list", "watch"}, rule.Verbs); diff != "" {
		t.Errorf("verbs (-want +got):\n%s", diff)
	}
}

func ExampleRegistry_Gate() {
	registry := controllers.NewRegistry(
		controllers.Descriptor[controllers.NoOptions]{Name: "quota", Summary: "Keeps quotas.", Init: initNothing},
		controllers.Descriptor[controllers.NoOptions]{Name: "drain", Summary: "Drains nodes.", Init: initNothing, DisabledByDefault: true},
	)
	decisions, _ := registry.Gate([]string{"*"}, featuregate.NewFeatureGate())
	for _, d := range decisions {
		fmt.Println(d.Name, d.Enabled, d.Reason)
	}
	_, mistakes := registry.Gate([]string{"-quota"}, featuregate.NewFeatureGate())
	fmt.Println(mistakes[0])
	// Output:
	// drain false disabled by default
	// quota true enabled by default
	// "-quota" only disables, which would run nothing; did you mean "*,-quota"?
}
