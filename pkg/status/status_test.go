// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package status_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/incumbent-io/incumbent/pkg/status"
)

func snapshot() status.Snapshot {
	taken := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	since := taken.Add(-90 * time.Second)
	return status.Snapshot{
		Manager: "fleet", Version: "v1.2.3", Identity: "fleet-0_x", Pod: "fleet-system/fleet-0",
		Started: taken.Add(-time.Hour), Taken: taken,
		Groups: []status.Group{
			{Name: "default", Lease: "fleet-system/fleet", State: "leading", Holder: "fleet-0_x", Epoch: 7, Since: &since, FenceOpen: true},
			{Name: "net", Lease: "fleet-system/fleet-net", State: "observing", Holder: "fleet-1_y"},
		},
		Controllers: []status.Controller{
			{Name: "drain", State: "running", Since: since},
			{Name: "quota", Group: "default", State: "backoff", Reason: "out of luck", Since: taken.Add(-3 * time.Second), Failures: 4},
		},
		Config: &status.Config{File: "/etc/fleet/config.yaml", LoadedAt: since, Error: "line 3: unknown field\nline 5: wrong type", Pinned: []string{"standby"}},
	}
}

func ExampleWriteText() {
	_ = status.WriteText(os.Stdout, snapshot())
	// Output:
	// fleet v1.2.3, fleet-system/fleet-0, up 60m
	//
	// LEASE GROUP   LEASE                    STATE       HOLDER      EPOCH   FOR
	// default       fleet-system/fleet       leading     fleet-0_x   7       90s
	// net           fleet-system/fleet-net   observing   fleet-1_y   -       -
	//
	// CONTROLLER   LEASE GROUP     STATE     FOR   FAILURES   REASON
	// drain        every replica   running   90s   0          -
	// quota        default         backoff   3s    4          out of luck
	//
	// Configuration /etc/fleet/config.yaml, taken over 90s ago
	// not used: line 3: unknown field
	// not used: line 5: wrong type
	// pinned by a flag: standby
}

func TestHandlerServesJSONToThoseWhoAccept(t *testing.T) {
	for _, tc := range []struct{ target, accept, want string }{
		{"/controllers", "", "text/plain; charset=utf-8"},
		{"/controllers", "*/*", "text/plain; charset=utf-8"},
		{"/controllers", "application/json", "application/json"},
		{"/controllers?format=json", "", "application/json"},
	} {
		request := httptest.NewRequest(http.MethodGet, tc.target, nil)
		request.Header.Set("Accept", tc.accept)
		response := httptest.NewRecorder()
		status.Handler(snapshot).ServeHTTP(response, request)
		if got := response.Header().Get("Content-Type"); got != tc.want {
			t.Errorf("%s, Accept %q: got %s, want %s", tc.target, tc.accept, got, tc.want)
		}
		if tc.want == "application/json" {
			var got status.Snapshot
			if err := json.Unmarshal(response.Body.Bytes(), &got); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(snapshot(), got); diff != "" {
				t.Errorf("snapshot (-want +got):\n%s", diff)
			}
		}
	}
}
