// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package leaderelection

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// scene is a scenario under way: candidates on a network without latency, whose
// story is compared as a whole.
type scene struct {
	*simWorld
	*testing.T
}

func (s scene) start(name string, drain time.Duration) *simCandidate {
	c := s.prepare(name, 1, nil)
	c.drain = func() time.Duration { return drain }
	c.launch()
	return c
}

func (s scene) stock(name string) *simCandidate {
	c := s.prepare(name, 1, nil)
	c.identity = &Identity{name: name + "_stock"}
	c.link.name = c.identity.name
	c.launchStock(true)
	return c
}

func (s scene) pass(d time.Duration) { time.Sleep(d) }

// cut makes a partition.
func (s scene) cut(c *simCandidate) {
	s.tell("%s is cut off", c.name)
	c.link.set(func(f *simFaults) { f.cutThere, f.cutBack = true, true })
}

func (s scene) heal(c *simCandidate) {
	s.tell("%s is healed", c.name)
	c.link.set(func(f *simFaults) { *f = simFaults{} })
	c.link.reset()
}

const seconds = time.Second

// scenarios tell what happens as "time what"; a candidate that ends without
// being told to was stopped by the end of the scene.
var scenarios = []struct {
	name  string
	setup func(w *simWorld)
	play  func(s scene)
	want  string
}{{
	name: "hand-over follows the drain at once",
	play: func(s scene) {
		a := s.start("a", 1500*time.Millisecond)
		s.pass(seconds)
		s.start("b", 0)
		s.pass(4 * seconds)
		a.stop()
		s.pass(5 * seconds)
	},
	want: `
0.0 a created the lease, transitions 0
0.0 a leads
5.0 a told to stop: asked to stop
6.5 a returned
6.5 a cleared the holder
6.5 a stopped
6.5 a ended: <nil>
6.5 b took the lease, transitions 1
6.5 b leads`,
}, {
	name: "a crash costs one lease duration from the last renewal",
	play: func(s scene) {
		a := s.start("a", 0)
		s.pass(time.Millisecond)
		s.start("b", 0)
		s.pass(7 * seconds)
		a.crash()
		s.pass(17 * seconds)
	},
	want: `
0.0 a created the lease, transitions 0
0.0 a leads
7.0 a told to stop: asked to stop
7.0 a returned
7.0 a stopped
7.0 a ended: the term was not drained: the lease was not released
21.0 b took the lease, transitions 1
21.0 b leads`,
}, {
	name: "a deleted lease is created again and the term goes on",
	play: func(s scene) {
		a := s.start("a", 0)
		s.pass(seconds)
		s.start("b", 0)
		s.pass(4 * seconds)
		before := a.term().Epoch()
		s.server.delete()
		s.pass(10 * seconds)
		if after := a.term().Epoch(); after <= before {
			s.Errorf("epoch %d after the deletion, %d before", after, before)
		}
	},
	want: `
0.0 a created the lease, transitions 0
0.0 a leads
5.0 lease deleted
5.0 a created the lease, transitions 1`,
}, {
	name: "a lease deleted while its leader is cut off is created after a lease duration",
	play: func(s scene) {
		a := s.start("a", 0)
		s.pass(seconds)
		s.start("b", 0)
		s.pass(4 * seconds)
		s.cut(a)
		s.pass(seconds)
		s.server.delete()
		s.pass(20 * seconds)
	},
	want: `
0.0 a created the lease, transitions 0
0.0 a leads
5.0 a is cut off
6.0 lease deleted
14.0 a told to stop: the renew deadline passed without a renewal
14.0 a returned
14.0 a stopped
21.0 b created the lease, transitions 1
21.0 b leads`,
}, {
	name: "edits of labels change nothing",
	play: func(s scene) {
		s.start("a", 0)
		s.pass(time.Millisecond)
		s.start("b", 0)
		for range 30 {
			s.pass(700 * time.Millisecond)
			s.server.edit(func(l *coordinationv1.Lease) { l.Labels = map[string]string{"at": time.Now().Format("150405.000")} })
		}
	},
	want: `
0.0 a created the lease, transitions 0
0.0 a leads`,
}, {
	name: "labels edited all the time do not keep a dead lease alive",
	play: func(s scene) {
		a := s.start("a", 0)
		s.pass(time.Millisecond)
		s.start("b", 0)
		s.pass(seconds)
		a.crash()
		for range 200 {
			s.pass(100 * time.Millisecond)
			s.server.edit(func(l *coordinationv1.Lease) { l.Labels = map[string]string{"at": time.Now().Format("150405.000")} })
		}
	},
	want: `
0.0 a created the lease, transitions 0
0.0 a leads
1.0 a told to stop: asked to stop
1.0 a returned
1.0 a stopped
1.0 a ended: the term was not drained: the lease was not released
15.0 b took the lease, transitions 1
15.0 b leads`,
}, {
	name: "a holder edited away is lost at once and the leader rejoins",
	play: func(s scene) {
		s.start("a", 0)
		s.pass(5 * seconds)
		other := "b_uid_inc1-aaaaaaaaaaaaaaaaaaaaaaaaaa"
		s.server.edit(func(l *coordinationv1.Lease) { l.Spec.HolderIdentity = &other })
		s.pass(20 * seconds)
	},
	want: `
0.0 a created the lease, transitions 0
0.0 a leads
5.0 hand took the lease, transitions 0
5.0 a stopped
5.0 a told to stop: the lease was lost
5.0 a returned
20.0 a took the lease, transitions 1
20.0 a leads`,
}, {
	name:  "with on-lost exit Run ends",
	setup: func(w *simWorld) { w.onLost = Exit },
	play: func(s scene) {
		a := s.start("a", seconds)
		s.pass(5 * seconds)
		other := "b_uid_inc1-aaaaaaaaaaaaaaaaaaaaaaaaaa"
		s.server.edit(func(l *coordinationv1.Lease) { l.Spec.HolderIdentity = &other })
		s.pass(5 * seconds)
		if err := a.run(); !errors.Is(err, ErrLost) {
			s.Errorf("Run returned %v", err)
		}
	},
	want: `
0.0 a created the lease, transitions 0
0.0 a leads
5.0 hand took the lease, transitions 0
5.0 a stopped
5.0 a told to stop: the lease was lost
6.0 a returned
6.0 a ended: the lease was lost`,
}, {
	name: "controllers that do not stop in time end the process",
	play: func(s scene) {
		a := s.start("a", 30*seconds)
		s.pass(5 * seconds)
		other := "b_uid_inc1-aaaaaaaaaaaaaaaaaaaaaaaaaa"
		s.server.edit(func(l *coordinationv1.Lease) { l.Spec.HolderIdentity = &other })
		s.pass(9 * seconds)
		if err := a.elector.Watchdog().check(); err == nil || !strings.Contains(err.Error(), "controllers still run 9s") {
			s.Errorf("watchdog: %v", err)
		}
		s.pass(2 * seconds)
		if err := a.run(); !errors.Is(err, ErrLost) {
			s.Errorf("Run returned %v", err)
		}
	},
	want: `
0.0 a created the lease, transitions 0
0.0 a leads
5.0 hand took the lease, transitions 0
5.0 a stopped
5.0 a told to stop: the lease was lost
15.0 a ended: the lease was lost`,
}, {
	name: "an outage shorter than the renew deadline is not noticed",
	play: func(s scene) {
		a := s.start("a", 0)
		s.pass(time.Millisecond)
		s.start("b", 0)
		s.pass(time.Millisecond)
		for _, c := range s.all() {
			s.cut(c)
		}
		s.pass(7 * seconds)
		for _, c := range s.all() {
			s.heal(c)
		}
		s.pass(10 * seconds)
		if a.term().Check() != nil {
			s.Error("the fence is not open")
		}
	},
	want: `
0.0 a created the lease, transitions 0
0.0 a leads
0.0 a is cut off
0.0 b is cut off
7.0 a is healed
7.0 b is healed`,
}, {
	name: "a lease renewed between renew deadline and cutoff is kept, for the next term",
	play: func(s scene) {
		a := s.start("a", 3*seconds)
		s.pass(time.Millisecond)
		s.cut(a)
		s.pass(12 * seconds)
		s.heal(a)
		s.pass(10 * seconds)
	},
	want: `
0.0 a created the lease, transitions 0
0.0 a leads
0.0 a is cut off
10.0 a told to stop: the renew deadline passed without a renewal
12.0 a is healed
13.0 a returned
13.0 a stopped
13.0 a leads`,
}, {
	name: "a long outage ends the term and the same process leads again",
	play: func(s scene) {
		a := s.start("a", 0)
		s.pass(time.Millisecond)
		s.cut(a)
		s.pass(60 * seconds)
		s.heal(a)
		s.pass(3 * seconds)
	},
	want: `
0.0 a created the lease, transitions 0
0.0 a leads
0.0 a is cut off
10.0 a told to stop: the renew deadline passed without a renewal
10.0 a returned
10.0 a stopped
60.0 a is healed
60.5 a leads`,
}, {
	name: "overtaken, then told to stop: the successor's lease is left alone",
	play: func(s scene) {
		a := s.start("a", 0)
		s.pass(time.Millisecond)
		s.start("b", 0)
		s.pass(5 * seconds)
		s.tell("a is frozen")
		a.gate.freeze()
		s.pass(25 * seconds)
		s.tell("a goes on")
		a.stop()
		a.gate.unfreeze()
		s.pass(10 * seconds)
	},
	want: `
0.0 a created the lease, transitions 0
0.0 a leads
5.0 a is frozen
19.0 b took the lease, transitions 1
19.0 b leads
30.0 a goes on
30.0 a stopped
30.0 a told to stop: the renew deadline passed without a renewal
30.0 a returned
30.0 a ended: <nil>`,
}, {
	name: "a drain that takes too long releases nothing",
	play: func(s scene) {
		a := s.start("a", 60*seconds)
		s.pass(seconds)
		a.stop()
		s.pass(35 * seconds)
		if err := a.run(); !errors.Is(err, ErrDrainTimeout) {
			s.Errorf("Run returned %v", err)
		}
		if a.term().Check() == nil {
			s.Error("the fence is open")
		}
	},
	want: `
0.0 a created the lease, transitions 0
0.0 a leads
1.0 a told to stop: asked to stop
31.0 a stopped
31.0 a ended: the term was not drained: the lease was not released`,
}, {
	name: "an abandoned drain releases nothing",
	play: func(s scene) {
		a := s.start("a", 10*seconds)
		s.pass(seconds)
		a.stop()
		s.pass(seconds)
		a.elector.Abandon()
		a.elector.Abandon()
		if a.term().Check() == nil {
			s.Error("the fence is open after Abandon has returned")
		}
		s.pass(10 * seconds)
		if err := a.run(); !errors.Is(err, ErrDrainTimeout) {
			s.Errorf("Run returned %v", err)
		}
	},
	want: `
0.0 a created the lease, transitions 0
0.0 a leads
1.0 a told to stop: asked to stop
2.0 a stopped
2.0 a ended: the term was not drained: the lease was not released
11.0 a returned`,
}, {
	name: "a stock holder that releases is followed after two seconds",
	play: func(s scene) {
		a := s.stock("a")
		s.pass(time.Second)
		s.start("b", 0)
		s.pass(4 * seconds)
		a.stop()
		s.pass(10 * seconds)
	},
	want: `
0.0 a created the lease, transitions 0
5.0 a cleared the holder
7.0 b took the lease, transitions 1
7.0 b leads`,
}, {
	name: "a stock holder that dies is followed three seconds later than ours",
	play: func(s scene) {
		a := s.stock("a")
		s.pass(time.Second)
		s.start("b", 0)
		s.pass(4 * seconds)
		a.crash()
		s.pass(20 * seconds)
	},
	want: `
0.0 a created the lease, transitions 0
22.0 b took the lease, transitions 1
22.0 b leads`,
}, {
	name: "a stock candidate takes a released lease within its retry period",
	play: func(s scene) {
		a := s.start("a", 0)
		s.pass(seconds)
		b := s.stock("b")
		s.pass(4 * seconds)
		a.stop()
		s.pass(5 * seconds)
		if s.leader() != b {
			s.Error("b does not lead")
		}
	},
	want: "anything",
}, {
	name: "a restarted process takes over from its dead predecessor at once",
	play: func(s scene) {
		a := s.start("a", 0)
		s.pass(seconds)
		s.start("b", 0)
		s.pass(29 * seconds)
		a.crash()
		again := s.prepare("again", 1, nil)
		again.identity.dead = []string{a.identity.name}
		s.pass(500 * time.Millisecond)
		again.launch()
		s.pass(5 * seconds)
	},
	want: `
0.0 a created the lease, transitions 0
0.0 a leads
30.0 a told to stop: asked to stop
30.0 a returned
30.0 a stopped
30.0 a ended: the term was not drained: the lease was not released
30.5 again took the lease, transitions 1
30.5 again leads`,
}, {
	name: "a crash loop hands the lease to a standby",
	play: func(s scene) {
		a := s.start("a", 0)
		s.pass(seconds)
		s.start("b", 0)
		s.pass(9 * seconds)
		a.crash()
		again := s.prepare("again", 1, nil)
		again.identity.dead = []string{a.identity.name}
		s.pass(500 * time.Millisecond)
		again.launch()
		s.pass(5 * seconds)
	},
	want: `
0.0 a created the lease, transitions 0
0.0 a leads
10.0 a told to stop: asked to stop
10.0 a returned
10.0 a stopped
10.0 a ended: the term was not drained: the lease was not released
10.5 again cleared the holder
10.5 b took the lease, transitions 1
10.5 b leads`,
}, {
	name: "wall clock jumps end no term",
	play: func(s scene) {
		a := s.start("a", 0)
		s.pass(time.Millisecond)
		b := s.start("b", 0)
		for _, jump := range []time.Duration{time.Hour, -time.Hour, -time.Hour, time.Hour} {
			s.pass(3300 * time.Millisecond)
			a.clock.jumpWall(jump)
			s.pass(3300 * time.Millisecond)
			b.clock.jumpWall(-jump)
		}
		s.pass(20 * seconds)
	},
	want: `
0.0 a created the lease, transitions 0
0.0 a leads`,
}, {
	name: "a boot clock that jumps ends the term but takes nothing over",
	play: func(s scene) {
		a := s.start("a", 0)
		s.pass(time.Millisecond)
		b := s.start("b", 0)
		s.pass(5 * seconds)
		b.clock.suspend(time.Hour)
		s.pass(5 * seconds)
		a.clock.suspend(time.Hour)
		if a.term().Check() == nil {
			s.Error("the fence is open right after the jump")
		}
		s.pass(10 * seconds)
	},
	want: `
0.0 a created the lease, transitions 0
0.0 a leads
10.5 a told to stop: the renew deadline passed without a renewal
10.5 a returned
10.5 a stopped
10.5 a leads`,
}, {
	name: "without permission nobody crashes and the status says why",
	play: func(s scene) {
		a := s.prepare("a", 1, nil)
		a.link.set(func(f *simFaults) { f.fail = apierrors.NewForbidden(leaseResource, "lease", errors.New("no")) })
		a.launch()
		s.pass(30 * seconds)
		status := a.elector.Status()
		if status.State != StateObserving || status.Contacted || !strings.Contains(status.LastError, "forbidden") {
			s.Errorf("status %+v", status)
		}
		if err := a.elector.Watchdog().check(); err != nil {
			s.Errorf("watchdog: %v", err)
		}
		a.link.set(func(f *simFaults) { f.fail = nil })
		s.pass(2 * seconds)
		if status := a.elector.Status(); status.LastError != "" || !status.Contacted || !status.FenceOpen {
			s.Errorf("status %+v", status)
		}
	},
	want: `
30.3 a created the lease, transitions 0
30.3 a leads`,
}, {
	name: "a standby that was refused once is well again when another leads",
	play: func(s scene) {
		a := s.start("a", 0)
		s.pass(seconds)
		b := s.start("b", 0)
		s.start("c", 0)
		s.pass(seconds)
		// Right after its start an API server may not know the roles yet.
		b.link.set(func(f *simFaults) { f.fail = apierrors.NewForbidden(leaseResource, "lease", errors.New("no")) })
		a.stop()
		s.pass(seconds)
		b.link.set(func(f *simFaults) { f.fail = nil })
		s.pass(5 * seconds)
		if status := b.elector.Status(); status.LastError != "" {
			s.Errorf("status of the standby: %+v", status)
		}
	},
	want: `
0.0 a created the lease, transitions 0
0.0 a leads
2.0 a cleared the holder
2.0 a ended: <nil>
2.0 a returned
2.0 a stopped
2.0 a told to stop: asked to stop
2.0 c leads
2.0 c took the lease, transitions 1`,
}, {
	name: "a lease acquired before a long freeze is renewed before it is led on",
	play: func(s scene) {
		a := s.prepare("a", 1, nil)
		a.link.setLatency(200 * time.Millisecond)
		a.launch()
		for s.server.requestsOf(a.identity.name+" create") == 0 {
			s.pass(time.Millisecond)
		}
		a.gate.freeze()
		s.pass(9 * seconds)
		s.tell("a goes on")
		a.link.setLatency(0)
		a.gate.unfreeze()
		s.pass(seconds)
		if age := a.elector.Status().LeaseAge; age > 1500*time.Millisecond {
			s.Errorf("the term counts from %v ago", age)
		}
		// Transitions tell that the term began with a second write.
		if lease, _ := s.server.get(); *lease.Spec.LeaseTransitions != 1 {
			s.Errorf("%d transitions, want 1", *lease.Spec.LeaseTransitions)
		}
	},
	want: `
0.2 a created the lease, transitions 0
9.1 a goes on
9.1 a leads`,
}, {
	name: "a stop after the renew deadline still releases what was kept",
	play: func(s scene) {
		a := s.start("a", 3*seconds)
		s.pass(time.Millisecond)
		s.cut(a)
		s.pass(11 * seconds)
		s.heal(a)
		a.stop()
		s.pass(5 * seconds)
	},
	want: `
0.0 a created the lease, transitions 0
0.0 a leads
0.0 a is cut off
10.0 a told to stop: the renew deadline passed without a renewal
11.0 a is healed
13.0 a returned
13.0 a cleared the holder
13.0 a stopped
13.0 a ended: <nil>`,
}, {
	name:  "with on-lost exit a term that passed its renew deadline is released",
	setup: func(w *simWorld) { w.onLost = Exit },
	play: func(s scene) {
		a := s.start("a", 3*seconds)
		s.pass(time.Millisecond)
		s.cut(a)
		s.pass(11 * seconds)
		s.heal(a)
		s.pass(5 * seconds)
		if err := a.run(); !errors.Is(err, ErrLost) {
			s.Errorf("Run returned %v", err)
		}
	},
	want: `
0.0 a created the lease, transitions 0
0.0 a leads
0.0 a is cut off
10.0 a told to stop: the renew deadline passed without a renewal
11.0 a is healed
13.0 a returned
13.0 a cleared the holder
13.0 a stopped
13.0 a ended: the lease was lost`,
}, {
	name: "controllers that ignore the renew deadline end the process, though the lease was kept",
	play: func(s scene) {
		a := s.start("a", 60*seconds)
		s.pass(time.Millisecond)
		s.cut(a)
		s.pass(11 * seconds)
		s.heal(a)
		s.pass(12 * seconds)
		if err := a.run(); !errors.Is(err, ErrLost) {
			s.Errorf("Run returned %v", err)
		}
	},
	want: `
0.0 a created the lease, transitions 0
0.0 a leads
0.0 a is cut off
10.0 a told to stop: the renew deadline passed without a renewal
11.0 a is healed
20.0 a stopped
20.0 a ended: the lease was lost`,
}, {
	name: "an outage during the drain ends in time, without a release",
	play: func(s scene) {
		a := s.start("a", 8*seconds)
		s.pass(9 * seconds)
		a.stop()
		s.pass(time.Millisecond)
		s.cut(a)
		s.pass(20 * seconds)
		if err := a.run(); err != nil {
			s.Errorf("Run returned %v", err)
		}
	},
	want: `
0.0 a created the lease, transitions 0
0.0 a leads
9.0 a told to stop: asked to stop
9.0 a is cut off
17.0 a returned
22.7 a stopped
22.7 a ended: <nil>`,
}, {
	name: "abandoning a lost term ends the wait for its controllers",
	play: func(s scene) {
		a := s.start("a", 9*seconds)
		s.pass(seconds)
		other := "b_uid_inc1-aaaaaaaaaaaaaaaaaaaaaaaaaa"
		s.server.edit(func(l *coordinationv1.Lease) { l.Spec.HolderIdentity = &other })
		s.pass(seconds)
		a.elector.Abandon()
		if err := a.run(); !errors.Is(err, ErrDrainTimeout) {
			s.Errorf("Run returned %v", err)
		}
		s.pass(10 * seconds)
	},
	want: `
0.0 a created the lease, transitions 0
0.0 a leads
1.0 hand took the lease, transitions 0
1.0 a stopped
1.0 a told to stop: the lease was lost
2.0 a ended: the term was not drained: the lease was not released
10.0 a returned`,
}, {
	name: "a standby that is abandoned just leaves",
	play: func(s scene) {
		s.start("a", 0)
		s.pass(seconds)
		b := s.start("b", 0)
		s.pass(seconds)
		b.elector.Abandon()
		if err := b.run(); err != nil {
			s.Errorf("Run returned %v", err)
		}
	},
	want: `
0.0 a created the lease, transitions 0
0.0 a leads
2.0 b ended: <nil>`,
}}

func TestScenarios(t *testing.T) {
	for _, test := range scenarios {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newSimWorld(1)
				w.latency, w.keepLog, w.steady = 0, true, true
				if test.setup != nil {
					test.setup(w)
				}
				test.play(scene{w, t})
				synctest.Wait()
				w.mu.Lock()
				got := slices.Clone(w.story)
				w.mu.Unlock()
				for _, c := range w.all() {
					c.gate.unfreeze()
					c.stop()
				}
				for _, c := range w.all() {
					<-c.ended
				}
				time.Sleep(2 * time.Minute)
				if want := strings.Split(strings.TrimSpace(test.want), "\n"); want[0] != "anything" {
					// What happens at the same time may be told in any order.
					slices.Sort(want)
					slices.Sort(got)
					if diff := cmp.Diff(want, got); diff != "" {
						t.Errorf("story (-want +got):\n%s", diff)
					}
				}
				for _, v := range w.violations {
					t.Error(v)
				}
				if os.Getenv("SCENARIO_LOG") != "" {
					t.Log("\n" + strings.Join(w.log, "\n"))
				}
			})
		})
	}
}
