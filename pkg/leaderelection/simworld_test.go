// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package leaderelection

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clientgo "k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/klog/v2"
)

// simWorld is a server, its candidates, and what must hold of them. All of it
// lives in one synctest bubble.
type simWorld struct {
	seed    uint64
	server  *simServer
	logger  logr.Logger
	began   time.Time
	latency time.Duration
	timing  Timing
	off     switches
	onLost  OnLost

	mu         sync.Mutex
	candidates []*simCandidate
	serial     int
	log        []string
	violations []string
	exempted   int // overlaps that the contract allows
	stockPairs int // times a stock candidate led beside another
	stockWipes int // releases by a stock candidate of somebody else's lease
	epochs     []int64
	writes     int
	lastWrite  int64 // the highest epoch of a write that took effect
	lastWriter *Term // its term
	keepLog    bool
	steady     bool // no jitter
	sharing    bool // the candidates share out
	// edited is when the holder or the duration was last edited, shortened when
	// the duration was.
	edited, shortened time.Time
	// taintedEpochs are those of leases that were edited, deleted or wiped.
	taintedEpochs map[int64]bool
	story         []string // what a scenario compares, with the time in tenths of a second
}

// tell adds to the story.
func (w *simWorld) tell(format string, args ...any) {
	w.note(format, args...)
	if !w.keepLog {
		return
	}
	line := fmt.Sprintf("%.1f ", time.Since(w.began).Seconds()) + fmt.Sprintf(format, args...)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.story = append(w.story, line)
}

func newSimWorld(seed uint64) *simWorld {
	w := &simWorld{seed: seed, server: newSimServer(), logger: logr.Discard(), began: time.Now(),
		latency: 20 * time.Millisecond, timing: Timing{}.WithDefaults(), taintedEpochs: map[int64]bool{}}
	w.server.committed = w.committed
	return w
}

// simCandidate is one process.
type simCandidate struct {
	world    *simWorld
	name     string
	stock    bool
	gate     *simGate
	clock    *simClock
	link     *simLink
	identity *Identity
	elector  *Elector
	drain    func() time.Duration
	ended    chan struct{} // closed when it has stopped
	result   error
	stop     context.CancelFunc

	mu               sync.Mutex
	terms            []*Term
	running          int  // OnStartedLeading calls that have not returned
	leading          bool // stock: the context of the term is not cancelled
	crashed          bool
	tainted          map[*Term]bool
	excused          map[*Term]time.Time // since when a tainted term overlaps
	started, stopped int
	leaders          []string
}

func (w *simWorld) note(format string, args ...any) {
	if !w.keepLog {
		return
	}
	line := fmt.Sprintf("%9.3f ", time.Since(w.began).Seconds()) + fmt.Sprintf(format, args...)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.log = append(w.log, line)
}

func (w *simWorld) violate(format string, args ...any) {
	line := fmt.Sprintf("%.3f s: ", time.Since(w.began).Seconds()) + fmt.Sprintf(format, args...)
	w.note("VIOLATION %s", line)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.violations = append(w.violations, line)
}

func (w *simWorld) all() []*simCandidate {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]*simCandidate(nil), w.candidates...)
}

// prepare makes a candidate that is not running yet.
func (w *simWorld) prepare(name string, rate float64, identity *Identity) *simCandidate {
	w.mu.Lock()
	w.serial++
	serial := w.serial
	w.mu.Unlock()
	gate := &simGate{}
	if identity == nil {
		identity = &Identity{name: fmt.Sprintf("%s_uid_inc1-%026s", name, strings.Repeat("a", 20)+base32Digits(serial))}
	}
	return &simCandidate{world: w, name: name, gate: gate, clock: newSimClock(rate, gate), identity: identity,
		link:  newSimLink(identity.String(), w.server, gate, w.seed*31+uint64(serial), w.latency),
		drain: func() time.Duration { return 0 },
		ended: make(chan struct{}), tainted: map[*Term]bool{}, excused: map[*Term]time.Time{}}
}

func base32Digits(n int) string {
	const digits = "abcdefghijklmnopqrstuvwxyz234567"
	b := []byte("aaaaaa")
	for i := len(b) - 1; i >= 0; i-- {
		b[i] = digits[n%32]
		n /= 32
	}
	return string(b)
}

// share is, in a third of the worlds, one by which every standby claims the lease and
// every leader yields it.
func (c *simCandidate) share() *Share {
	if !c.world.sharing {
		return nil
	}
	s := NewShare()
	s.unfair = -9
	return s
}

// launch runs a candidate of ours.
func (c *simCandidate) launch() {
	w := c.world
	rng := rand.New(rand.NewPCG(w.seed, 99))
	var rngMu sync.Mutex
	elector, err := New(Config{
		Namespace: "default", LeaseName: "lease", Identity: c.identity, Timing: w.timing, OnLost: w.onLost,
		Clock: c.clock, api: simAPI{c.link}, off: w.off, Share: c.share(),
		jitter: func() float64 {
			if w.steady {
				return 0
			}
			rngMu.Lock()
			defer rngMu.Unlock()
			return rng.Float64()
		},
		Callbacks: clientgo.LeaderCallbacks{OnStartedLeading: c.lead, OnStoppedLeading: func() {
			c.mu.Lock()
			c.stopped++
			c.mu.Unlock()
			w.tell("%s stopped", c.name)
		}, OnNewLeader: func(id string) {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.leaders = append(c.leaders, id)
		}},
	})
	if err != nil {
		panic(err)
	}
	c.elector = elector
	ctx, cancel := context.WithCancel(klog.NewContext(context.Background(), w.logger.WithName(c.name)))
	c.stop = cancel
	w.mu.Lock()
	w.candidates = append(w.candidates, c)
	w.mu.Unlock()
	go func() {
		defer close(c.ended)
		defer cancel()
		c.result = elector.Run(ctx)
		w.tell("%s ended: %v", c.name, c.result)
		w.check()
	}()
}

// lead is the controllers of a candidate: they write, and go on writing until
// they have drained.
func (c *simCandidate) lead(ctx context.Context) {
	t, w := TermFrom(ctx), c.world
	c.mu.Lock()
	c.terms = append(c.terms, t)
	c.running++
	c.started++
	c.mu.Unlock()
	w.tell("%s leads", c.name)
	w.check()
	fence := c.elector.NewFence()
	if err := fence.Open(ctx); err != nil {
		w.note("%s: %v", c.name, err)
	}
	client := fence.WrapTransport(&simObjects{c, t})
	write := func(ctx context.Context) {
		c.gate.pass()
		req, _ := http.NewRequestWithContext(ctx, http.MethodPut, "https://sim/api/v1/namespaces/x/configmaps/y", nil)
		resp, err := client.RoundTrip(req)
		if err == nil {
			_ = resp.Body.Close()
		}
	}
	for ctx.Err() == nil {
		// As most do, these give up on a write when they are told to stop.
		write(ctx)
		sleep(ctx, c.clock, 700*time.Millisecond)
	}
	w.tell("%s told to stop: %v", c.name, context.Cause(ctx))
	for left := c.drain(); left > 0; left -= 300 * time.Millisecond {
		sleep(context.Background(), c.clock, min(left, 300*time.Millisecond))
		write(context.Background())
	}
	fence.Shut()
	c.mu.Lock()
	c.running--
	c.mu.Unlock()
	w.tell("%s returned", c.name)
}

// simObjects is the way of a candidate's guarded writes to the server.
type simObjects struct {
	c    *simCandidate
	term *Term
}

func (o *simObjects) RoundTrip(req *http.Request) (*http.Response, error) {
	epoch, w := o.term.Epoch(), o.c.world
	lag := o.c.link.lag()
	if o.c.link.chance() < 0.2 {
		lag *= 40 // at 20 ms, up to 0.8 s
	}
	timer := time.NewTimer(lag)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-req.Context().Done():
		return nil, context.Cause(req.Context())
	}
	w.mu.Lock()
	w.writes++
	// Within a term the epoch may rise while a write is on its way.
	late := epoch < w.lastWrite && o.term != w.lastWriter
	if epoch >= w.lastWrite {
		w.lastWrite, w.lastWriter = epoch, o.term
	}
	w.mu.Unlock()
	if late && !o.c.crashedNow() {
		o.c.overlap(o.term, "a write of an earlier epoch took effect after one of a later")
	}
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader("")), Request: req}, nil
}

// run returns what Run has returned, once it has.
func (c *simCandidate) run() error {
	<-c.ended
	return c.result
}

// term returns the first term of a candidate.
func (c *simCandidate) term() *Term {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.terms[0]
}

func (c *simCandidate) crashedNow() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.crashed
}

// watchLag is how long a leader whose link is healthy may take to learn that
// its lease was edited or deleted and taken: an answer that was lost just before
// the link healed has to time out, and a pause follows.
const watchLag = 4 * time.Second

// overlap counts a breach of promise A by term t, or excuses it.
func (c *simCandidate) overlap(t *Term, what string) {
	c.mu.Lock()
	c.world.mu.Lock()
	tainted := c.tainted[t] || c.world.taintedEpochs[t.Epoch()]
	c.world.mu.Unlock()
	first := c.excused[t].IsZero()
	if first {
		c.excused[t] = time.Now()
	}
	since := c.excused[t]
	c.mu.Unlock()
	if at, healthy := c.link.healthySince(); tainted && healthy && time.Since(since) > watchLag && time.Since(at) > watchLag {
		c.world.violate("%s (epoch %d): overlapped for longer than its watch can lag: %s", c.name, t.Epoch(), what)
		return
	}
	if tainted {
		c.world.mu.Lock()
		if first {
			c.world.exempted++
		}
		c.world.mu.Unlock()
		return
	}
	c.world.violate("%s (epoch %d): %s", c.name, t.Epoch(), what)
}

// open returns the term whose fence is open, or nil.
func (c *simCandidate) open() *Term {
	if c.stock || c.crashedNow() {
		return nil
	}
	for _, t := range c.every() {
		if t.Check() == nil {
			return t
		}
	}
	return nil
}

// every returns all terms that there have been.
func (c *simCandidate) every() []*Term {
	c.mu.Lock()
	terms := slices.Clone(c.terms)
	c.mu.Unlock()
	if t := c.elector.snapshot.Load().term; t != nil {
		terms = append(terms, t)
	}
	return terms
}

// check looks for two open fences at this instant.
func (w *simWorld) check() {
	var first *simCandidate
	var firstTerm *Term
	for _, c := range w.all() {
		t := c.open()
		switch {
		case t == nil:
		case first == nil:
			first, firstTerm = c, t
		default:
			older, term := c, t
			if firstTerm.Epoch() < t.Epoch() {
				older, term = first, firstTerm
			}
			older.overlap(term, fmt.Sprintf("two open fences: %s and %s", first.name, c.name))
		}
	}
}

// committed checks every write of the lease at the instant of its commit.
func (w *simWorld) committed(by string, before, after *coordinationv1.Lease) {
	holder := func(l *coordinationv1.Lease) string {
		if l == nil || l.Spec.HolderIdentity == nil {
			return ""
		}
		return *l.Spec.HolderIdentity
	}
	from, to := holder(before), holder(after)
	if w.keepLog {
		line := "deleted"
		if after != nil {
			line = fmt.Sprintf("v%s holder %q transitions %d renewTime %s", after.ResourceVersion, short(to), *after.Spec.LeaseTransitions, after.Spec.RenewTime.Format("15:04:05.000000"))
		}
		w.note("commit by %s: %s", short(by), line)
	}
	switch {
	case after == nil:
		w.tell("lease deleted")
	case before == nil && after != nil:
		w.tell("%s created the lease, transitions %d", short(by), *after.Spec.LeaseTransitions)
	case from != to && to == "":
		w.tell("%s cleared the holder", short(by))
	case from != to:
		w.tell("%s took the lease, transitions %d", short(by), *after.Spec.LeaseTransitions)
	}
	author := w.find(by)
	if author == nil {
		return // a hand; who did it sees to the excuses
	}
	if to == "" && from != "" && from != by {
		if author.stock {
			w.mu.Lock()
			w.stockWipes++
			w.mu.Unlock()
			w.taint(before)
		} else if !author.identity.isDead(from) {
			w.violate("%s released the lease of %s", author.name, short(from))
		}
		return
	}
	if to == "" && from == by && !author.stock {
		author.mu.Lock()
		running := author.running
		author.mu.Unlock()
		if t := author.open(); t != nil {
			author.overlap(t, "released the lease with an open fence")
		}
		if running > 0 {
			w.violate("%s released the lease before its controllers had returned", author.name)
		}
		for _, t := range author.terms {
			if n := t.flying(); n > 0 {
				w.violate("%s released the lease with %d writes in flight", author.name, n)
			}
		}
		return
	}
	if to == from && from == by || to != by {
		return
	}
	if before == nil && *after.Spec.LeaseTransitions == 0 {
		// Created by one that never saw the lease which was deleted: it did not
		// wait, which the contract allows.
		w.taint(nil)
	}
	if w.misled(author) {
		w.taint(before)
	}
	// A take-over: nobody else may still be allowed to write, from now on.
	for _, c := range w.all() {
		if c == author {
			continue
		}
		if t := c.open(); t != nil {
			c.overlap(t, fmt.Sprintf("its fence was open when %s took the lease", author.name))
		}
		c.mu.Lock()
		pair := c.stock && c.leading && !c.crashed
		c.mu.Unlock()
		if pair {
			w.mu.Lock()
			w.stockPairs++
			w.mu.Unlock()
		}
	}
	if !author.stock {
		epoch := epochOf(after)
		w.mu.Lock()
		if n := len(w.epochs); n > 0 && w.epochs[n-1] >= epoch {
			w.mu.Unlock()
			w.violate("epoch %d of %s follows %d", epoch, author.name, w.epochs[n-1])
			return
		}
		w.epochs = append(w.epochs, epoch)
		w.mu.Unlock()
	}
}

// taint excuses the terms that are open now, and the one that the lease is to
// become, from overlapping with what follows.
func (w *simWorld) taint(lease *coordinationv1.Lease) {
	if lease != nil {
		w.mu.Lock()
		w.taintedEpochs[epochOf(lease)] = true
		w.mu.Unlock()
	}
	for _, c := range w.all() {
		if c.stock || c.crashedNow() {
			continue
		}
		for _, t := range c.every() {
			// A write that has passed may take effect until its deadline.
			if t.Check() == nil || t.flying() > 0 {
				c.mu.Lock()
				c.tainted[t] = true
				c.mu.Unlock()
			}
		}
	}
}

// misled reports whether a candidate may take the lease too early because of an
// edit: client-go's act on whatever they read; ours only on a shortened duration,
// and only if they never saw the holder with the one before.
func (w *simWorld) misled(author *simCandidate) bool {
	w.mu.Lock()
	edited, shortened := w.edited, w.shortened
	w.mu.Unlock()
	if author.stock {
		return !edited.IsZero()
	}
	at, healthy := author.link.healthySince()
	return !shortened.IsZero() && (!healthy || at.After(shortened.Add(-time.Minute)))
}

func (w *simWorld) find(identity string) *simCandidate {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := len(w.candidates) - 1; i >= 0; i-- {
		if w.candidates[i].identity.String() == identity {
			return w.candidates[i]
		}
	}
	return nil
}

func short(identity string) string { name, _, _ := strings.Cut(identity, "_"); return name }

// leader returns a candidate that leads now: ours with its fence open and its
// controllers running, or a stock one.
func (w *simWorld) leader() *simCandidate {
	for _, c := range w.all() {
		if c.crashedNow() {
			continue
		}
		c.mu.Lock()
		running, leading := c.running, c.leading
		c.mu.Unlock()
		if c.stock && leading || !c.stock && running > 0 && c.open() != nil {
			return c
		}
	}
	return nil
}

// crash ends a candidate as SIGKILL does: from now on nothing of it reaches the
// server, and its fence guards nothing any more.
func (c *simCandidate) crash() {
	c.mu.Lock()
	c.crashed = true
	c.mu.Unlock()
	c.link.set(func(f *simFaults) { f.dead = true })
	c.gate.unfreeze()
	if c.elector != nil {
		c.elector.Abandon()
	}
	c.stop()
}

// launchStock runs client-go's own elector, again and again, as a Pod would.
func (c *simCandidate) launchStock(release bool) {
	w := c.world
	c.stock = true
	ctx, cancel := context.WithCancel(klog.NewContext(context.Background(), logr.Discard()))
	c.stop = cancel
	w.mu.Lock()
	w.candidates = append(w.candidates, c)
	w.mu.Unlock()
	go func() {
		defer close(c.ended)
		for ctx.Err() == nil {
			elector, err := clientgo.NewLeaderElector(clientgo.LeaderElectionConfig{
				Lock:          &simLock{c: c},
				LeaseDuration: w.timing.LeaseDuration, RenewDeadline: w.timing.RenewDeadline, RetryPeriod: w.timing.RetryPeriod,
				ReleaseOnCancel: release, Name: "lease",
				Callbacks: clientgo.LeaderCallbacks{
					OnStartedLeading: func(ctx context.Context) {
						c.setLeading(true)
						w.note("%s (stock) leads", c.name)
						<-ctx.Done()
						c.setLeading(false)
						w.note("%s (stock) stops leading", c.name)
					},
					OnStoppedLeading: func() {},
				},
			})
			if err != nil {
				panic(err)
			}
			elector.Run(ctx)
			sleep(ctx, c.clock, time.Second)
		}
	}()
}

func (c *simCandidate) setLeading(v bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leading = v
}

// simLock is client-go's LeaseLock over a link.
type simLock struct {
	c     *simCandidate
	lease *coordinationv1.Lease
}

func (l *simLock) timeout(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, l.c.world.timing.RenewDeadline/2)
}

func (l *simLock) Get(ctx context.Context) (*resourcelock.LeaderElectionRecord, []byte, error) {
	ctx, cancel := l.timeout(ctx)
	defer cancel()
	lease, err := simAPI{l.c.link}.get(ctx)
	if err != nil {
		return nil, nil, err
	}
	l.lease = lease
	record := recordOf(lease)
	raw, err := json.Marshal(record)
	return &record, raw, err
}

func (l *simLock) Create(ctx context.Context, r resourcelock.LeaderElectionRecord) error {
	ctx, cancel := l.timeout(ctx)
	defer cancel()
	lease, err := simAPI{l.c.link}.create(ctx, &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Name: "lease", Namespace: "default"}, Spec: resourcelock.LeaderElectionRecordToLeaseSpec(&r)})
	if err == nil {
		l.lease = lease
	}
	return err
}

func (l *simLock) Update(ctx context.Context, r resourcelock.LeaderElectionRecord) error {
	if l.lease == nil {
		return fmt.Errorf("not initialized")
	}
	ctx, cancel := l.timeout(ctx)
	defer cancel()
	next := l.lease.DeepCopy()
	next.Spec = resourcelock.LeaderElectionRecordToLeaseSpec(&r)
	lease, err := simAPI{l.c.link}.update(ctx, next)
	if err == nil {
		l.lease = lease
	}
	return err
}

func (l *simLock) RecordEvent(string) {}

func (l *simLock) Identity() string { return l.c.identity.String() }

func (l *simLock) Describe() string { return "lease" }
