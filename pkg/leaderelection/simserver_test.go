// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package leaderelection

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

var leaseResource = schema.GroupResource{Group: "coordination.k8s.io", Resource: "leases"}

// simServer is the one Lease of a simulation, in an API server's manner:
// versions that rise with every write, uids, optimistic concurrency, a history
// to watch, and creation by update. Time is that of the synctest bubble.
type simServer struct {
	mu      sync.Mutex
	version int64
	uids    int
	lease   *coordinationv1.Lease
	history []watch.Event
	changed chan struct{}
	// committed is called, with mu held, for every write: by is the client's
	// name, before and after the lease around it.
	committed func(by string, before, after *coordinationv1.Lease)
	requests  map[string]int // by client and verb
}

func newSimServer() *simServer {
	return &simServer{version: 100, changed: make(chan struct{}), requests: map[string]int{}}
}

func (s *simServer) record(by string, kind watch.EventType, before, after *coordinationv1.Lease) {
	s.lease = after
	shown := after
	if kind == watch.Deleted {
		shown = before.DeepCopy()
		shown.ResourceVersion = strconv.FormatInt(s.version, 10)
	}
	s.history = append(s.history, watch.Event{Type: kind, Object: shown})
	close(s.changed)
	s.changed = make(chan struct{})
	if s.committed != nil {
		s.committed(by, before, after)
	}
}

// requestsOf returns how many requests of that client and verb there were.
func (s *simServer) requestsOf(what string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests[what]
}

func (s *simServer) create(by string, lease *coordinationv1.Lease) (*coordinationv1.Lease, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.createLocked(by, lease)
}

func (s *simServer) createLocked(by string, lease *coordinationv1.Lease) (*coordinationv1.Lease, error) {
	if s.lease != nil {
		return nil, apierrors.NewAlreadyExists(leaseResource, lease.Name)
	}
	s.version++
	s.uids++
	made := lease.DeepCopy()
	made.UID = types.UID("uid-" + strconv.Itoa(s.uids))
	made.ResourceVersion = strconv.FormatInt(s.version, 10)
	made.CreationTimestamp = metav1.NewTime(time.Now().Truncate(time.Second))
	s.record(by, watch.Added, nil, made)
	return made, nil
}

func (s *simServer) update(by string, lease *coordinationv1.Lease) (*coordinationv1.Lease, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lease == nil {
		if lease.UID != "" {
			return nil, apierrors.NewConflict(leaseResource, lease.Name, errors.New("uid in precondition, but no object"))
		}
		return s.createLocked(by, lease)
	}
	if lease.UID != "" && lease.UID != s.lease.UID {
		return nil, apierrors.NewConflict(leaseResource, lease.Name, errors.New("uid does not match"))
	}
	if lease.ResourceVersion != "" && lease.ResourceVersion != s.lease.ResourceVersion {
		return nil, apierrors.NewConflict(leaseResource, lease.Name, errors.New("the object has been modified"))
	}
	s.version++
	made := lease.DeepCopy()
	made.UID, made.CreationTimestamp = s.lease.UID, s.lease.CreationTimestamp
	made.ResourceVersion = strconv.FormatInt(s.version, 10)
	s.record(by, watch.Modified, s.lease, made)
	return made, nil
}

// edit changes the lease by hand, without preconditions.
func (s *simServer) edit(change func(*coordinationv1.Lease)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lease == nil {
		return
	}
	s.version++
	made := s.lease.DeepCopy()
	change(made)
	made.ResourceVersion = strconv.FormatInt(s.version, 10)
	s.record("hand", watch.Modified, s.lease, made)
}

func (s *simServer) delete() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lease == nil {
		return
	}
	s.version++
	s.record("hand", watch.Deleted, s.lease, nil)
}

func (s *simServer) get() (*coordinationv1.Lease, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lease == nil {
		return nil, apierrors.NewNotFound(leaseResource, "lease")
	}
	return s.lease, nil
}

// list returns the present state, or that of so many writes ago.
func (s *simServer) list(stale int) (*coordinationv1.Lease, string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.history) - stale
	if stale == 0 || n <= 0 {
		return s.lease, strconv.FormatInt(s.version, 10)
	}
	event := s.history[n-1]
	lease := event.Object.(*coordinationv1.Lease)
	if event.Type == watch.Deleted {
		return nil, lease.ResourceVersion
	}
	return lease, lease.ResourceVersion
}

// since returns the events after version, the version reached, and what is
// closed at the next one.
func (s *simServer) since(version int64) ([]watch.Event, int64, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.history)
	for n > 0 && versionOf(s.history[n-1]) > version {
		n--
	}
	return slices.Clone(s.history[n:]), s.version, s.changed
}

func versionOf(e watch.Event) int64 {
	v, _ := strconv.ParseInt(e.Object.(*coordinationv1.Lease).ResourceVersion, 10, 64)
	return v
}

// simGate holds up a frozen process.
type simGate struct {
	mu     sync.Mutex
	thaw   chan struct{}
	thawed time.Time
}

func (g *simGate) freeze() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.thaw == nil {
		g.thaw = make(chan struct{})
	}
}

func (g *simGate) unfreeze() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.thaw != nil {
		close(g.thaw)
		g.thaw, g.thawed = nil, time.Now()
	}
}

func (g *simGate) pass() {
	for {
		g.mu.Lock()
		thaw := g.thaw
		g.mu.Unlock()
		if thaw == nil {
			return
		}
		<-thaw
	}
}

// simClock is a candidate's clock: it runs at its own rate, its wall clock may
// jump, and its timers do not fire while the process is frozen.
type simClock struct {
	start time.Time
	rate  float64
	gate  *simGate

	mu   sync.Mutex
	wall time.Duration // how far the wall clock is off
	boot time.Duration // how long the machine was suspended
}

func newSimClock(rate float64, gate *simGate) *simClock {
	return &simClock{start: time.Now().Add(-time.Hour), rate: rate, gate: gate}
}

func (c *simClock) Read() Reading {
	c.mu.Lock()
	defer c.mu.Unlock()
	mono := time.Duration(float64(time.Since(c.start)) * c.rate)
	return Reading{Boot: mono + c.boot, Mono: mono, Wall: time.Duration(c.start.UnixNano()) + mono + c.boot + c.wall}
}

func (c *simClock) AfterFunc(d time.Duration, f func()) func() bool {
	var spent atomic.Bool
	t := time.AfterFunc(time.Duration(float64(d)/c.rate)+1, func() {
		c.gate.pass()
		if spent.CompareAndSwap(false, true) {
			f()
		}
	})
	return func() bool {
		t.Stop()
		return spent.CompareAndSwap(false, true)
	}
}

func (c *simClock) jumpWall(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wall += d
}

func (c *simClock) suspend(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.boot += d
}

// simLink is the way from one client to the server, with its faults. A fault of
// zero value is none.
type simLink struct {
	name   string
	server *simServer
	gate   *simGate

	mu      sync.Mutex
	rng     *rand.Rand
	faults  simFaults
	healed  chan struct{} // closed when faults change
	resets  chan struct{} // closed to break the connections
	since   time.Time     // when the faults last changed
	latency time.Duration
}

// simFaults are the present faults of a link.
type simFaults struct {
	cutThere, cutBack bool          // packets are dropped, or
	refuse            bool          // connections are refused
	late              time.Duration // answers come this much later
	lose              float64       // share of answers that never come
	stall             bool          // watches deliver nothing
	stale             int           // lists are that many writes old
	dead              bool          // for good
	fail              error         // every request is answered so
}

var (
	errSimRefused = errors.New("connection refused")
	errSimReset   = errors.New("connection reset")
)

func newSimLink(name string, server *simServer, gate *simGate, seed uint64, latency time.Duration) *simLink {
	return &simLink{name: name, server: server, gate: gate, rng: rand.New(rand.NewPCG(seed, 7)),
		since: time.Now(), healed: make(chan struct{}), resets: make(chan struct{}), latency: latency}
}

func (l *simLink) set(change func(*simFaults)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change(&l.faults)
	l.since = time.Now()
	close(l.healed)
	l.healed = make(chan struct{})
}

// reset breaks the connections.
func (l *simLink) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.since = time.Now()
	close(l.resets)
	l.resets = make(chan struct{})
}

func (l *simLink) look() (simFaults, <-chan struct{}, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.faults, l.healed, l.resets
}

// healthySince reports whether nothing is wrong with the link and the process,
// and since when.
func (l *simLink) healthySince() (time.Time, bool) {
	l.gate.mu.Lock()
	frozen, thawed := l.gate.thaw != nil, l.gate.thawed
	l.gate.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	at := l.since
	if thawed.After(at) {
		at = thawed
	}
	return at, !frozen && l.faults == simFaults{}
}

func (l *simLink) chance() float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.rng.Float64()
}

func (l *simLink) lag() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Duration(l.rng.Float64()*float64(l.latency)) + time.Microsecond
}

func (l *simLink) setLatency(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.latency = d
}

// simCall sends a request over the link: do runs at the server, once, even if
// the caller has given up by then.
func simCall[T any](ctx context.Context, l *simLink, verb string, do func(simFaults) (T, error)) (T, error) {
	l.gate.pass()
	var zero T
	if err := ctx.Err(); err != nil {
		return zero, context.Cause(ctx)
	}
	f, _, resets := l.look()
	if f.refuse {
		return zero, errSimRefused
	}
	l.server.mu.Lock()
	l.server.requests[l.name+" "+verb]++
	l.server.mu.Unlock()
	type answer struct {
		value T
		err   error
	}
	answers := make(chan answer, 1)
	go func() {
		if f.cutThere || f.dead {
			return
		}
		time.Sleep(l.lag())
		f, _, _ := l.look()
		if f.dead {
			return
		}
		var a answer
		if f.fail != nil {
			a.err = f.fail
		} else {
			a.value, a.err = do(f)
		}
		time.Sleep(l.lag() + f.late)
		f, _, _ = l.look()
		if f.cutBack || f.dead || l.chance() < f.lose {
			return
		}
		answers <- a
	}()
	select {
	case a := <-answers:
		l.gate.pass()
		return a.value, a.err
	case <-resets:
		l.gate.pass()
		return zero, errSimReset
	case <-ctx.Done():
		l.gate.pass()
		return zero, fmt.Errorf("%s: %w", verb, context.Cause(ctx))
	}
}

// simAPI is a candidate's leaseAPI over its link.
type simAPI struct{ link *simLink }

func (a simAPI) get(ctx context.Context) (*coordinationv1.Lease, error) {
	return simCall(ctx, a.link, "get", func(simFaults) (*coordinationv1.Lease, error) { return a.link.server.get() })
}

func (a simAPI) list(ctx context.Context) (*coordinationv1.Lease, string, error) {
	type listing struct {
		lease   *coordinationv1.Lease
		version string
	}
	l, err := simCall(ctx, a.link, "list", func(f simFaults) (listing, error) {
		lease, version := a.link.server.list(f.stale)
		return listing{lease, version}, nil
	})
	return l.lease, l.version, err
}

func (a simAPI) create(ctx context.Context, lease *coordinationv1.Lease) (*coordinationv1.Lease, error) {
	return simCall(ctx, a.link, "create", func(simFaults) (*coordinationv1.Lease, error) {
		return a.link.server.create(a.link.name, lease)
	})
}

func (a simAPI) update(ctx context.Context, lease *coordinationv1.Lease) (*coordinationv1.Lease, error) {
	return simCall(ctx, a.link, "update", func(simFaults) (*coordinationv1.Lease, error) {
		return a.link.server.update(a.link.name, lease)
	})
}

func (a simAPI) close() {}

func (a simAPI) watch(ctx context.Context, version string, timeout time.Duration) (watch.Interface, error) {
	from, err := strconv.ParseInt(version, 10, 64)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	return simCall(ctx, a.link, "watch", func(simFaults) (watch.Interface, error) {
		w := &simWatch{link: a.link, events: make(chan watch.Event), stopped: make(chan struct{})}
		go w.run(ctx, from, timeout)
		return w, nil
	})
}

// simWatch delivers the history over a link.
type simWatch struct {
	link    *simLink
	events  chan watch.Event
	stop    sync.Once
	stopped chan struct{}
}

func (w *simWatch) ResultChan() <-chan watch.Event { return w.events }

func (w *simWatch) Stop() { w.stop.Do(func() { close(w.stopped) }) }

func (w *simWatch) run(ctx context.Context, version int64, timeout time.Duration) {
	defer close(w.events)
	end := time.NewTimer(timeout)
	defer end.Stop()
	bookmark := time.NewTicker(50 * time.Second)
	defer bookmark.Stop()
	_, _, resets := w.link.look()
	for {
		events, reached, changed := w.link.server.since(version)
		for _, e := range events {
			if !w.deliver(ctx, resets, e) {
				return
			}
		}
		version = reached
		select {
		case <-changed:
		case <-bookmark.C:
			mark := &coordinationv1.Lease{}
			mark.ResourceVersion = strconv.FormatInt(version, 10)
			if !w.deliver(ctx, resets, watch.Event{Type: watch.Bookmark, Object: mark}) {
				return
			}
		case <-end.C:
			return
		case <-resets:
			return
		case <-w.stopped:
			return
		case <-ctx.Done():
			return
		}
	}
}

// deliver hands over one event once the link lets it through.
func (w *simWatch) deliver(ctx context.Context, resets <-chan struct{}, e watch.Event) bool {
	time.Sleep(w.link.lag() / 4)
	for {
		w.link.gate.pass()
		f, healed, _ := w.link.look()
		if !f.cutBack && !f.stall && !f.dead {
			break
		}
		select {
		case <-healed:
		case <-resets:
			return false
		case <-w.stopped:
			return false
		case <-ctx.Done():
			return false
		}
	}
	select {
	case w.events <- e:
		return true
	case <-resets:
	case <-w.stopped:
	case <-ctx.Done():
	}
	return false
}
