// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package healthz_test

import (
	stdcmp "cmp"
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/incumbent-io/incumbent/pkg/healthz"
)

func pass(note string) healthz.Check {
	return func(context.Context) (string, error) { return note, nil }
}

func fail(reason string) healthz.Check {
	return func(context.Context) (string, error) { return "", errors.New(reason) }
}

func TestHandlerReportsChecks(t *testing.T) {
	for name, tc := range map[string]struct {
		checks map[string]healthz.Check
		method string
		target string
		status int
		body   string
	}{
		"an empty set is healthy":        {target: "/readyz", status: 200, body: "ok"},
		"all pass":                       {checks: map[string]healthz.Check{"a": pass("")}, target: "/readyz", status: 200, body: "ok"},
		"verbose lists notes, sorted":    {checks: map[string]healthz.Check{"b": pass("standby"), "a": pass("")}, target: "/readyz?verbose", status: 200, body: "[+]a ok\n[+]b ok: standby\nreadyz check passed\n"},
		"a failure says why":             {checks: map[string]healthz.Check{"a": pass(""), "b": fail("lease is stale")}, target: "/readyz", status: 500, body: "[+]a ok\n[-]b failed: lease is stale\nreadyz check failed\n"},
		"an excluded failure":            {checks: map[string]healthz.Check{"b": fail("x")}, target: "/readyz?exclude=b&verbose", status: 200, body: "[+]b excluded: ok\nreadyz check passed\n"},
		"an unknown exclusion is named":  {checks: map[string]healthz.Check{"a": pass("")}, target: "/readyz?exclude=zz&verbose", status: 200, body: "[+]a ok\nwarn: no check \"zz\" to exclude\nreadyz check passed\n"},
		"one check":                      {checks: map[string]healthz.Check{"a": pass("leads"), "b": fail("x")}, target: "/readyz/a", status: 200, body: "ok: leads\n"},
		"one check without a note":       {checks: map[string]healthz.Check{"a": pass("")}, target: "/readyz/a", status: 200, body: "ok\n"},
		"one check that fails":           {checks: map[string]healthz.Check{"b": fail("broken")}, target: "/readyz/b", status: 500, body: "broken\n"},
		"an unknown check names the few": {checks: map[string]healthz.Check{"a": pass(""), "b": pass("")}, target: "/readyz/c", status: 404, body: "no check \"c\"; there are: a, b\n"},
		"only reading":                   {checks: map[string]healthz.Check{"a": pass("")}, method: "POST", target: "/readyz", status: 405, body: "use GET\n"},
	} {
		t.Run(name, func(t *testing.T) {
			var checks healthz.Checks
			for name, check := range tc.checks {
				checks.Add(name, check)
			}
			recorder := httptest.NewRecorder()
			checks.Handler("/readyz").ServeHTTP(recorder, httptest.NewRequest(stdcmp.Or(tc.method, "GET"), tc.target, nil))
			if diff := cmp.Diff(fmt.Sprint(tc.status, " ", tc.body), fmt.Sprint(recorder.Code, " ", recorder.Body.String())); diff != "" {
				t.Errorf("answer (-want +got):\n%s", diff)
			}
		})
	}
}

func TestRemovedCheckIsNotCalled(t *testing.T) {
	var checks healthz.Checks
	removeOld := checks.Add("a", fail("old"))
	removeNew := checks.Add("a", fail("new"))
	get := func() string {
		recorder := httptest.NewRecorder()
		checks.Handler("/livez").ServeHTTP(recorder, httptest.NewRequest("GET", "/livez", nil))
		return recorder.Body.String()
	}
	removeOld() // replaced already: must not take the newer one out
	if got := get(); !strings.Contains(got, "failed: new") {
		t.Errorf("after the replaced check was removed: got %q, want the newer check to fail still", got)
	}
	removeNew()
	if got := get(); got != "ok" {
		t.Errorf("after the removal: got %q, want ok", got)
	}
}

func ExampleChecks() {
	var ready healthz.Checks
	remove := ready.Add("election", func(context.Context) (string, error) { return "standby, leader is manager-0", nil })
	defer remove()

	recorder := httptest.NewRecorder()
	ready.Handler("/readyz").ServeHTTP(recorder, httptest.NewRequest("GET", "/readyz?verbose", nil))
	fmt.Print(recorder.Body.String())
	// Output:
	// [+]election ok: standby, leader is manager-0
	// readyz check passed
}
