// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package manager

import (
	"strings"
	"testing"

	"github.com/incumbent-io/incumbent/pkg/leaderelection"
)

func TestReadinessTellsWhatTheReplicaIs(t *testing.T) {
	status := func(change func(*leaderelection.Status)) leaderelection.Status {
		s := leaderelection.Status{Namespace: "fleet", LeaseName: "manager", State: leaderelection.StateObserving, Contacted: true, Holder: "fleet-1"}
		change(&s)
		return s
	}
	type S = *leaderelection.Status
	for name, tc := range map[string]struct {
		status   leaderelection.Status
		wantNote string
		wantErr  string
	}{
		"standby":                      {status: status(func(S) {}), wantNote: "standby, leader is fleet-1"},
		"standby of nobody":            {status: status(func(s S) { s.Holder = "" }), wantNote: "standby, no leader"},
		"leader":                       {status: status(func(s S) { s.State, s.Epoch = leaderelection.StateLeading, 7 }), wantNote: "leader, epoch 7"},
		"leader that cannot renew":     {status: status(func(s S) { s.State, s.Epoch, s.LastError = leaderelection.StateLeading, 7, "timeout" }), wantNote: "leader, epoch 7; the last request failed: timeout"},
		"no election":                  {status: status(func(s S) { s.State, s.Contacted = leaderelection.StateUnelected, false }), wantNote: "no leader election"},
		"not in contact yet":           {status: status(func(s S) { s.Contacted = false }), wantErr: "has not reached the lease fleet/manager yet"},
		"never in contact, and why":    {status: status(func(s S) { s.Contacted, s.LastError = false, "connection refused" }), wantErr: "fleet/manager: connection refused"},
		"standby that may not compete": {status: status(func(s S) { s.LastError = "forbidden" }), wantErr: "cannot take part in the election on the lease fleet/manager: forbidden"},
	} {
		t.Run(name, func(t *testing.T) {
			note, err := candidacy(tc.status)
			if !strings.HasPrefix(note, tc.wantNote) {
				t.Errorf("note: got %q, want %q", note, tc.wantNote)
			}
			if (err == nil) != (tc.wantErr == "") || err != nil && !strings.Contains(err.Error(), tc.wantErr) {
				t.Errorf("error: got %v, want %q", err, tc.wantErr)
			}
		})
	}
}
