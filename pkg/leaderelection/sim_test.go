// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package leaderelection

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

var (
	seedCount = flag.Int("seeds", 0, "number of seeds of the simulation; 0: 2000, or 200 with the race detector or -short")
	firstSeed = flag.Uint64("seed", 1, "first seed of the simulation")
	simLog    = flag.Bool("simlog", false, "print everything that happens in each simulation")
)

// simPlan is what a seed stands for.
type simPlan struct {
	seed   uint64
	stock  int  // how many candidates are client-go's
	only   bool // nothing but client-go's: the negative control
	off    switches
	length time.Duration
}

// simulate runs one seed and returns its world.
func simulate(t *testing.T, plan simPlan) *simWorld {
	var w *simWorld
	synctest.Test(t, func(t *testing.T) {
		w = newSimWorld(plan.seed)
		w.keepLog = *simLog
		w.off = plan.off
		s := &simulation{simWorld: w, plan: plan, rng: rand.New(rand.NewPCG(plan.seed, 1)), maxDuration: w.timing.LeaseDuration}
		s.run()
	})
	return w
}

// simulation draws the life of a world from its seed.
type simulation struct {
	*simWorld
	plan        simPlan
	rng         *rand.Rand
	maxDuration time.Duration // the longest a lease ever claimed
	names       int
	foreign     bool      // a holder was edited to one that is not ours
	deleted     time.Time // when the lease was last deleted
}

func (s *simulation) chance(p float64) bool { return s.rng.Float64() < p }

func (s *simulation) between(lo, hi time.Duration) time.Duration {
	return lo + time.Duration(s.rng.Int64N(int64(hi-lo)))
}

func (s *simulation) run() {
	if s.chance(0.2) {
		s.latency = 2 * time.Millisecond
	}
	if s.chance(0.25) {
		s.timing = Timing{LeaseDuration: 5 * time.Second, RenewDeadline: 3 * time.Second, RetryPeriod: time.Second, InFlightBudget: 500 * time.Millisecond}
		s.maxDuration = s.timing.LeaseDuration
	}
	s.sharing = s.seed%3 == 0
	n := 3 + s.rng.IntN(3)
	for i := range n {
		s.add(i < s.plan.stock || s.plan.only, nil)
		if s.chance(0.5) {
			time.Sleep(s.between(0, 3*time.Second))
		}
	}
	end := time.Now().Add(s.plan.length)
	for time.Now().Before(end) {
		s.sleep(s.between(50*time.Millisecond, 8*time.Second))
		s.fault()
	}
	s.heal()
	s.awaitLeader()
	s.finish()
}

// sleep looks for two open fences every now and then.
func (s *simulation) sleep(d time.Duration) {
	for d > 0 {
		step := min(d, 100*time.Millisecond)
		time.Sleep(step)
		d -= step
		s.check()
	}
}

func (s *simulation) add(stock bool, identity *Identity) *simCandidate {
	s.names++
	rate := 1.0
	if !stock {
		rate = 0.99 + 0.02*s.rng.Float64()
	}
	c := s.prepare(fmt.Sprintf("c%d", s.names), rate, identity)
	drains := rand.New(rand.NewPCG(s.seed, uint64(s.names)))
	var mu sync.Mutex
	c.drain = func() time.Duration {
		mu.Lock()
		defer mu.Unlock()
		if drains.Float64() < 0.5 {
			return 0
		}
		return time.Duration(drains.Float64() * float64(4*time.Second))
	}
	if stock {
		c.launchStock(s.chance(0.5))
	} else {
		c.launch()
	}
	return c
}

// alive returns the candidates that run.
func (s *simulation) alive() []*simCandidate {
	var alive []*simCandidate
	for _, c := range s.all() {
		select {
		case <-c.ended:
		default:
			if !c.crashedNow() {
				alive = append(alive, c)
			}
		}
	}
	return alive
}

// victim returns a candidate, the leader more often than others.
func (s *simulation) victim() *simCandidate {
	if l := s.leader(); l != nil && s.chance(0.6) {
		return l
	}
	alive := s.alive()
	if len(alive) == 0 {
		return nil
	}
	return alive[s.rng.IntN(len(alive))]
}

// during applies a fault to a link for a while.
func (s *simulation) during(c *simCandidate, lo, hi time.Duration, what string, on func(*simFaults), off func(*simFaults)) {
	d := s.between(lo, hi)
	s.note("fault: %s: %s for %v", c.name, what, d)
	c.link.set(on)
	go func() {
		time.Sleep(d)
		c.link.set(off)
	}()
}

func (s *simulation) fault() {
	c := s.victim()
	if c == nil {
		s.add(false, nil)
		return
	}
	switch s.rng.IntN(18) {
	case 0:
		s.during(c, time.Second, 40*time.Second, "partition", func(f *simFaults) { f.cutThere, f.cutBack = true, true }, func(f *simFaults) { f.cutThere, f.cutBack = false, false })
	case 1:
		s.during(c, time.Second, 30*time.Second, "answers are dropped", func(f *simFaults) { f.cutBack = true }, func(f *simFaults) { f.cutBack = false })
	case 2:
		s.during(c, time.Second, 30*time.Second, "requests are refused", func(f *simFaults) { f.refuse, f.stall = true, true }, func(f *simFaults) { f.refuse, f.stall = false, false })
	case 3, 4:
		late := s.between(100*time.Millisecond, 12*time.Second)
		what := fmt.Sprintf("answers %v late", late)
		if s.chance(0.5) {
			// and then nothing at all
			s.during(c, 2*time.Second, 5*time.Second, what, func(f *simFaults) { f.late = late }, func(f *simFaults) { f.late = 0; f.cutThere, f.cutBack = true, true })
			d := s.between(20*time.Second, 30*time.Second)
			go func() {
				time.Sleep(d)
				c.link.set(func(f *simFaults) { f.cutThere, f.cutBack = false, false })
			}()
		} else {
			s.during(c, 2*time.Second, 20*time.Second, what, func(f *simFaults) { f.late = late }, func(f *simFaults) { f.late = 0 })
		}
	case 5:
		p := s.rng.Float64()
		s.during(c, time.Second, 20*time.Second, fmt.Sprintf("%.0f %% of answers lost", 100*p), func(f *simFaults) { f.lose = p }, func(f *simFaults) { f.lose = 0 })
	case 6:
		s.during(c, time.Second, 40*time.Second, "watch stalls", func(f *simFaults) { f.stall = true }, func(f *simFaults) { f.stall = false })
	case 7:
		stale := 1 + s.rng.IntN(10)
		s.during(c, time.Second, 20*time.Second, "stale lists, watch broken", func(f *simFaults) { f.stale = stale }, func(f *simFaults) { f.stale = 0 })
		c.link.reset()
	case 8:
		s.deleteLease()
	case 9:
		s.edit()
	case 10:
		d := s.between(time.Second, 40*time.Second)
		s.note("fault: %s: frozen for %v", c.name, d)
		c.gate.freeze()
		suspended := s.chance(0.3)
		go func() {
			time.Sleep(d)
			if suspended {
				c.clock.suspend(d)
			}
			c.gate.unfreeze()
		}()
	case 11:
		jump := time.Duration(s.rng.Int64N(int64(2*time.Hour))) - time.Hour
		s.note("fault: %s: wall clock jumps by %v", c.name, jump)
		c.clock.jumpWall(jump)
	case 12:
		d := s.between(0, time.Hour)
		s.note("fault: %s: boot clock jumps by %v", c.name, d)
		c.clock.suspend(d)
	case 13:
		s.note("fault: %s: crash", c.name)
		c.crash()
		restart, reclaim, stock := s.between(0, 10*time.Second), s.chance(0.5) && !c.stock, c.stock
		time.Sleep(restart)
		var identity *Identity
		if reclaim {
			identity = &Identity{name: strings.Replace(c.identity.name, "_uid_inc1-aaaa", "_uid_inc1-"+base32Digits(s.rng.IntN(1 << 20))[2:], 1), dead: []string{c.identity.name}}
			identity.looping = s.chance(0.2)
		}
		s.add(stock, identity)
	case 14:
		d := s.between(time.Second, 30*time.Second)
		s.note("fault: nobody reaches the API server for %v", d)
		all, refuse := s.alive(), s.chance(0.5)
		for _, c := range all {
			c.link.set(func(f *simFaults) { f.cutThere, f.cutBack, f.refuse = true, true, refuse })
			if refuse {
				c.link.reset()
			}
		}
		go func() {
			time.Sleep(d)
			for _, c := range all {
				c.link.set(func(f *simFaults) { f.cutThere, f.cutBack, f.refuse = false, false, false })
			}
		}()
	case 15:
		err := []error{apierrors.NewInternalError(errors.New("etcd")), apierrors.NewTooManyRequests("full", 1), apierrors.NewForbidden(leaseResource, "lease", errors.New("no")),
			apierrors.NewConflict(leaseResource, "lease", errors.New("a webhook says so"))}[s.rng.IntN(4)]
		s.during(c, time.Second, 20*time.Second, err.Error(), func(f *simFaults) { f.fail = err }, func(f *simFaults) { f.fail = nil })
	default:
		s.note("fault: %s: asked to stop", c.name)
		c.stop()
		stock, wait := c.stock, s.between(0, 10*time.Second)
		time.Sleep(wait)
		s.add(stock, nil)
	}
}

// deleteLease deletes the lease by hand. Candidates of ours that have seen it
// wait; others create it at once, which the contract allows.
func (s *simulation) deleteLease() {
	s.note("fault: the lease is deleted")
	s.server.mu.Lock()
	fresh := s.server.lease != nil && time.Since(s.server.lease.CreationTimestamp.Time) < 3*time.Second
	s.server.mu.Unlock()
	if fresh {
		return // the epoch has a grain of a second
	}
	if time.Since(s.deleted) < 2*time.Minute {
		// Who was cut off since the last deletion cannot know that somebody led
		// in between.
		s.taintNow()
	}
	s.deleted = time.Now()
	s.server.delete()
}

// edit changes the lease by hand.
func (s *simulation) edit() {
	switch s.rng.IntN(4) {
	case 0:
		s.note("fault: labels are edited")
		s.server.edit(func(l *coordinationv1.Lease) { l.Labels = map[string]string{"edited": fmt.Sprint(s.rng.IntN(100))} })
	case 1:
		s.note("fault: annotations are edited")
		s.server.edit(func(l *coordinationv1.Lease) {
			l.Annotations = map[string]string{"edited": fmt.Sprint(s.rng.IntN(100))}
		})
	case 2:
		holder := []string{"", "somebody"}[s.rng.IntN(2)]
		s.note("fault: the holder is edited to %q", holder)
		s.foreign = true
		s.markEdit(false)
		s.server.edit(func(l *coordinationv1.Lease) { l.Spec.HolderIdentity = &holder })
	case 3:
		seconds := int32(1 + s.rng.IntN(20))
		s.note("fault: the duration is edited to %d", seconds)
		s.markEdit(true)
		s.maxDuration = max(s.maxDuration, time.Duration(seconds)*time.Second)
		s.server.edit(func(l *coordinationv1.Lease) { l.Spec.LeaseDurationSeconds = &seconds })
	}
}

func (s *simulation) markEdit(shortened bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.edited = time.Now()
	if shortened {
		s.shortened = s.edited
	}
}

// heal ends all faults.
func (s *simulation) heal() {
	s.note("all faults healed")
	for _, c := range s.alive() {
		c.gate.unfreeze()
		c.link.set(func(f *simFaults) { *f = simFaults{} })
		c.link.reset()
	}
}

// awaitLeader wants somebody to lead in time.
func (s *simulation) awaitLeader() {
	// A lease duration, on a clock that is slow; a pause before the next try; and
	// a few requests.
	limit := s.maxDuration*101/99 + maxBackoff + 500*time.Millisecond
	hasStock := s.foreign
	for _, c := range s.all() {
		hasStock = hasStock || c.stock
	}
	if hasStock {
		limit += stockSlack + 3*s.timing.RetryPeriod
	}
	for began := time.Now(); s.leader() == nil; {
		if time.Since(began) > limit {
			s.violate("nobody leads %v after the last fault was healed", limit)
			return
		}
		s.sleep(100 * time.Millisecond)
	}
	s.sleep(s.between(0, 5*time.Second))
}

// finish stops everybody and waits until nothing is left.
func (s *simulation) finish() {
	s.note("everybody is asked to stop")
	for _, c := range s.all() {
		c.gate.unfreeze()
		c.stop()
	}
	for _, c := range s.all() {
		<-c.ended
		c.mu.Lock()
		if !c.stock && !c.crashed {
			if c.result != nil && !errors.Is(c.result, ErrLost) {
				s.violate("%s ended with %v", c.name, c.result)
			}
			if c.running != 0 && c.result == nil {
				s.violate("%s has %d calls of OnStartedLeading running", c.name, c.running)
			}
			if c.started != c.stopped {
				s.violate("%s: %d terms started, OnStoppedLeading called %d times", c.name, c.started, c.stopped)
			}
		}
		c.mu.Unlock()
	}
	time.Sleep(2 * time.Minute) // what is still on its way ends
}

// simTotals sums up many seeds.
type simTotals struct {
	seeds, writes, terms, exempted, stockPairs, stockWipes, failed atomic.Int64
}

// simulateMany runs seeds on all processors until enough have failed.
func simulateMany(t *testing.T, first uint64, count, enough int, plan func(seed uint64) simPlan, failed func(*simWorld)) *simTotals {
	totals := &simTotals{}
	var next atomic.Uint64
	next.Store(first)
	t.Run("seeds", func(t *testing.T) {
		for i := range runtime.GOMAXPROCS(0) {
			t.Run(fmt.Sprint(i), func(t *testing.T) {
				t.Parallel()
				for totals.failed.Load() < int64(enough) {
					seed := next.Add(1) - 1
					if seed >= first+uint64(count) {
						return
					}
					w := simulate(t, plan(seed))
					totals.seeds.Add(1)
					totals.writes.Add(int64(w.writes))
					totals.terms.Add(int64(len(w.epochs)))
					totals.exempted.Add(int64(w.exempted))
					totals.stockPairs.Add(int64(w.stockPairs))
					totals.stockWipes.Add(int64(w.stockWipes))
					if *simLog {
						t.Log("\n" + strings.Join(w.log, "\n"))
					}
					if len(w.violations) > 0 {
						totals.failed.Add(1)
						failed(w)
					}
				}
			})
		}
	})
	return totals
}

func (s *simTotals) String() string {
	return fmt.Sprintf("%d seeds, %d terms, %d guarded writes, %d overlaps excused, %d stock leaders beside another, %d stock releases of another's lease, %d seeds failed",
		s.seeds.Load(), s.terms.Load(), s.writes.Load(), s.exempted.Load(), s.stockPairs.Load(), s.stockWipes.Load(), s.failed.Load())
}

// TestSimulation runs candidates of ours, in half of the seeds mixed with
// client-go's, through random faults, and wants the invariants of the package
// to hold in all of them.
func TestSimulation(t *testing.T) {
	count := *seedCount
	if count == 0 {
		count = 2000
		if raceEnabled || testing.Short() {
			count = 200
		}
	}
	t.Logf("first seed %d, %d seeds", *firstSeed, count)
	began := time.Now()
	totals := simulateMany(t, *firstSeed, count, 10, func(seed uint64) simPlan {
		return simPlan{seed: seed, stock: int(seed%2) * int(seed/2%3), length: 60 * time.Second}
	}, func(w *simWorld) {
		t.Errorf("seed %d (repeat with -seed=%d -seeds=1 -simlog -v):\n%s", w.seed, w.seed, strings.Join(w.violations, "\n"))
	})
	t.Logf("%s in %v", totals, time.Since(began).Round(time.Millisecond))
}

// TestSimulationNoticesMissingSafeguards switches each safeguard off and wants
// the simulation to fail.
func TestSimulationNoticesMissingSafeguards(t *testing.T) {
	tests := []struct {
		name string
		off  switches
		want string
	}{
		{"start of request", switches{startOfRequest: true}, "open"},
		{"cutoff", switches{cutoff: true}, "open"},
		{"release check", switches{releaseCheck: true}, "released the lease of"},
		{"resource version", switches{resourceVersion: true}, "open"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var found []string
			var mu sync.Mutex
			totals := simulateMany(t, 1, 3000, 3, func(seed uint64) simPlan {
				return simPlan{seed: seed, off: test.off, length: 60 * time.Second}
			}, func(w *simWorld) {
				mu.Lock()
				defer mu.Unlock()
				found = append(found, w.violations...)
			})
			if !strings.Contains(strings.Join(found, "\n"), test.want) {
				t.Errorf("no violation with %q; got %q", test.want, found)
			}
			t.Logf("%s: %s", totals, strings.Join(found, "; "))
		})
	}
}

// TestSimulationNoticesStockElector is the negative control: client-go's own
// elector, in the same world, must fail it in the known ways.
func TestSimulationNoticesStockElector(t *testing.T) {
	totals := simulateMany(t, 1, 300, 300, func(seed uint64) simPlan {
		return simPlan{seed: seed, only: true, length: 60 * time.Second}
	}, func(w *simWorld) {})
	if totals.stockPairs.Load() == 0 {
		t.Error("client-go's elector never led beside another; the simulation is blind")
	}
	if totals.stockWipes.Load() == 0 {
		t.Error("client-go's elector never released the lease of another; the simulation is blind")
	}
	t.Log(totals)
}

// taintNow excuses what the lease, as it is now, leads to.
func (s *simulation) taintNow() {
	lease, _ := s.server.get()
	s.taint(lease)
}
