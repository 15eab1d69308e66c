// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package leaderelection

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/klog/v2"
)

// engine is a running Elector: a state machine that one goroutine owns. What
// waits (the watch, requests, callbacks, timers) runs in goroutines of its own
// and reports to it; after each report it takes one step.
//
//	           +---------------------------------------------+
//	           v                                             |
//	starting -> observing --acquired--> leading              | all callbacks
//	              |  ^                   |   |               | have returned
//	        asked |  |  drained, but     |   +--taken------> lost --not in time--+
//	      to stop |  |  not asked to     |                   ^ |                 |
//	              |  |  stop             |  asked to stop,   | | on lost: exit   |
//	              |  |                   |  returned early,  | |                 |
//	              |  |                   |  yielded,         | |                 |
//	              |  +---- releasing     |  renew deadline   | |                 |
//	              |           |  ^       v                   | |                 |
//	              |           |  +--- draining ---taken------+ |                 |
//	              v           v          |       or cutoff     v                 v
//	            stopped <-----+----------+-- drain timeout, abandoned ------> stopped
//
// leading and draining renew the lease; the fence is open until the end of the
// drain, for the controllers may still have to write. A term that was drained
// because of the renew deadline, on a lease that was kept after all, goes
// straight from draining to observing, and the next term begins on it.
type engine struct {
	*Elector
	me     string
	timing Timing
	logger klog.Logger

	// base has the values of Run's context and ends when Run returns.
	base    context.Context
	cancel  context.CancelFunc
	asked   <-chan struct{}
	helpers sync.WaitGroup
	mail    *mailbox

	state    State
	stopping bool  // asked to stop
	result   error // what Run will return
	leaving  bool  // Run returns as soon as the callbacks allow

	view     view
	attempts attempts
	sights   chan sighting
	restart  chan struct{}
	failures chan failure
	complain complaints
	contact  Reading // when the API server last answered
	answered bool

	// One write and one GET at a time.
	writing *attempt
	writes  chan writeResult
	getting bool
	gets    chan getResult

	want       string        // why a GET is wanted, "" if none is
	getAt      time.Duration // not before
	getPause   backoff
	conflicted bool          // the last write met a version that is not known yet
	unsettled  bool          // an acquisition went unanswered and may be committed
	retryAt    time.Duration // no write before
	writePause backoff
	retrying   bool          // the last renewal failed
	urgent     bool          // the record is gone or was edited: renew now
	renewed    time.Duration // when the last renewal was started
	notBefore  time.Duration // leave the lease to others until then
	back       standing
	claim      claim
	claiming   bool // a claim is being written
	claims     chan claimResult

	heard    time.Duration // when the watch last delivered something
	checked  time.Duration // when silence last led to a GET
	expect   string        // a version the watch should have delivered
	expectBy time.Duration

	reported string // the holder last given to OnNewLeader
	tried    string // why, and on which version, the lease was last tried for
	due      time.Duration
	editedAt time.Duration // when an edit of the lease by others was last logged

	tenure tenure
	// last is the term before, whose requests may still be in flight.
	last *Term
	// ended is closed when OnStoppedLeading has returned, nil if none is under
	// way; endBy is until when that may take.
	ended chan struct{}
	endBy time.Duration
}

// tenure is the present term and what belongs to it.
type tenure struct {
	term     *Term
	acquired time.Time
	// contacted is closed when Contact has returned.
	contacted chan struct{}
	contactBy time.Duration
	started   bool          // OnStartedLeading has been called
	returned  chan struct{} // closed when it has returned
	back      bool          // it was seen to have returned
	why       drainReason
	leftAt    time.Duration // when the drain began, or the release of a lease never led on
	drainBy   time.Duration // when a drain that was asked for has taken too long
	stopBy    time.Duration // when callbacks that have to stop have taken too long
}

type drainReason string

const (
	drainAsked    drainReason = "asked to stop"
	drainReturned drainReason = "OnStartedLeading returned"
	drainYielded  drainReason = "claimed by a candidate that leads fewer"
	drainExpired  drainReason = "renew deadline passed"
)

// Causes of the end of a term's context.
var (
	errAskedToStop   = errors.New("asked to stop")
	errRenewDeadline = errors.New("the renew deadline passed without a renewal")
	errTaken         = errors.New("the lease was lost")
	errReturned      = errors.New("OnStartedLeading returned")
	errYielded       = errors.New("the lease is given to a candidate that leads fewer")
)

type writeResult struct {
	try   *attempt
	lease *coordinationv1.Lease
	err   error
	at    Reading
}

type getResult struct {
	sighting sighting
	err      error
}

type failure struct {
	op  string
	err error
}

func newEngine(ctx context.Context, e *Elector) *engine {
	g := &engine{
		Elector: e, me: e.cfg.Identity.String(), timing: e.cfg.Timing,
		logger: klog.FromContext(ctx).WithValues("lease", klog.KRef(e.cfg.Namespace, e.cfg.LeaseName)),
		asked:  ctx.Done(), mail: newMailbox(), state: StateObserving,
		view:   newView(e.cfg.Timing.LeaseDuration),
		sights: make(chan sighting), restart: make(chan struct{}, 1), failures: make(chan failure),
		writes: make(chan writeResult), gets: make(chan getResult), claims: make(chan claimResult),
	}
	g.base, g.cancel = context.WithCancel(klog.NewContext(context.WithoutCancel(ctx), g.logger))
	return g
}

// run turns until the engine has stopped.
func (e *engine) run(context.Context) error {
	t := e.timing
	e.logger.Info("Competing for the lease", "identity", e.me, "reclaim", e.cfg.Identity.CanReclaim(),
		"leaseDuration", t.LeaseDuration, "renewDeadline", t.RenewDeadline, "retryPeriod", t.RetryPeriod,
		"margin", t.margin(), "inFlightBudget", t.InFlightBudget, "cutoff", t.cutoff(), "deadline", t.deadline(),
		"tryTimeout", t.tryTimeout(), "drainTimeout", e.cfg.DrainTimeout, "stopTimeout", e.cfg.StopTimeout, "onLost", e.cfg.OnLost)
	e.heard = e.cfg.Clock.Read().Mono
	mailed := make(chan struct{})
	go func() {
		defer close(mailed)
		e.mail.run(e.base)
	}()
	o := &observer{api: e.api, clock: e.cfg.Clock, timeout: t.tryTimeout(), jitter: e.cfg.jitter,
		sights: e.sights, restart: e.restart, pulse: &e.observe,
		failed: func(op string, err error) { offer(e.base, e.failures, failure{op, err}) }}
	e.helpers.Go(func() { o.run(e.base) })
	for e.state != StateStopped {
		e.turnOnce()
	}
	e.publish()
	e.cfg.Share.leave(e.Elector)
	e.turn.rest()
	e.cancel()
	e.helpers.Wait()
	e.observe.rest()
	e.api.close()
	// What the mailbox runs is not ours: it gets a second.
	wait, cancel := withTimeout(context.WithoutCancel(e.base), e.cfg.Clock, time.Second)
	defer cancel()
	select {
	case <-mailed:
	case <-wait.Done():
	}
	return e.result
}

// offer sends unless ctx has ended.
func offer[T any](ctx context.Context, ch chan<- T, value T) {
	select {
	case ch <- value:
	case <-ctx.Done():
	}
}

// turnOnce takes a step and waits for something to happen.
func (e *engine) turnOnce() {
	now := e.cfg.Clock.Read()
	e.turn.busy(now, e.timing.RetryPeriod)
	state, wait := e.state, e.step(now)
	for e.state != state {
		state, wait = e.state, e.step(now)
	}
	e.publish()
	if e.state == StateStopped {
		return
	}
	longest := e.timing.RetryPeriod
	if e.state == StateObserving && e.expect == "" && e.want == "" {
		longest += longest / 2 // a leader that renews on time is heard of first
	}
	wait = min(max(wait, time.Millisecond), longest)
	stop := e.cfg.Clock.AfterFunc(wait, e.poke)
	defer stop()
	select {
	case <-e.asked:
		e.asked, e.stopping = nil, true
	case <-e.abandoned:
	case <-e.wake:
	case s := <-e.sights:
		e.sighted(s)
	case f := <-e.failures:
		e.failed(f.op, f.err)
	case r := <-e.writes:
		e.written(r)
	case r := <-e.gets:
		e.got(r)
	case r := <-e.claims:
		e.claimed(r)
	case <-e.tenure.contacted:
		e.tenure.contacted, e.tenure.contactBy = nil, 0
	case <-e.tenure.returned:
		e.tenure.returned, e.tenure.back = nil, true
	case <-e.ended:
		e.ended = nil
	case <-e.settling():
	}
}

// settling returns what is closed when the last write in flight has ended, while
// a step waits for that.
func (e *engine) settling() <-chan struct{} {
	t := e.tenure.term
	if !e.tenure.back || t == nil || t.settled() {
		return nil
	}
	return t.idle
}

// step acts on what is known and returns when to look again at the latest.
func (e *engine) step(now Reading) time.Duration {
	if e.asked != nil {
		select {
		case <-e.asked:
			e.asked, e.stopping = nil, true
		default:
		}
	}
	select {
	case <-e.abandoned:
		e.giveUp(now, "asked to stop at once")
		return 0
	default:
	}
	e.fetch(now)
	e.checkWatch(now)
	switch e.state {
	case StateObserving:
		return e.stepObserving(now)
	case StateLeading:
		return e.stepLeading(now)
	case StateDraining:
		return e.stepDraining(now)
	case StateReleasing:
		return e.stepReleasing(now)
	case StateLost:
		return e.stepLost(now)
	}
	return 0
}

// stop ends the run with err.
func (e *engine) stop(err error) {
	e.state, e.result = StateStopped, err
}

// ---- observing

func (e *engine) stepObserving(now Reading) time.Duration {
	if e.ended != nil {
		// The last term is not over while one of its callbacks runs.
		if now.Mono >= e.endBy {
			e.logger.Info("OnStoppedLeading did not return in time", "stopTimeout", e.cfg.StopTimeout)
			e.stop(ErrLost)
			return 0
		}
		return e.endBy - now.Mono
	}
	e.running.Store(nil)
	if e.leaving {
		e.stop(e.result)
		return 0
	}
	if e.stopping {
		return e.stepStopping(now)
	}
	wait := e.listen(now)
	if !e.view.known || e.writing != nil || e.conflicted {
		return wait
	}
	d := e.view.decide(now, candidate{me: e.me, idle: e.last == nil || e.last.settled(),
		dead: e.cfg.Identity.isDead, loops: e.loops})
	if d.wait > 0 {
		e.due = now.Mono + d.wait
		if again := e.ask(now); again > 0 {
			wait = min(wait, again)
		}
		return min(wait, d.wait)
	}
	if hold := max(e.retryAt, e.notBefore, e.standBack(now, d)) - now.Mono; hold > 0 {
		return min(wait, hold)
	}
	if e.unsettled && e.view.object == nil && e.view.transitions >= 0 {
		// No version guards a creation. As long as creations go unanswered, this
		// candidate cannot know that nobody has led since the deletion.
		if e.want == "" {
			e.want, e.getAt = wantAbsence, now.Mono
			e.fetch(now)
		}
		return wait
	}
	if e.due > now.Mono || e.due < e.view.since.Mono {
		e.due = e.view.since.Mono
	}
	level := 4 // the same try again
	if tried := d.reason + e.view.version; tried != e.tried {
		e.tried, level = tried, 2
	}
	e.logger.V(level).Info("Trying to take the lease", "reason", d.reason, "write", d.kind.String())
	e.write(now, d.kind)
	e.writing.reason, e.writing.previous = d.reason, cmp.Or(e.view.record.HolderIdentity, e.view.holder)
	return wait
}

// stepStopping leaves without having led. An acquisition that was under way is
// awaited, and undone, for nobody else could lead for a lease duration.
func (e *engine) stepStopping(now Reading) time.Duration {
	switch {
	case e.writing != nil || e.getting:
		return time.Second
	case e.view.object != nil && e.view.record.HolderIdentity == e.me && (e.last == nil || e.last.settled()):
		e.tenure = tenure{leftAt: now.Mono, stopBy: now.Mono + e.cfg.StopTimeout}
		e.state, e.retryAt = StateReleasing, 0
		return 0
	case e.unsettled || e.conflicted:
		e.unsettled, e.conflicted = false, false
		e.want, e.getAt = "stopping", 0
		e.fetch(now)
		return time.Second
	}
	e.logger.Info("Stopped competing for the lease")
	e.stop(nil)
	return 0
}

// loops reports whether the dead holder of r was in a crash loop: its term
// lasted less than a lease duration, or the reclaim would be the second in five
// minutes.
func (e *engine) loops(r resourcelock.LeaderElectionRecord) bool {
	return e.cfg.Identity.looping || r.RenewTime.Sub(r.AcquireTime.Time) < e.timing.LeaseDuration
}

// listen asks for a GET when the watch has been silent for half the lease's
// duration, at most once in each. It returns when to look again.
func (e *engine) listen(now Reading) time.Duration {
	period := max(e.view.duration, e.timing.LeaseDuration)
	quiet := max(e.heard+period/2, e.checked+period) - now.Mono
	if quiet > 0 || !e.view.known {
		return max(quiet, e.timing.RetryPeriod)
	}
	e.checked = now.Mono
	if e.want == "" {
		e.want, e.getAt = wantQuiet, now.Mono
		e.fetch(now)
	}
	return period
}

// Reasons for a GET that are told apart.
const (
	wantQuiet    = "no event" // not repeated when it fails
	wantConflict = "conflict" // not needed once the watch has told
	wantAbsence  = "creation not answered"
)

// checkWatch asks for a new watch when this one has not delivered what must
// have happened.
func (e *engine) checkWatch(now Reading) {
	if e.expect != "" && now.Mono >= e.expectBy {
		e.rewatch(now)
	}
}

func (e *engine) rewatch(now Reading) {
	e.logger.V(2).Info("The watch seems to have stalled, watching anew", "expected", e.expect)
	e.expect, e.heard = "", now.Mono
	select {
	case e.restart <- struct{}{}:
	default:
	}
}

// expecting notes that the watch should deliver version within d.
func (e *engine) expecting(now Reading, version string, d time.Duration) {
	if e.expect == "" {
		e.expect, e.expectBy = version, now.Mono+d
	}
}

// ---- leading

// lead opens a term on an acknowledged acquisition.
func (e *engine) lead(now Reading, try *attempt) {
	sent := try.sent
	if e.cfg.off.startOfRequest {
		sent = now
	}
	epoch := epochOf(e.view.object)
	t := e.openTerm(klog.NewContext(e.base, e.logger.WithValues("epoch", epoch)), sent, epoch)
	e.tenure = tenure{term: t, acquired: e.view.record.AcquireTime.Time}
	e.state, e.renewed, e.retrying, e.urgent = StateLeading, try.sent.Mono, false, false
	e.cfg.Metrics.master.WithLabelValues(e.cfg.Name).Set(1)
	e.cfg.Metrics.epoch.WithLabelValues(e.cfg.Name).Set(float64(epoch))
	e.logger.Info("Became leader", "identity", e.me, "epoch", epoch, "transitions", e.view.record.LeaderTransitions,
		"reason", try.reason, "previous", try.previous, "took", (now.Mono - e.due).Round(time.Microsecond))
	e.record("%s became leader, epoch %d", e.me, epoch)
	if e.cfg.Contact == nil {
		return
	}
	done := make(chan struct{})
	e.tenure.contacted, e.tenure.contactBy = done, now.Mono+contactTimeout
	ctx, cancel := withTimeout(t.ctx, e.cfg.Clock, contactTimeout)
	go func() {
		defer close(done)
		defer cancel()
		if err := e.cfg.Contact(ctx); err != nil && t.ctx.Err() == nil {
			e.logger.Info("Starting before the informers have been in contact with the API server", "err", err)
		}
	}()
}

func (e *engine) stepLeading(now Reading) time.Duration {
	u := &e.tenure
	left := e.timing.RenewDeadline - (now.Boot - u.term.ackedAt().Boot)
	switch {
	case left <= 0:
		e.drain(now, drainExpired, errRenewDeadline)
		return 0
	case e.stopping:
		e.drain(now, drainAsked, errAskedToStop)
		return 0
	case u.back:
		e.drain(now, drainReturned, errReturned)
		return 0
	case e.yields(now):
		e.logger.Info("Giving the lease to a candidate that leads fewer", "claimant", e.claim.by)
		e.drain(now, drainYielded, errYielded)
		return 0
	}
	wait := min(left, e.keep(now))
	if !u.started {
		if u.contacted != nil && now.Mono < u.contactBy {
			return min(wait, u.contactBy-now.Mono)
		}
		e.start(now)
	}
	return wait
}

// start calls OnStartedLeading.
func (e *engine) start(now Reading) {
	u := &e.tenure
	if u.contacted != nil {
		e.logger.Info("Starting before the informers have been in contact with the API server", "waited", contactTimeout)
		u.contacted = nil
	}
	u.started, u.returned = true, make(chan struct{})
	e.running.Store(u.term)
	e.publish() // what it calls may ask for the status
	e.logger.V(1).Info("Starting to lead", "epoch", u.term.Epoch(), "sinceAcquired", (now.Mono - u.term.opened.Mono).Round(time.Microsecond))
	term, returned := u.term, u.returned
	go func() {
		defer close(returned)
		e.cfg.Callbacks.OnStartedLeading(term.ctx)
	}()
}

// keep renews the lease when it is time and returns when that will be.
func (e *engine) keep(now Reading) time.Duration {
	if e.writing != nil || e.conflicted {
		return time.Second
	}
	t := e.tenure.term
	doubt := t.ctx.Err() == nil && t.pastCutoff()
	due := e.renewed + e.timing.RetryPeriod
	if e.retrying {
		due = e.retryAt
	} else if e.urgent || doubt {
		due = e.renewed + minBackoff
	}
	if due > now.Mono {
		return due - now.Mono
	}
	e.renewed, e.urgent = now.Mono, false
	e.write(now, renew)
	return e.timing.RetryPeriod
}

// ---- draining

// drain cancels the term's context, for good.
func (e *engine) drain(now Reading, why drainReason, cause error) {
	u := &e.tenure
	u.why, u.leftAt, u.stopBy = why, now.Mono, now.Mono+e.cfg.StopTimeout
	u.term.close(cause)
	e.state = StateDraining
	if !u.started {
		u.back = true
	}
	if why == drainExpired {
		e.logger.Info("Renew deadline passed, stopping the controllers of this term", "epoch", u.term.Epoch(), "renewDeadline", e.timing.RenewDeadline)
	} else {
		e.logger.V(1).Info("Draining", "epoch", u.term.Epoch(), "reason", why)
	}
}

func (e *engine) stepDraining(now Reading) time.Duration {
	u := &e.tenure
	if e.stopping && u.drainBy == 0 {
		u.drainBy = now.Mono + e.cfg.DrainTimeout
	}
	left := u.term.remaining() - e.timing.InFlightBudget
	switch {
	case left <= 0:
		// Nobody may have the lease yet, so what is in flight keeps its deadline.
		e.lose(now, "not renewed before the cutoff", u.term.shut)
		return 0
	case u.drainBy > 0 && now.Mono >= u.drainBy:
		e.giveUp(now, "drain timeout")
		return 0
	case u.why == drainExpired && !u.back && now.Mono >= u.stopBy:
		e.logger.Info("OnStartedLeading did not return in time", "stopTimeout", e.cfg.StopTimeout)
		e.endTerm(now, endAbandoned, u.term.sever)
		e.stop(ErrLost)
		return 0
	}
	wait := left
	if u.drainBy > 0 {
		wait = min(wait, u.drainBy-now.Mono)
	}
	if u.why == drainExpired && !u.back {
		wait = min(wait, u.stopBy-now.Mono)
	}
	if u.back {
		u.term.shut()
		if u.term.settled() {
			e.drained(now)
			return 0
		}
	}
	return min(wait, e.keep(now))
}

// drained goes on after a complete drain.
func (e *engine) drained(now Reading) {
	if e.tenure.why == drainExpired && !e.stopping && e.cfg.OnLost == Rejoin {
		e.sayLost(now, string(drainExpired))
		e.endTerm(now, endExpired, e.tenure.term.sever)
		e.state = StateObserving
		return
	}
	e.state, e.retryAt = StateReleasing, 0
}

// ---- releasing

func (e *engine) stepReleasing(now Reading) time.Duration {
	u := &e.tenure
	mine := e.view.object != nil && e.view.record.HolderIdentity == e.me
	if e.cfg.off.releaseCheck && e.view.object != nil {
		mine = true
	}
	left := u.stopBy - now.Mono
	if u.term != nil {
		left = u.term.remaining()
	}
	switch {
	case !mine:
		e.released(now, "no longer held", nil)
		return 0
	case left <= 0:
		e.logger.Info("The lease could not be released, others have to wait until it expires", "reason", reasonOf(*u), "epoch", u.epoch())
		e.released(now, "", nil)
		return 0
	case e.writing != nil || e.conflicted:
		return left // the renewal in flight is awaited
	case now.Mono < e.retryAt:
		return min(left, e.retryAt-now.Mono)
	}
	e.write(now, release)
	return left
}

// released ends the releasing of the lease, with or without success.
func (e *engine) released(now Reading, why string, try *attempt) {
	u := e.tenure
	if try != nil {
		e.logger.Info("Released the lease", "reason", reasonOf(u), "epoch", u.epoch(), "transitions", e.view.transitions,
			"took", (now.Mono - u.leftAt).Round(time.Microsecond))
		e.record("%s released the lease", e.me)
	} else if why != "" {
		e.logger.Info("Nothing to release", "reason", why, "epoch", u.epoch())
	}
	if u.term != nil {
		end := endReleased
		if try == nil {
			end = endLost
		}
		e.endTerm(now, end, u.term.sever)
	}
	e.state = StateObserving
	switch {
	case e.stopping:
		e.leaving = true
	case u.why == drainExpired:
		e.leaving, e.result = true, ErrLost
	default:
		// Whoever gave the lease up of its own accord lets others go first.
		e.notBefore = now.Mono + e.timing.RetryPeriod + time.Duration(e.cfg.jitter()*float64(e.timing.RetryPeriod))
	}
}

// epoch is that of the term, or 0 if the lease was never led on.
func (u tenure) epoch() int64 {
	if u.term == nil {
		return 0
	}
	return u.term.Epoch()
}

func reasonOf(u tenure) string {
	if u.why == "" {
		return "never led on it"
	}
	return string(u.why)
}

// ---- lost

// lose ends the term without a release. How decides what becomes of the writes
// in flight.
func (e *engine) lose(now Reading, why string, how func()) {
	u := &e.tenure
	u.term.close(errTaken)
	e.sayLost(now, why)
	if e.view.object != nil && e.view.record.HolderIdentity != e.me {
		u.term.taken(now)
	}
	e.endTerm(now, endLost, how)
	u.stopBy = now.Mono + e.cfg.StopTimeout
	if u.drainBy > 0 {
		u.stopBy = min(u.stopBy, u.drainBy)
	}
	if !u.started {
		u.back = true
	}
	e.state = StateLost
}

// sayLost tells of a term that ends without a release.
func (e *engine) sayLost(now Reading, why string) {
	t := e.tenure.term
	e.logger.Info("Lost the lease", "reason", why, "epoch", t.Epoch(), "holder", e.view.record.HolderIdentity,
		"sinceLastRenewal", now.spent(t.ackedAt()).Round(time.Millisecond))
	e.record("%s lost the lease: %s", e.me, why)
}

func (e *engine) stepLost(now Reading) time.Duration {
	u := &e.tenure
	if u.back && e.ended == nil && e.last.settled() {
		e.last.sever()
		e.state = StateObserving
		if e.cfg.OnLost == Exit {
			e.leaving, e.result = true, ErrLost
		} else if e.stopping {
			e.leaving = true
		}
		return 0
	}
	if now.Mono >= u.stopBy {
		e.logger.Info("The callbacks of the lost term did not return in time", "stopTimeout", e.cfg.StopTimeout,
			"onStartedLeadingReturned", u.back, "onStoppedLeadingReturned", e.ended == nil)
		e.last.sever()
		e.stop(ErrLost)
		return 0
	}
	return u.stopBy - now.Mono
}

// endTerm ends the present term: its fence is shut, and OnStoppedLeading is
// called if OnStartedLeading was.
func (e *engine) endTerm(now Reading, end string, how func()) {
	u := &e.tenure
	how()
	u.term.close(errTaken)
	e.last = u.term
	e.cfg.Metrics.master.WithLabelValues(e.cfg.Name).Set(0)
	e.cfg.Metrics.epoch.WithLabelValues(e.cfg.Name).Set(0)
	e.cfg.Metrics.terms.WithLabelValues(e.cfg.Name, end).Inc()
	if !u.started || e.cfg.Callbacks.OnStoppedLeading == nil {
		return
	}
	ended := make(chan struct{})
	e.ended, e.endBy = ended, now.Mono+e.cfg.StopTimeout
	go func() {
		defer close(ended)
		e.cfg.Callbacks.OnStoppedLeading()
	}()
}

// giveUp ends the run without a release, now.
func (e *engine) giveUp(now Reading, why string) {
	switch e.state {
	case StateLeading, StateDraining, StateReleasing:
		if e.tenure.term == nil {
			e.stop(nil)
			return
		}
		e.tenure.term.close(errAskedToStop)
		e.logger.Info("Abandoned the term, the lease is not released", "reason", why, "epoch", e.tenure.term.Epoch(),
			"callbackReturned", e.tenure.back, "writesInFlight", e.tenure.term.flying())
		e.endTerm(now, endAbandoned, e.tenure.term.sever)
		e.stop(ErrDrainTimeout)
	case StateLost:
		e.last.sever()
		e.stop(ErrDrainTimeout)
	default:
		e.stop(e.result)
	}
}

// ---- what is learnt

// sighted takes a look at the lease into account.
func (e *engine) sighted(s sighting) outcome {
	now := e.cfg.Clock.Read()
	e.worked(s)
	switch s.source {
	case fromWatch, fromList, fromBookmark:
		e.heard = now.Mono
		if e.expect != "" && !older(s.version, e.expect) {
			e.expect = ""
		}
	}
	out := e.view.see(s)
	switch out {
	case wentBack:
		e.want, e.getAt = "the list went back", now.Mono
	case news:
		e.learn(now, s)
	}
	return out
}

// learn reacts to a change of what is known.
func (e *engine) learn(now Reading, s sighting) {
	v := &e.view
	e.conflicted, e.unsettled = false, false
	holder := v.record.HolderIdentity
	e.cfg.Metrics.transitions.WithLabelValues(e.cfg.Name).Set(float64(v.transitions))
	if holder != "" && holder != e.me {
		e.complain.forget("write") // it is another's to write; a refusal shows again at the next try
	}
	if holder != "" && holder != e.reported {
		if holder != e.me {
			e.logger.Info("New leader observed", "holder", holder, "epoch", epochOf(v.object), "transitions", v.record.LeaderTransitions,
				"previous", e.reported)
		}
		e.reported = holder
		if report := e.cfg.Callbacks.OnNewLeader; report != nil {
			e.publish() // it may ask for the status
			e.mail.post(func() { report(holder) })
		}
	}
	try := e.attempts.find(v.record, e.me)
	if v.object == nil {
		try = nil
	}
	if e.state == StateLeading || e.state == StateDraining {
		switch {
		case v.object == nil:
			e.logger.Info("The lease was deleted, creating it again")
			e.urgent = true
		case holder == "":
			e.lose(now, "its holder was cleared", e.tenure.term.sever)
		case holder != e.me:
			e.lose(now, "taken by another candidate", e.tenure.term.sever)
		case try == nil:
			level := 4 // the same edits go on
			if e.editedAt == 0 || now.Mono-e.editedAt >= e.timing.RetryPeriod {
				e.editedAt, level = now.Mono, 0
			}
			e.logger.V(level).Info("The lease was edited, renewing it", "version", v.version)
			e.urgent = true
		}
	}
	if try != nil {
		e.proven(now, try)
	}
}

// proven notes that an attempt was committed, whether by its answer or by the
// record that it left. Its time counts from when it was sent, never from when
// the proof arrived.
func (e *engine) proven(now Reading, try *attempt) {
	if try.proven {
		return
	}
	v := &e.view
	mine := v.object != nil && v.record.HolderIdentity == e.me
	try.proven = true
	e.retrying = false
	e.writePause.reset()
	switch try.kind {
	case acquire:
		if !mine || e.state != StateObserving {
			return
		}
		if try.reclaims {
			e.mail.post(func() { e.noteReclaim() })
		}
		if e.stopping || e.ended != nil {
			return
		}
		if late := now.spent(try.sent); !e.timing.fresh(late) && !e.cfg.off.startOfRequest {
			e.logger.Info("Acquired the lease, but the answer came late: renewing it before leading on it", "late", late)
			return
		}
		e.lead(now, try)
	case renew:
		if !mine || (e.state != StateLeading && e.state != StateDraining) {
			return
		}
		t, sent := e.tenure.term, try.sent
		if e.cfg.off.startOfRequest {
			sent = now
		}
		if t.acknowledge(sent) {
			e.logger.V(5).Info("Renewed the lease", "took", now.Mono-try.sent.Mono, "version", v.version)
		}
		if epoch := epochOf(v.object); epoch > t.Epoch() {
			e.logger.Info("The epoch of the term has risen, for the lease was edited or created again", "epoch", epoch, "was", t.Epoch())
			t.epoch.Store(epoch)
			e.cfg.Metrics.epoch.WithLabelValues(e.cfg.Name).Set(float64(epoch))
		}
		e.expecting(now, v.version, e.timing.LeaseDuration/2)
	case release:
		if e.state == StateReleasing {
			e.released(now, "", try)
		}
	case certify:
		e.logger.Info("Proved the death of a short-lived holder, leaving the lease to others", "holder", v.holder)
		e.record("%s released the lease of %s, whose process is dead", e.me, v.holder)
		e.notBefore = now.Mono + e.timing.RetryPeriod
	}
}

func (e *engine) noteReclaim() {
	if err := e.cfg.Identity.reclaimed(e.cfg.Clock.Read().wallTime()); err != nil {
		e.logger.Info("The reclaim could not be noted in the identity file", "err", err)
	}
}

// worked notes that the API server has answered.
func (e *engine) worked(s sighting) {
	e.contact, e.answered = s.at, true
	op := map[source]string{fromWatch: "watch", fromBookmark: "watch", fromList: "watch", fromGet: "get", fromWrite: "write"}[s.source]
	e.complain.worked(e.logger, op)
}

// failed notes that a request did not work.
func (e *engine) failed(op string, err error) {
	e.complain.failed(e.logger, e.cfg.Clock.Read(), op, err)
}

// record records an event on the Lease.
func (e *engine) record(format string, args ...any) {
	if e.cfg.Events == nil || e.view.object == nil {
		return
	}
	about := &coordinationv1.Lease{ObjectMeta: e.view.object.ObjectMeta}
	about.Kind, about.APIVersion = "Lease", coordinationv1.SchemeGroupVersion.String()
	e.mail.post(func() { e.cfg.Events.Eventf(about, corev1.EventTypeNormal, "LeaderElection", format, args...) })
}

// publish makes the state visible to Status.
func (e *engine) publish() {
	s := &snapshot{known: e.view.known, renewed: e.view.since, lastContact: e.contact}
	s.State = e.state
	s.Holder, s.Transitions = e.view.record.HolderIdentity, max(e.view.transitions, 0)
	if s.Holder != "" {
		s.HolderEpoch, s.HolderSince = epochOf(e.view.object), e.view.record.AcquireTime.Time
	}
	s.Contacted = e.answered
	if text, at := e.complain.newest(); text != "" {
		s.LastError, s.LastErrorAt = text, ago(e.cfg.Clock.Read(), at)
	}
	switch e.state {
	case StateLeading, StateDraining, StateReleasing, StateLost:
		s.term, s.Started = e.tenure.term, e.tenure.started
	}
	e.snapshot.Store(s)
	e.cfg.Share.note(e.Elector, seat{
		name: e.cfg.Namespace + "/" + e.cfg.LeaseName, known: e.view.known,
		holder: s.Holder, leading: e.state == StateLeading,
	})
}
