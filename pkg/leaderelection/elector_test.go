// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package leaderelection

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr/funcr"
	"github.com/google/go-cmp/cmp"
	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	clientgo "k8s.io/client-go/tools/leaderelection"
	"k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/testutil"
	"k8s.io/klog/v2"
)

func TestNewReportsEveryMistake(t *testing.T) {
	_, err := New(Config{LeaseName: "Bad Name", OnLost: "panic", DrainTimeout: -1, Timing: Timing{LeaseDuration: 1500 * time.Millisecond, RenewDeadline: time.Second}})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"both names are required", "Bad Name", "rest.Config is required", "OnStartedLeading is required", "LeaseDuration: 1.5s", "RenewDeadline: 1s", "DrainTimeout -1ns", `OnLost "panic"`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not reported in:\n%v", want, err)
		}
	}
}

// benchConfig is a Config for an Elector in a synctest bubble.
func benchConfig(server *simServer, name string) Config {
	link := newSimLink(name, server, &simGate{}, 1, 0)
	return Config{Namespace: "default", LeaseName: "lease", Identity: &Identity{name: name}, api: simAPI{link},
		Clock:  newSimClock(1, &simGate{}),
		jitter: func() float64 { return 0 }, Callbacks: clientgo.LeaderCallbacks{OnStartedLeading: func(ctx context.Context) { <-ctx.Done() }}}
}

// running is an Elector that runs until the end of a test's bubble.
type running struct {
	*Elector
	stop context.CancelFunc
	done chan error
}

func runElector(t *testing.T, cfg Config) *running {
	t.Helper()
	e, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return runIt(e)
}

func runIt(e *Elector) *running {
	ctx, cancel := context.WithCancel(klog.NewContext(context.Background(), klog.Logger{}))
	r := &running{Elector: e, stop: cancel, done: make(chan error, 1)}
	go func() {
		defer cancel()
		r.done <- e.Run(ctx)
	}()
	return r
}

// end stops it and lets everything of it end.
func (r *running) end(t *testing.T) {
	t.Helper()
	r.stop()
	if err := <-r.done; err != nil {
		t.Errorf("Run: %v", err)
	}
	time.Sleep(10 * time.Minute)
}

func TestStartWaitsForContact(t *testing.T) {
	tests := []struct {
		name    string
		contact func(context.Context) error
		after   time.Duration
	}{
		{"as long as it takes", func(context.Context) error { time.Sleep(300 * time.Millisecond); return nil }, 300 * time.Millisecond},
		{"not for one that fails", func(context.Context) error { return errors.New("no") }, 0},
		{"ten seconds at most", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }, 10 * time.Second},
		{"ten seconds even if it does not listen", func(context.Context) error { time.Sleep(time.Minute); return nil }, 10 * time.Second},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg := benchConfig(newSimServer(), oursA)
				cfg.Contact = test.contact
				began := time.Now()
				var at atomic.Int64
				cfg.Callbacks.OnStartedLeading = func(ctx context.Context) {
					at.Store(int64(time.Since(began)))
					<-ctx.Done()
				}
				r := runElector(t, cfg)
				time.Sleep(20 * time.Second)
				started := time.Duration(at.Load())
				if d := (started - test.after).Abs(); d > 10*time.Millisecond {
					t.Errorf("started after %v, want %v", started, test.after)
				}
				r.end(t)
			})
		})
	}
}

// TestNothingStartsWhenToldToStopBeforeContact stops an Elector while it waits.
func TestNothingStartsWhenToldToStopBeforeContact(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := newSimServer()
		cfg := benchConfig(server, oursA)
		cfg.Contact = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		var called atomic.Bool
		cfg.Callbacks.OnStartedLeading = func(context.Context) { called.Store(true) }
		cfg.Callbacks.OnStoppedLeading = func() { called.Store(true) }
		r := runElector(t, cfg)
		time.Sleep(time.Second)
		r.end(t)
		if lease, _ := server.get(); called.Load() || *lease.Spec.HolderIdentity != "" {
			t.Errorf("called %v, holder %q", called.Load(), *lease.Spec.HolderIdentity)
		}
	})
}

// TestRequestsPerMinute counts what leader and standby ask of the API server.
func TestRequestsPerMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := newSimServer()
		leader := runElector(t, benchConfig(server, oursA))
		time.Sleep(100 * time.Millisecond)
		standby := runElector(t, benchConfig(server, oursB))
		time.Sleep(100 * time.Millisecond)
		server.mu.Lock()
		before := fmt.Sprint(server.requests)
		clear(server.requests)
		server.mu.Unlock()
		if want := fmt.Sprint(map[string]int{oursA + " create": 1, oursA + " list": 1, oursA + " watch": 1, oursB + " list": 1, oursB + " watch": 1}); before != want {
			t.Errorf("to start: %s, want %s", before, want)
		}
		time.Sleep(4 * time.Minute)
		server.mu.Lock()
		got := map[string]int{}
		for k, v := range server.requests {
			got[k] = v
		}
		server.mu.Unlock()
		if diff := cmp.Diff(map[string]int{oursA + " update": 120}, got); diff != "" {
			t.Errorf("in 4 minutes (-want +got):\n%s", diff)
		}
		standby.end(t)
		leader.end(t)
	})
}

// TestReturningEarlyGivesTheLeaseToOthers has a leader whose controllers end.
func TestReturningEarlyGivesTheLeaseToOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := newSimServer()
		cfg := benchConfig(server, oursA)
		var terms atomic.Int32
		cfg.Callbacks.OnStartedLeading = func(context.Context) { terms.Add(1) }
		a := runElector(t, cfg)
		time.Sleep(100 * time.Millisecond)
		if lease, _ := server.get(); *lease.Spec.HolderIdentity != "" || terms.Load() != 1 {
			t.Errorf("holder %q after %d terms", *lease.Spec.HolderIdentity, terms.Load())
		}
		time.Sleep(60 * time.Second)
		if n := terms.Load(); n < 15 || n > 31 {
			t.Errorf("%d terms in a minute, want one in each retry period", n)
		}
		b := runElector(t, benchConfig(server, oursB))
		time.Sleep(5 * time.Second)
		if s := b.Status(); s.State != StateLeading {
			t.Errorf("the other one is %s", s.State)
		}
		b.end(t)
		a.end(t)
	})
}

func TestStoppedStandbyUndoesAnAcquisitionUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := newSimServer()
		cfg := benchConfig(server, oursA)
		link := cfg.api.(simAPI).link
		link.set(func(f *simFaults) { f.late = 500 * time.Millisecond })
		r := runElector(t, cfg)
		time.Sleep(700 * time.Millisecond) // listed; the creation is committed but not answered
		if lease, err := server.get(); err != nil || *lease.Spec.HolderIdentity != oursA {
			t.Fatalf("lease %v, %v", lease, err)
		}
		r.end(t)
		if lease, _ := server.get(); *lease.Spec.HolderIdentity != "" {
			t.Error("the lease was left behind")
		}
	})
}

// TestStalledWatchIsReplaced has a standby whose watch says nothing any more.
func TestStalledWatchIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := newSimServer()
		leader := runElector(t, benchConfig(server, oursA))
		time.Sleep(time.Second)
		cfg := benchConfig(server, oursB)
		link := cfg.api.(simAPI).link
		standby := runElector(t, cfg)
		time.Sleep(time.Second)
		link.set(func(f *simFaults) { f.stall = true })
		time.Sleep(10 * time.Second)
		server.mu.Lock()
		gets, watches := server.requests[oursB+" get"], server.requests[oursB+" watch"]
		server.mu.Unlock()
		if gets != 1 || watches != 2 {
			t.Errorf("%d GETs and %d watches, want 1 and 2", gets, watches)
		}
		link.set(func(f *simFaults) { f.stall = false })
		standby.end(t)
		leader.end(t)
	})
}

// TestRestoredDataIsBelieved lets the versions go back, as restoring etcd does.
func TestRestoredDataIsBelieved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := newSimServer()
		cfg := benchConfig(server, oursA)
		r := runElector(t, cfg)
		time.Sleep(20 * time.Second)
		server.mu.Lock()
		server.version = 50
		back := server.lease.DeepCopy()
		back.ResourceVersion = "50"
		server.lease, server.history = back, nil
		server.mu.Unlock()
		cfg.api.(simAPI).link.reset()
		time.Sleep(20 * time.Second)
		if s := r.Status(); s.State != StateLeading || !s.FenceOpen {
			t.Errorf("status %+v", s)
		}
		r.end(t)
	})
}

// recorder records events.
type recorder struct {
	mu   sync.Mutex
	list []string
}

func (r *recorder) Eventf(about runtime.Object, eventType, reason, format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	lease := about.(*coordinationv1.Lease)
	r.list = append(r.list, fmt.Sprintf("%s %s/%s %s %s: ", lease.Kind, lease.Namespace, lease.Name, eventType, reason)+fmt.Sprintf(format, args...))
}

func TestEventsAreRecordedOnTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		events := &recorder{}
		cfg := benchConfig(newSimServer(), oursA)
		cfg.Events = events
		r := runElector(t, cfg)
		time.Sleep(time.Second)
		epoch := r.Status().Epoch
		r.end(t)
		want := []string{
			fmt.Sprintf("Lease default/lease Normal LeaderElection: %s became leader, epoch %d", oursA, epoch),
			fmt.Sprintf("Lease default/lease Normal LeaderElection: %s released the lease", oursA),
		}
		if diff := cmp.Diff(want, events.list); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
	})
}

func TestOnNewLeaderIsCalledInOrderWithoutHoldingAnybodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := newSimServer()
		cfg := benchConfig(server, oursA)
		var got []string
		block := make(chan struct{})
		cfg.Callbacks.OnNewLeader = func(id string) {
			<-block
			got = append(got, id)
		}
		r := runElector(t, cfg)
		time.Sleep(30 * time.Second)
		if s := r.Status(); !s.FenceOpen {
			t.Error("a callback that blocks stops the renewals")
		}
		other := oursB
		server.edit(func(l *coordinationv1.Lease) { l.Spec.HolderIdentity = &other })
		time.Sleep(30 * time.Second)
		close(block)
		time.Sleep(time.Second)
		r.end(t)
		if diff := cmp.Diff([]string{oursA, oursB, oursA}, got); diff != "" {
			t.Errorf("leaders (-want +got):\n%s", diff)
		}
	})
}

func TestMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMetrics()
		cfg := benchConfig(newSimServer(), oursA)
		cfg.Name, cfg.Metrics = "group", m
		e, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		registry := metrics.NewKubeRegistry()
		if err := m.Register(registry); err != nil {
			t.Fatal(err)
		}
		names := []string{"leader_election_master_status", "leader_election_slowpath_total", "leader_election_terms_total",
			"leader_election_fence_requests_total", "leader_election_lease_transitions", "leader_election_epoch", "leader_election_lease_age_seconds"}
		text := func(status, transitions, released, age string, epoch int64) string {
			return fmt.Sprintf(`
# HELP leader_election_epoch [ALPHA] The epoch of this process's term, 0 without one.
# TYPE leader_election_epoch gauge
leader_election_epoch{name="group"} %[5]v
# HELP leader_election_fence_requests_total [ALPHA] Number of mutating requests at the fence: passed, delayed (waited for a renewal; also counted by how the wait ended) or refused.
# TYPE leader_election_fence_requests_total counter
leader_election_fence_requests_total{name="group",result="delayed"} 0
leader_election_fence_requests_total{name="group",result="passed"} 0
leader_election_fence_requests_total{name="group",result="refused"} 0
# HELP leader_election_lease_age_seconds [ALPHA] Time since the lease was last known to be renewed: for a leader since its last acknowledged renewal was sent, for a standby since it saw one.
# TYPE leader_election_lease_age_seconds gauge
leader_election_lease_age_seconds{name="group"} %[4]s
# HELP leader_election_lease_transitions [ALPHA] The lease's number of transitions, as last seen.
# TYPE leader_election_lease_transitions gauge
leader_election_lease_transitions{name="group"} %[2]s
# HELP leader_election_master_status [ALPHA] Whether this process leads the lease: 1 for the leader, 0 for a standby.
# TYPE leader_election_master_status gauge
leader_election_master_status{name="group"} %[1]s
# HELP leader_election_slowpath_total [ALPHA] Number of times that a holder had to read its lease before it could renew it.
# TYPE leader_election_slowpath_total counter
leader_election_slowpath_total{name="group"} 0
# HELP leader_election_terms_total [ALPHA] Number of terms of this process that have ended, by how: released, expired (renew deadline, lease kept), lost or abandoned.
# TYPE leader_election_terms_total counter
leader_election_terms_total{end="abandoned",name="group"} 0
leader_election_terms_total{end="expired",name="group"} 0
leader_election_terms_total{end="lost",name="group"} 0
leader_election_terms_total{end="released",name="group"} %[3]s
`, status, transitions, released, age, float64(epoch))
		}
		compare := func(when, want string) {
			t.Helper()
			if err := testutil.GatherAndCompare(registry, bytes.NewBufferString(want), names...); err != nil {
				t.Errorf("%s: %v", when, err)
			}
		}
		compare("before Run", text("0", "0", "0", "0", 0))
		r := runIt(e)
		time.Sleep(5 * time.Second)
		compare("as leader", text("1", "0", "0", "0.999997998", r.Status().Epoch))
		r.end(t)
		if err := testutil.GatherAndCompare(registry, strings.NewReader(`
# HELP leader_election_terms_total [ALPHA] Number of terms of this process that have ended, by how: released, expired (renew deadline, lease kept), lost or abandoned.
# TYPE leader_election_terms_total counter
leader_election_terms_total{end="abandoned",name="group"} 0
leader_election_terms_total{end="expired",name="group"} 0
leader_election_terms_total{end="lost",name="group"} 0
leader_election_terms_total{end="released",name="group"} 1
`), "leader_election_terms_total"); err != nil {
			t.Error(err)
		}
	})
}

func TestUnelected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		next := &roundTripper{}
		var e *Elector
		var calls []string
		e, err := NewUnelected(Config{Name: "group", Clock: newSimClock(1, &simGate{}), Callbacks: clientgo.LeaderCallbacks{
			OnStartedLeading: func(ctx context.Context) {
				f := e.NewFence()
				if err := f.Open(ctx); err != nil {
					t.Error(err)
				}
				rt := f.WrapTransport(next)
				if err := send(rt); err != nil {
					t.Error(err)
				}
				<-ctx.Done()
				calls = append(calls, "draining")
				time.Sleep(time.Second)
				if err := send(rt); err != nil {
					t.Errorf("a write in the drain: %v", err)
				}
				if s := e.Status(); s.State != StateDraining || !s.FenceOpen {
					t.Errorf("status %+v", s)
				}
			},
			OnStoppedLeading: func() { calls = append(calls, "stopped") }}})
		if err != nil {
			t.Fatal(err)
		}
		r := runIt(e)
		time.Sleep(time.Hour)
		if s := e.Status(); !s.Leading() || !s.FenceOpen || s.Epoch != 0 || !s.Started {
			t.Errorf("status %+v", s)
		}
		if err := e.Watchdog().Check(nil); err != nil {
			t.Errorf("watchdog: %v", err)
		}
		r.end(t)
		if diff := cmp.Diff([]string{"draining", "stopped"}, calls); diff != "" {
			t.Errorf("calls (-want +got):\n%s", diff)
		}
		if s := e.Status(); s.State != StateStopped || s.FenceOpen {
			t.Errorf("status %+v", s)
		}
	})
}

func TestUnelectedDrainTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, abandon := range []bool{false, true} {
			e, err := NewUnelected(Config{Name: "group", DrainTimeout: time.Second, Clock: newSimClock(1, &simGate{}),
				Callbacks: clientgo.LeaderCallbacks{OnStartedLeading: func(context.Context) { time.Sleep(time.Minute) }}})
			if err != nil {
				t.Fatal(err)
			}
			r := runIt(e)
			time.Sleep(time.Second)
			began := time.Now()
			if abandon {
				e.Abandon()
			}
			r.stop()
			if err := <-r.done; !errors.Is(err, ErrDrainTimeout) {
				t.Errorf("Run: %v", err)
			}
			if d := time.Since(began); abandon != (d < time.Second) {
				t.Errorf("abandoned %v: returned after %v", abandon, d)
			}
			time.Sleep(2 * time.Minute)
		}
	})
}

func TestWatchdog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFenceBench(t)
		e, w := b.elector, b.elector.Watchdog()
		if got := w.Name(); got != "leader-election-lease" {
			t.Errorf("name %q", got)
		}
		check := func(when, want string) {
			t.Helper()
			err := w.Check(nil)
			if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
				t.Errorf("%s: %v, want %q", when, err, want)
			}
		}
		check("before Run", "")
		for name, p := range map[string]*pulse{"renew": &e.turn, "observe": &e.observe} {
			p.busy(b.clock.Read(), time.Second)
			time.Sleep(4 * time.Second)
			check("within two periods", "")
			time.Sleep(2 * time.Second)
			check("after two periods", "the "+name+" loop is 5.5s late")
			go func() {
				time.Sleep(300 * time.Millisecond)
				p.busy(b.clock.Read(), time.Second)
			}()
			check("when it turns after all", "")
			p.rest()
			time.Sleep(time.Hour)
			check("at rest", "")
		}
		b.term.acknowledge(b.clock.Read())
		e.running.Store(b.term)
		time.Sleep(b.term.timing.LeaseDuration + watchdogGrace - time.Second)
		check("in the grace", "")
		time.Sleep(time.Second + time.Millisecond)
		check("controllers that go on", "controllers still run 5.501s after")
		b.term.acknowledge(b.clock.Read())
		check("renewed", "")
		b.clock.jumpWall(time.Hour)
		check("wall clock jump", "")
		b.term.taken(b.clock.Read())
		time.Sleep(watchdogGrace - time.Second)
		check("taken a while ago", "")
		time.Sleep(time.Second + time.Millisecond)
		check("taken, controllers go on", "controllers still run")
		e.running.Store(nil)
		check("returned", "")
	})
}

func TestWatchdogToleratesAnUnreachableServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := benchConfig(newSimServer(), oursA)
		link := cfg.api.(simAPI).link
		r := runElector(t, cfg)
		time.Sleep(5 * time.Second)
		link.set(func(f *simFaults) { f.cutThere, f.cutBack = true, true })
		for range 600 {
			time.Sleep(100 * time.Millisecond)
			if err := r.Watchdog().check(); err != nil {
				t.Fatalf("after %v: %v", r.Status().LeaseAge, err)
			}
		}
		link.set(func(f *simFaults) { f.cutThere, f.cutBack = false, false })
		link.reset()
		time.Sleep(5 * time.Second)
		if s := r.Status(); s.State != StateLeading || s.LastError != "" {
			t.Errorf("status %+v", s)
		}
		r.end(t)
	})
}

func TestComplaintsAreLoggedOncePerCause(t *testing.T) {
	var lines []string
	logger := funcr.New(func(_, args string) { lines = append(lines, args) }, funcr.Options{})
	var c complaints
	forbidden := apierrors.NewForbidden(leaseResource, "lease", errors.New("no"))
	for s := range 100 {
		now := Reading{Mono: time.Duration(s) * time.Second}
		c.failed(logger, now, "write", forbidden)
		op := []string{"watch", "write", "get"}[s%3]
		c.failed(logger, now, op, fmt.Errorf("dial tcp 127.0.0.1:%d: %w", s, context.DeadlineExceeded))
	}
	if len(lines) != 8 { // at 0, 10, 30 and 70 s, of each
		t.Errorf("%d lines:\n%s", len(lines), strings.Join(lines, "\n"))
	}
	if !strings.Contains(lines[0], "needs get, create and update on leases") {
		t.Errorf("no hint in %s", lines[0])
	}
	lines = nil
	c.worked(logger, "get")
	c.worked(logger, "get")
	if len(lines) != 1 || !strings.Contains(lines[0], `"failed"=100`) {
		t.Errorf("an answer to another request tells that the server is reachable, no more: %q", lines)
	}
	lines = nil
	c.failed(logger, Reading{}, "get", forbidden)
	c.forget("get")
	if text, _ := c.newest(); !strings.Contains(text, "write: ") {
		t.Errorf("forgetting one operation left %q of the other", text)
	}
	lines = nil
	c.worked(logger, "write")
	if len(lines) != 1 || !strings.Contains(lines[0], `"failed"=100`) {
		t.Errorf("lines %q", lines)
	}
	lines = nil
	c.failed(logger, Reading{Mono: 101 * time.Second}, "write", forbidden)
	if len(lines) != 1 {
		t.Errorf("lines %q", lines)
	}
}

func TestFaultOf(t *testing.T) {
	tests := []struct {
		err    error
		create bool
		want   fault
	}{
		{apierrors.NewConflict(leaseResource, "l", errors.New("x")), false, conflict},
		{apierrors.NewAlreadyExists(leaseResource, "l"), true, conflict},
		{apierrors.NewNotFound(leaseResource, "l"), false, conflict},
		{apierrors.NewNotFound(leaseResource, "namespace"), true, refused},
		{apierrors.NewForbidden(leaseResource, "l", errors.New("x")), false, refused},
		{apierrors.NewUnauthorized("x"), false, refused},
		{apierrors.NewTooManyRequests("x", 1), false, refused},
		{apierrors.NewTimeoutError("x", 1), false, unknown},
		{apierrors.NewServerTimeout(leaseResource, "put", 1), false, unknown},
		{apierrors.NewInternalError(errors.New("x")), false, unknown},
		{context.DeadlineExceeded, false, unknown},
		{errors.New("connection reset"), false, unknown},
	}
	for _, test := range tests {
		if got := faultOf(test.err, test.create); got != test.want {
			t.Errorf("%v: %d, want %d", test.err, got, test.want)
		}
	}
}

func TestBackoff(t *testing.T) {
	var b backoff
	var got []time.Duration
	for range 7 {
		got = append(got, b.next(0))
	}
	want := []time.Duration{50e6, 100e6, 200e6, 400e6, 500e6, 500e6, 500e6}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("pauses (-want +got):\n%s", diff)
	}
	b.reset()
	if d := b.next(0.999); d < 37*time.Millisecond || d > 50*time.Millisecond {
		t.Errorf("with jitter %v", d)
	}
}

func TestCausesAndHints(t *testing.T) {
	dial := func(err error) error {
		return fmt.Errorf("Put: %w", &net.OpError{Op: "dial", Net: "tcp", Err: err})
	}
	tests := []struct {
		op   string
		err  error
		want string
		hint string
	}{
		{"watch", apierrors.NewForbidden(leaseResource, "l", errors.New("x")), "Forbidden", "list and watch"},
		{"write", apierrors.NewForbidden(leaseResource, "l", errors.New("x")), "Forbidden", "create and update"},
		{"get", apierrors.NewUnauthorized("x"), "Unauthorized", "credentials"},
		{"write", apierrors.NewNotFound(leaseResource, "l"), "NotFound", "namespace"},
		{"write", dial(syscall.ECONNREFUSED), "connection refused", "reachable"},
		{"write", dial(&net.DNSError{Err: "no such host", Name: "x"}), "name resolution", "reachable"},
		{"write", dial(context.DeadlineExceeded), "timeout", "reachable"},
		{"watch", errWatchClosed, "*errors.errorString", "reachable"},
	}
	for _, test := range tests {
		if got := causeOf(test.err); got != test.want {
			t.Errorf("%v: cause %q, want %q", test.err, got, test.want)
		}
		if got := hintFor(test.op, test.err); !strings.Contains(got, test.hint) {
			t.Errorf("%v: hint %q, want %q", test.err, got, test.hint)
		}
	}
}

// TestOnStoppedLeadingThatHangs has a release whose callback does not return.
func TestOnStoppedLeadingThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := benchConfig(newSimServer(), oursA)
		cfg.Callbacks.OnStoppedLeading = func() { time.Sleep(time.Hour) }
		r := runElector(t, cfg)
		time.Sleep(time.Second)
		r.stop()
		began := time.Now()
		if err := <-r.done; !errors.Is(err, ErrLost) {
			t.Errorf("Run: %v", err)
		}
		if d := time.Since(began).Round(100 * time.Millisecond); d != DefaultStopTimeout {
			t.Errorf("Run returned after %v", d)
		}
		time.Sleep(2 * time.Hour)
	})
}

// TestConflictIsSettledByOneRead lets a leader, whose watch says nothing, run
// into an edit.
func TestConflictIsSettledByOneRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := newSimServer()
		cfg := benchConfig(server, oursA)
		link := cfg.api.(simAPI).link
		r := runElector(t, cfg)
		time.Sleep(time.Second)
		link.set(func(f *simFaults) { f.stall = true })
		server.edit(func(l *coordinationv1.Lease) { l.Labels = map[string]string{"a": "b"} })
		time.Sleep(1500 * time.Millisecond)
		if updates, gets := server.requestsOf(oursA+" update"), server.requestsOf(oursA+" get"); updates != 2 || gets != 1 {
			t.Errorf("%d updates and %d GETs, want a conflict, a GET, and the update again", updates, gets)
		}
		if age := r.Status().LeaseAge; age > time.Second {
			t.Errorf("last acknowledged %v ago", age)
		}
		link.set(func(f *simFaults) { f.stall = false })
		r.end(t)
	})
}

// TestCreationsThatGoUnansweredAreNotRepeatedBlindly cuts a candidate off that
// waits for its turn after a deletion.
func TestCreationsThatGoUnansweredAreNotRepeatedBlindly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := newSimServer()
		if _, err := server.create("hand", leaseAt("1", "", oursB, 15, 10, 3)); err != nil {
			t.Fatal(err)
		}
		cfg := benchConfig(server, oursA)
		link := cfg.api.(simAPI).link
		r := runElector(t, cfg)
		time.Sleep(time.Second)
		server.delete()
		time.Sleep(14 * time.Second)
		link.set(func(f *simFaults) { f.cutThere = true })
		time.Sleep(20 * time.Second)
		if creates, gets := server.requestsOf(oursA+" create"), server.requestsOf(oursA+" get"); creates != 1 || gets < 3 {
			t.Errorf("%d creations and %d GETs, want one that goes unanswered, and GETs", creates, gets)
		}
		link.set(func(f *simFaults) { f.cutThere = false })
		time.Sleep(5 * time.Second)
		if s := r.Status(); s.State != StateLeading || s.Transitions != 4 {
			t.Errorf("status %+v", s)
		}
		r.end(t)
	})
}

// TestReleaseAwaitsTheRenewalInFlight stops a leader between the sending of a
// renewal and its answer.
func TestReleaseAwaitsTheRenewalInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := newSimServer()
		cfg := benchConfig(server, oursA)
		link := cfg.api.(simAPI).link
		r := runElector(t, cfg)
		time.Sleep(time.Second)
		link.set(func(f *simFaults) { f.late, f.stall = 500*time.Millisecond, true })
		time.Sleep(1200 * time.Millisecond)
		r.stop()
		time.Sleep(200 * time.Millisecond)
		if n := server.requestsOf(oursA + " update"); n != 1 {
			t.Errorf("%d updates before the renewal was answered, want 1", n)
		}
		time.Sleep(5 * time.Second)
		if updates, gets := server.requestsOf(oursA+" update"), server.requestsOf(oursA+" get"); updates != 2 || gets != 0 {
			t.Errorf("%d updates and %d GETs, want the renewal and the release", updates, gets)
		}
		r.end(t)
	})
}

// TestReleaseAwaitsWritesInFlight stops a leader whose controller gave up on a
// write that the server has not answered.
func TestReleaseAwaitsWritesInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := newSimServer()
		cfg := benchConfig(server, oursA)
		answer := make(chan struct{})
		next := &roundTripper{do: hang(answer)}
		cfg.Callbacks.OnStartedLeading = func(ctx context.Context) {
			f := TermFrom(ctx).owner.NewFence()
			defer f.Shut()
			if err := f.Open(ctx); err != nil {
				t.Error(err)
			}
			if _, err := f.WrapTransport(next).RoundTrip(request(ctx, "PUT", configMap)); err == nil {
				t.Error("the write was answered")
			}
		}
		e, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		r := runIt(e)
		holder := func() string {
			lease, err := server.get()
			if err != nil {
				t.Fatal(err)
			}
			return *lease.Spec.HolderIdentity
		}
		time.Sleep(time.Second)
		r.stop()
		time.Sleep(5 * time.Second)
		if s := e.Status(); holder() != oursA || s.State != StateDraining || s.InFlight != 1 {
			t.Errorf("holder %q, state %s, %d writes in flight", holder(), s.State, s.InFlight)
		}
		close(answer)
		time.Sleep(100 * time.Millisecond)
		if holder() != "" {
			t.Error("the lease is not released after the answer")
		}
		r.end(t)
	})
}
