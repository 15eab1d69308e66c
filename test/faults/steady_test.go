// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package faults

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestSteadyState counts, in the audit log, what leadership costs when nothing
// happens.
func TestSteadyState(t *testing.T) {
	t.Parallel()
	window := time.Minute
	if trials > 0 {
		window = 3 * time.Minute
	}
	for _, k := range []kind{ours, stock} {
		t.Run(string(k), func(t *testing.T) {
			t.Parallel()
			steady(t, k, window)
		})
	}
}

func steady(t *testing.T, k kind, window time.Duration) {
	f := newFleet(t, "steady-"+string(k), 3)
	f.start(3, spec{kind: k})
	leader, identity := f.leader()
	v := f.await(20*time.Second, "two renewals by a fleet at rest", func(v view) bool { return len(v.leases) > 3 })
	from := time.Now()
	time.Sleep(window) // what is counted is what happens in this time
	to := time.Now()
	if now := f.settled().lease().holder; now != identity {
		t.Errorf("the leader changed from %s to %s", identity, now)
	}
	counts, watches := f.requests(t, from, to)
	scenario := "7. Steady state"
	minutes := window.Minutes()
	for _, m := range f.list() {
		renewals, others := float64(counts[m.name]["update"])/minutes, 0.0
		for verb, n := range counts[m.name] {
			if verb != "update" {
				others += float64(n) / minutes
			}
		}
		violated := false
		if m == leader {
			violated = k == ours && (renewals > 31 || others > 0)
			report.row(scenario, "leader: renewals", "per minute").add(k, renewals, violated)
			report.row(scenario, "leader: other requests on Leases", "per minute").add(k, others, violated)
		} else {
			violated = k == ours && renewals+others > 1
			report.row(scenario, "standby: requests on Leases", "per minute").add(k, renewals+others, violated)
		}
		report.row(scenario, "watches on Leases open", "").add(k, float64(watches[m.name]), k == ours && watches[m.name] != 1)
		if violated || k == ours && watches[m.name] != 1 {
			t.Errorf("%s (leader: %v): in %v %v requests on Leases, %d watches open", m.name, m == leader, window, counts[m.name], watches[m.name])
		}
	}
	f.clean(k, v.verify(f.kindOf, nil))
}

// requests returns, for each Pod of the fleet, how many requests on Leases it made in
// a time, by verb, without watches, and how many watches were open at its end.
func (f *fleet) requests(t *testing.T, from, to time.Time) (counts map[string]map[string]int, watches map[string]int) {
	t.Helper()
	user := fmt.Sprintf("system:serviceaccount:%s:default", f.namespace)
	requests, err := f.c.Audit(time.Time{}, user).Requests(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	counts, watches = map[string]map[string]int{}, map[string]int{}
	for _, r := range requests {
		pod := strings.Join(r.User.Extra["authentication.kubernetes.io/pod-name"], "")
		switch at := r.RequestReceivedTimestamp; {
		case r.ObjectRef.Resource != "leases" || r.User.Username != user:
		case r.Verb == "watch" && r.Stage == "ResponseStarted" && at.Before(to):
			watches[pod]++
		case r.Verb == "watch" && r.Stage == "ResponseComplete" && r.StageTimestamp.Before(to):
			watches[pod]--
		case r.Verb != "watch" && at.After(from) && at.Before(to):
			if counts[pod] == nil {
				counts[pod] = map[string]int{}
			}
			counts[pod][r.Verb]++
		}
	}
	return counts, watches
}
