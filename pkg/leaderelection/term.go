// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package leaderelection

import (
	"context"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Term is one uninterrupted tenure of this candidate. The context given to
// OnStartedLeading carries it. A Term is safe for concurrent use.
//
//	open --- context cancelled ---> closing --- shut ---> over
//	  |                                                    ^
//	  +------------------------ lost ----------------------+
//
// It is also what all fences of the Elector consult. Whether a write may pass
// depends on the clock at that moment, never on a timer having fired: before the
// cutoff it passes; past it, it waits while the term is open (in doubt) and is
// refused while the term is closing; once the term is over it is refused.
type Term struct {
	owner  *Elector
	clock  Clock
	timing Timing
	// unbounded terms have no cutoff: they are not elected, or a test switched
	// the cutoff off.
	unbounded bool
	// serverFenced means that the fencing policy guards the writes as well.
	serverFenced bool
	// refused logs once that the policy refuses the leader for good.
	refused sync.Once
	// ctx is cancelled when the controllers are to stop.
	ctx    context.Context
	cancel context.CancelCauseFunc
	// admitting ends when the fence is shut, sending when what is in flight is
	// cut off as well. Invariant: sending ends no earlier than admitting.
	admitting, sending   context.Context
	endAdmit, endSending context.CancelFunc

	epoch  atomic.Int64
	opened Reading
	// takenAt is when another holder was seen, on the boot clock; 0 if none was.
	takenAt atomic.Int64
	// transport makes the transport for guarded writes, once; nil: they use
	// their client's.
	transport func() (http.RoundTripper, error)
	// doubted asks the Elector to renew now; it never blocks.
	doubted func()

	mu sync.Mutex // held for a few instructions, never across anything that waits
	// acked is when the last acknowledged lease write was sent. Invariant: never
	// goes back.
	acked    Reading
	inFlight int
	// changed is closed, and replaced, whenever a write in doubt should look
	// again.
	changed chan struct{}
	// idle is closed once nothing is admitted and nothing is in flight.
	idle  chan struct{}
	conns map[net.Conn]struct{}
}

type termKey struct{}

// newTerm opens a term on a lease write sent at acked. Its context has the
// values of base but not its end.
func newTerm(base context.Context, clock Clock, timing Timing, acked Reading, epoch int64) *Term {
	t := &Term{
		clock: clock, timing: timing, acked: acked, opened: clock.Read(),
		doubted: func() {},
		changed: make(chan struct{}), idle: make(chan struct{}), conns: map[net.Conn]struct{}{},
	}
	t.epoch.Store(epoch)
	base = context.WithoutCancel(base)
	t.ctx, t.cancel = context.WithCancelCause(context.WithValue(base, termKey{}, t))
	t.admitting, t.endAdmit = context.WithCancel(base)
	t.sending, t.endSending = context.WithCancel(base)
	return t
}

// TermFrom returns the term that ctx belongs to, or nil.
func TermFrom(ctx context.Context) *Term {
	t, _ := ctx.Value(termKey{}).(*Term)
	return t
}

// Epoch returns the fencing token of the term: the creation time of the Lease
// (unix seconds, set by the API server) times 2^20, plus its transitions. It is
// higher than that of any earlier term of any candidate, and rises within a term
// only when the Lease was edited or had to be created anew. Without election it
// is 0.
func (t *Term) Epoch() int64 { return t.epoch.Load() }

// Check returns nil while a write would pass the fence, and otherwise an error
// that is ErrNotLeader. It is meant for effects outside the API: call it right
// before, and hand on the epoch.
func (t *Term) Check() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch t.judgeLocked() {
	case pass:
		return nil
	case inDoubt:
		return &notLeaderError{reason: "in doubt until the lease is next renewed"}
	default:
		return &notLeaderError{reason: "the term is over"}
	}
}

// verdict is what becomes of a write at the fence.
type verdict int

const (
	pass verdict = iota
	inDoubt
	refuse
)

// judge decides on a write, given how much of the lease's validity remains, how
// much of it is the in-flight budget, and whether the term's context is
// cancelled and the fence shut.
func judge(remaining, budget time.Duration, closing, shut bool) verdict {
	switch {
	case shut:
		return refuse
	case remaining > budget:
		return pass
	case closing:
		return refuse
	default:
		return inDoubt
	}
}

func (t *Term) judgeLocked() verdict {
	return judge(t.remainingLocked(), t.timing.InFlightBudget, t.ctx.Err() != nil, t.admitting.Err() != nil)
}

// remainingLocked is the time until whatever passed must have ended.
func (t *Term) remainingLocked() time.Duration {
	if t.unbounded {
		return time.Hour
	}
	return t.timing.deadline() - t.clock.Read().spent(t.acked)
}

// remaining is the time until whatever passed must have ended.
func (t *Term) remaining() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.remainingLocked()
}

// taken notes that another holder was seen.
func (t *Term) taken(now Reading) { t.takenAt.CompareAndSwap(0, int64(max(now.Boot, 1))) }

// overtime is the time since the lease could have been taken over, or was. The
// wall clock has no say in it.
func (t *Term) overtime(now Reading) time.Duration {
	acked := t.ackedAt()
	past := max(now.Boot-acked.Boot, now.Mono-acked.Mono) - t.timing.LeaseDuration
	if at := t.takenAt.Load(); at != 0 {
		past = max(past, now.Boot-time.Duration(at))
	}
	return past
}

// pastCutoff reports whether the fence lets nothing new pass for now.
func (t *Term) pastCutoff() bool { return t.remaining() <= t.timing.InFlightBudget }

// ackedAt returns when the last acknowledged lease write was sent.
func (t *Term) ackedAt() Reading {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.acked
}

// acknowledge prolongs the term by a lease write sent at s. It reports whether
// s is news.
func (t *Term) acknowledge(s Reading) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s.Mono < t.acked.Mono {
		return false
	}
	t.acked = s
	t.wakeLocked()
	return true
}

func (t *Term) wakeLocked() {
	close(t.changed)
	t.changed = make(chan struct{})
}

// close cancels the term's context, for good.
func (t *Term) close(cause error) {
	t.cancel(cause)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.wakeLocked()
}

// shut lets nothing pass any more, and cancels what has no deadline of its own.
// What is in flight otherwise goes on.
func (t *Term) shut() {
	t.endAdmit()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.wakeLocked()
	t.settleLocked()
}

// sever shuts the fence, cuts off what is in flight and closes the connections.
func (t *Term) sever() {
	t.shut()
	t.endSending()
	t.mu.Lock()
	conns := t.conns
	t.conns = map[net.Conn]struct{}{}
	t.mu.Unlock()
	for c := range conns {
		_ = c.Close()
	}
}

func (t *Term) settleLocked() {
	if t.admitting.Err() == nil || t.inFlight > 0 {
		return
	}
	select {
	case <-t.idle:
	default:
		close(t.idle)
	}
}

// settled reports whether the fence is shut with nothing in flight.
func (t *Term) settled() bool {
	select {
	case <-t.idle:
		return true
	default:
		return false
	}
}

// flying returns the number of guarded writes in flight.
func (t *Term) flying() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.inFlight
}

// enter admits a write, at once or once the doubt has ended, and returns how
// long it may take. Whoever was admitted must call leave. waited says that the
// write was in doubt.
func (t *Term) enter(ctx context.Context, gone <-chan struct{}) (remaining time.Duration, waited bool, err error) {
	for {
		t.mu.Lock()
		changed := t.changed
		v := t.judgeLocked()
		if v == pass {
			t.inFlight++
			remaining = t.remainingLocked()
		}
		t.mu.Unlock()
		switch v {
		case pass:
			return remaining, waited, nil
		case refuse:
			return 0, waited, &notLeaderError{reason: "the term is over"}
		}
		waited = true
		t.doubted()
		select {
		case <-changed:
		case <-gone:
			return 0, waited, &notLeaderError{reason: "the controller's run has ended"}
		case <-ctx.Done():
			return 0, waited, context.Cause(ctx)
		}
	}
}

func (t *Term) leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.inFlight--
	t.settleLocked()
}

// mayWrite reports whether bytes of an admitted write may still be sent.
func (t *Term) mayWrite() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.sending.Err() == nil && t.remainingLocked() > 0
}

// track adds a connection to those that sever closes; it reports false when it
// is too late for that.
func (t *Term) track(c net.Conn) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.sending.Err() != nil {
		return false
	}
	t.conns[c] = struct{}{}
	return true
}

func (t *Term) untrack(c net.Conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.conns, c)
}
