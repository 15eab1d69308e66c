// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package faults

import (
	"context"
	"fmt"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/incumbent-io/incumbent/test/faults/candidate"
	"github.com/incumbent-io/incumbent/test/faults/mono"
)

// bearable is for how long a leader keeps its leadership without the API server.
const bearable = 7 * time.Second

// inContact is how long it may take, on a busy machine, until an informer that is in
// contact with the API server has what it had missed.
const inContact = time.Second

// TestAPIServerAway takes the API server away from several fleets at once, for as long
// as leadership must survive. Nothing else runs meanwhile.
func TestAPIServerAway(t *testing.T) {
	const frozen, killed = "8. API server frozen for 7 s", "8. API server killed, away for up to 7 s"
	const groups = 3
	var members []*fleet
	t.Run("fleets", func(t *testing.T) {
		for range groups {
			members = append(members, newFleet(t, "away", 3))
		}
		for _, f := range members {
			for range 3 {
				f.add(spec{kind: ours, every: 200 * time.Millisecond})
			}
		}
		for _, f := range members {
			for _, m := range f.list() {
				f.joined(m)
			}
			f.leader()
		}
		freeze := func() {
			shared.component(t, "apiserver", "stop")
			time.Sleep(bearable) // the fault
			shared.component(t, "apiserver", "cont")
		}
		for range times(1, 7) {
			away(t, members, frozen, freeze)
		}
		// Its start counts, so the first time tells how long that takes.
		start := away(t, members, killed, func() { shared.component(t, "apiserver", "restart") })
		for range times(1, 7) {
			away(t, members, killed, func() {
				shared.component(t, "apiserver", "kill")
				time.Sleep(bearable - start*11/10) // the fault
				shared.component(t, "apiserver", "start")
			})
		}
		for range times(0, 3) {
			awayForAMinute(t, members)
		}
		for _, f := range members {
			f.clean(ours, f.settled().verify(f.kindOf, nil))
		}
	})
	shared.recovered(t)
}

// away makes the API server fail and come back, and sees whether each leader has kept
// its leadership. It returns how long the API server did not answer.
func away(t *testing.T, members []*fleet, scenario string, fail func()) time.Duration {
	t.Helper()
	type term struct {
		holder string
		epoch  int64
	}
	before := map[*fleet]term{}
	for _, f := range members {
		v := f.settled()
		before[f] = term{v.lease().holder, v.lease().epoch}
	}
	began := mono.Now()
	fail()
	shared.answers(t)
	took := time.Duration(mono.Now() - began)
	duration := report.row(scenario, "time without an answer", "s")
	kept := report.row(scenario, "leaderships lost", "")
	for _, f := range members {
		back := mono.Now()
		v := f.await(40*time.Second, "two renewals after the API server is back", func(v view) bool {
			n := 0
			for _, e := range v.leases {
				if e.seen > back && e.holder != "" {
					n++
				}
			}
			return n >= 2
		})
		_, _, works := f.settled().leader()
		lost := v.lease().holder != before[f].holder || v.lease().epoch != before[f].epoch || !works
		duration.add(ours, secs(int64(took)), false)
		// A start that took longer than foreseen is no fault of the leader.
		promised := took <= bearable+100*time.Millisecond
		kept.add(ours, map[bool]float64{true: 1}[lost], lost && promised)
		if lost && promised {
			t.Errorf("%s: %s lost its leadership while the API server did not answer for %v", f.namespace, before[f].holder, took)
		}
	}
	return took
}

// awayForAMinute kills the API server, starts it again after a minute, and measures
// how long after its return somebody leads again.
func awayForAMinute(t *testing.T, members []*fleet) {
	t.Helper()
	shared.component(t, "apiserver", "kill")
	time.Sleep(time.Minute) // the fault
	shared.component(t, "apiserver", "start")
	shared.answers(t)
	back := mono.Now()
	row := report.row("9. API server killed, away for 60 s", "return to a leader that works", "s")
	for _, f := range members {
		v := f.await(time.Minute, "a leader that works", func(v view) bool {
			_, begin, ok := v.leader()
			return ok && v.lease().seen > back && begin.At > back-int64(30*time.Second)
		})
		_, begin, _ := v.leader()
		row.add(ours, secs(max(0, begin.At-back)), false)
		for _, m := range f.list() {
			f.standing(m, v)
		}
	}
	row.atMost(t, 3, 3, 20)
}

// TestUnreachableForAMinute cuts all replicas of a fleet off for a minute: packets are
// dropped, or connections refused.
func TestUnreachableForAMinute(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"drop", "refuse"} {
		scenario := fmt.Sprintf("9. All replicas cut off for 60 s (%s)", mode)
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			back := report.row(scenario, "return to a leader that works", "s")
			fresh := report.row(scenario, "begin of the work to informers that know what they had missed", "ms")
			alive := report.row(scenario, "processes restarted", "")
			t.Run("trials", func(t *testing.T) {
				for n := range times(1, 10) {
					t.Run(fmt.Sprint(n), func(t *testing.T) { unreachable(t, mode, back, fresh, alive) })
				}
			})
			back.atMost(t, 3, 3, 20)
		})
	}
}

func unreachable(t *testing.T, mode string, back, fresh, alive *row) {
	t.Parallel()
	f := newFleet(t, "unreachable-"+mode, 3)
	f.start(3, spec{kind: ours, every: 200 * time.Millisecond})
	f.leader()
	for _, m := range f.list() {
		f.net(m, mode, 0)
	}
	minute := time.After(time.Minute)
	f.await(30*time.Second, "the end of the leader's work", func(v view) bool {
		_, _, works := v.leader()
		return !works
	})
	f.mark("second")
	<-minute
	healed := mono.Now()
	for _, m := range f.list() {
		f.net(m, "heal", 0)
	}
	v := f.await(60*time.Second, "a leader that works", func(v view) bool {
		_, begin, ok := v.leader()
		return ok && begin.At > healed
	})
	_, begin, _ := v.leader()
	back.add(ours, secs(begin.At-healed), false)
	v = f.await(60*time.Second, "an informer that knows what it had missed", func(v view) bool {
		known, ok := v.last(begin.pod, candidate.Knows)
		return ok && known.Record.Note == "second"
	})
	known, _ := v.last(begin.pod, candidate.Knows)
	late := max(0, known.At-begin.At)
	stale := time.Duration(late) > inContact
	if stale {
		t.Errorf("%s had worked for %.3f s when its informer learnt what it had missed while it was cut off", begin.Who, secs(late))
	}
	fresh.add(ours, millis(late), stale)
	for _, m := range f.list() {
		f.standing(m, v)
	}
	v = f.settled()
	for _, m := range f.list() {
		restarted := 0
		for _, n := range v.notes {
			if n.pod == m.name && n.What == candidate.Began {
				restarted++
			}
		}
		alive.add(ours, float64(restarted-1), restarted != 1)
	}
	f.clean(ours, v.verify(f.kindOf, v.sentInTime()))
}

// mark changes the object that the candidates' informers have.
func (f *fleet) mark(value string) {
	f.t.Helper()
	patch := []byte(fmt.Sprintf(`{"data":{"value":%q}}`, value))
	f.must(f.c.Client.CoreV1().ConfigMaps(f.namespace).Patch(context.Background(), candidate.Marker, types.MergePatchType, patch, metav1.PatchOptions{}))
}

// sentInTime excuses writes that were sent while that was permitted and arrived only
// after another candidate had acquired the Lease: what a network delivers late is
// beyond the fence (docs/safety.md, promise B).
func (v view) sentInTime() func(writeEvent, string) bool {
	permitted := v.permissions()
	return func(w writeEvent, _ string) bool {
		for _, try := range v.tries {
			if try.Who != w.writer || try.Seq != w.seq {
				continue
			}
			for _, i := range permitted {
				if i.process == try.process && i.begin <= try.Call && try.Call <= i.end+int64(10*time.Millisecond) {
					return true
				}
			}
		}
		return false
	}
}
