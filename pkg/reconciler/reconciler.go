// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package reconciler

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
)

// Defaults of Config.
const (
	DefaultStuckAfter = 5 * time.Minute
	DefaultGrace      = 5 * time.Second
)

// Result says what is to follow a reconcile that did not fail.
type Result struct {
	// RequeueAfter has the key reconciled again after that time, or before if it is
	// added before; 0 or less does not. With an error it is ignored.
	RequeueAfter time.Duration
}

// Config says what a Reconciler does. Name, Reconcile and at least one of Watches are
// required.
type Config[K comparable] struct {
	// Name names the queue in metrics; it should be the controller's.
	Name string
	// Reconcile brings what the key stands for into its desired state. It is called
	// for a key that has gone, too. The logger in ctx has the key. ctx ends after
	// Timeout, and after Grace once the controller is told to stop.
	Reconcile func(ctx context.Context, key K) (Result, error)
	// Watches say where keys come from.
	Watches []Watch[K]
	// Workers is how many keys are reconciled at the same time. Default: 1.
	Workers int
	// Timeout bounds one reconcile, by the system's clock. Default: none.
	Timeout time.Duration
	// Grace is how long the reconciles that run may go on when the controller is told
	// to stop, before their context ends. When the lease is lost it ends at once.
	// Keep it below the manager's --drain-timeout. Default: DefaultGrace.
	Grace time.Duration
	// StuckAfter is how long a worker may be busy with one key before CheckHealth
	// fails. Default: DefaultStuckAfter, or twice the Timeout if that is longer.
	StuckAfter time.Duration
	// RateLimiter says how long to wait after a failure. Default: 5 ms, doubled with
	// each further failure of the key up to 1,000 s.
	RateLimiter workqueue.TypedRateLimiter[K]
	// Metrics makes the queue's metrics. If it is an Observer, too, it is told of every
	// reconcile. Default: client-go's own provider.
	Metrics workqueue.MetricsProvider
	// Tracer makes a span for each reconcile. Default: none.
	Tracer trace.TracerProvider
	// Clock times the queue, Grace and CheckHealth. Default: the system's.
	Clock clock.WithTicker
}

// Outcome is how a reconcile ended.
type Outcome string

// The outcomes of a reconcile.
const (
	Succeeded Outcome = "success"
	Requeued  Outcome = "requeue"   // succeeded, and asked for another
	Failed    Outcome = "error"     // will be tried again
	Hopeless  Outcome = "terminal"  // failed with Terminal or Fatal
	Panicked  Outcome = "panic"     // will be tried again
	Cancelled Outcome = "cancelled" // the run has ended meanwhile
)

// Outcomes returns every outcome.
func Outcomes() []Outcome {
	return []Outcome{Succeeded, Requeued, Failed, Hopeless, Panicked, Cancelled}
}

// Observer is told of every reconcile of the reconciler called name, by its workers.
type Observer interface {
	Reconciled(name string, outcome Outcome, took time.Duration)
}

// Reconciler is a control loop. Its methods are safe for concurrent use; Run may be
// called once.
type Reconciler[K comparable] struct {
	config  Config[K]
	order   *priority[K]
	tracer  trace.Tracer // nil: no spans
	watch   Observer     // nil: nobody is told
	workers []worker[K]

	ran   atomic.Bool
	fault chan error // what ends the run early; has room for one

	mu sync.Mutex
	// told has the keys of which a failure was logged as an error since they last
	// succeeded.
	told map[K]bool

	// Invariant: made by Run, before anything can add to it.
	queue   workqueue.TypedRateLimitingInterface[K]
	backlog backlog[K] // what the queue has no room for yet
}

// New checks the configuration; the error joins every mistake. It starts nothing, so
// that a Reconciler that is never run leaves nothing behind.
func New[K comparable](config Config[K]) (*Reconciler[K], error) {
	if err := config.validate(); err != nil {
		return nil, err
	}
	config.complete()
	r := &Reconciler[K]{config: config, order: newPriority[K](), workers: make([]worker[K], config.Workers), fault: make(chan error, 1), told: map[K]bool{}}
	r.watch, _ = config.Metrics.(Observer)
	if config.Tracer != nil {
		r.tracer = config.Tracer.Tracer(tracerName)
	}
	return r, nil
}

func (c *Config[K]) validate() error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf("reconciler: "+format, args...)) }
	if c.Name == "" {
		wrong("Config.Name is required")
	}
	if c.Reconcile == nil {
		wrong("Config.Reconcile is required")
	}
	if len(c.Watches) == 0 {
		wrong("Config.Watches is empty, so nothing would ever be reconciled")
	}
	for i, watch := range c.Watches {
		if watch.attach == nil {
			wrong("Config.Watches[%d] is empty; make it with Self, Owner, Each or Channel, of an informer or a channel that is not nil", i)
		}
	}
	if c.Workers < 0 {
		wrong("Config.Workers is %d; want a number from 1, or 0 for 1", c.Workers)
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{{"Timeout", c.Timeout}, {"Grace", c.Grace}, {"StuckAfter", c.StuckAfter}} {
		if d.value < 0 {
			wrong("Config.%s is %v; it must not be negative", d.name, d.value)
		}
	}
	return errors.Join(errs...)
}

func (c *Config[K]) complete() {
	c.Workers = max(c.Workers, 1)
	if c.Grace == 0 {
		c.Grace = DefaultGrace
	}
	if c.StuckAfter == 0 {
		c.StuckAfter = max(DefaultStuckAfter, 2*c.Timeout)
	}
	if c.Clock == nil {
		c.Clock = clock.RealClock{}
	}
	if c.RateLimiter == nil {
		c.RateLimiter = workqueue.NewTypedItemExponentialFailureRateLimiter[K](5*time.Millisecond, 1000*time.Second)
	}
}

// newQueue makes the queue. Call end when nothing of it is in progress any more.
func (r *Reconciler[K]) newQueue() (queue workqueue.TypedRateLimitingInterface[K], end func()) {
	c, end := r.config, func() {}
	if c.Metrics != nil {
		metrics := &progress{MetricsProvider: c.Metrics}
		c.Metrics, end = metrics, metrics.end
		r.backlog.count = metrics.count
	}
	inner := workqueue.NewTypedWithConfig(workqueue.TypedQueueConfig[K]{Name: c.Name, MetricsProvider: c.Metrics, Clock: gaugeClock{c.Clock}, Queue: r.order})
	delaying := workqueue.NewTypedDelayingQueueWithConfig(workqueue.TypedDelayingQueueConfig[K]{Name: c.Name, MetricsProvider: c.Metrics, Clock: c.Clock, Queue: inner})
	return workqueue.NewTypedRateLimitingQueueWithConfig(c.RateLimiter, workqueue.TypedRateLimitingQueueConfig[K]{DelayingQueue: delaying}), end
}

// add puts a key into the queue; one that can wait behind those that cannot, by way of
// the backlog unless it is in the queue already.
func (r *Reconciler[K]) add(key K, canWait bool) {
	if canWait && !r.order.knows(key) {
		r.backlog.add(key)
		r.feed()
		return
	}
	r.backlog.remove(key)
	r.order.mark(key, canWait)
	r.queue.Add(key)
}

// fail ends the run with an error.
func (r *Reconciler[K]) fail(err error) {
	select {
	case r.fault <- fmt.Errorf("reconciler %s: %w", r.config.Name, err):
	default: // One is enough.
	}
}

// Run adds the event handlers and reconciles until ctx ends. It returns when every
// worker has returned, with the handlers removed. It fails if a handler cannot be added,
// an informer has objects of another type than its watch says, or a reconcile fails with
// Fatal.
func (r *Reconciler[K]) Run(ctx context.Context) error {
	if r.ran.Swap(true) {
		return fmt.Errorf("reconciler %s: Run was called before; one Reconciler serves one run, make another", r.config.Name)
	}
	queue, end := r.newQueue()
	r.queue = queue
	defer end()
	defer queue.ShutDown()
	detach, err := r.attach()
	if err != nil {
		return errors.Join(err, detach())
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	work, cut := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cut(nil)
	var all sync.WaitGroup
	for _, watch := range r.config.Watches {
		if watch.pump != nil {
			all.Go(func() { watch.pump(ctx, r) })
		}
	}
	for i := range r.workers {
		all.Go(func() { r.work(ctx, work, &r.workers[i]) })
	}
	select {
	case <-ctx.Done():
	case err = <-r.fault:
		stop(err)
	}
	r.queue.ShutDown()
	// Before the wait: what is added to the queue from now on would be kept by no one.
	err = errors.Join(err, detach())
	r.drain(ctx, cut, &all)
	return err
}

// attach adds the event handlers of all watches. detach removes those that were added,
// and is never nil.
func (r *Reconciler[K]) attach() (detach func() error, err error) {
	var removes []func() error
	detach = func() error {
		var errs []error
		for _, remove := range removes {
			errs = append(errs, remove())
		}
		return errors.Join(errs...)
	}
	for _, watch := range r.config.Watches {
		remove, err := watch.attach(r)
		if err != nil {
			return detach, fmt.Errorf("reconciler %s: %w", r.config.Name, err)
		}
		removes = append(removes, remove)
	}
	return detach, nil
}

// drain waits for the workers, and ends the context of their reconciles in time.
func (r *Reconciler[K]) drain(ctx context.Context, cut context.CancelCauseFunc, all *sync.WaitGroup) {
	over := make(chan struct{})
	go func() {
		all.Wait()
		close(over)
	}()
	if !isNotLeader(context.Cause(ctx)) { // Another may lead already.
		grace := r.config.Clock.NewTimer(r.config.Grace)
		defer grace.Stop()
		select {
		case <-over:
			return
		case <-grace.C():
		}
	}
	cut(context.Cause(ctx))
	<-over
}

// work takes keys until the queue is shut down. What it still holds then is left to the
// next run.
func (r *Reconciler[K]) work(ctx, work context.Context, w *worker[K]) {
	for {
		key, shutdown := r.queue.Get()
		if shutdown {
			return
		}
		r.feed()
		r.take(ctx, work, w, key)
	}
}

func (r *Reconciler[K]) take(ctx, work context.Context, w *worker[K], key K) {
	defer r.queue.Done(key)
	if ctx.Err() == nil {
		r.process(work, w, key)
	}
}

// tracerName names this package to whoever collects spans.
const tracerName = "github.com/incumbent-io/incumbent/pkg/reconciler"

// process reconciles one key, and tells of it.
func (r *Reconciler[K]) process(ctx context.Context, w *worker[K], key K) {
	began := r.config.Clock.Now()
	w.begin(key, began)
	defer w.end()
	logger := klog.FromContext(ctx).WithValues("key", key)
	inside, span := r.trace(klog.NewContext(ctx, logger), key)
	result, err := r.reconcile(inside, key)
	outcome := r.settle(ctx, logger, key, result, err)
	span.done(outcome, err)
	if r.watch != nil {
		r.watch.Reconciled(r.config.Name, outcome, r.config.Clock.Since(began))
	}
}

// settle decides what follows a reconcile.
func (r *Reconciler[K]) settle(ctx context.Context, logger klog.Logger, key K, result Result, err error) Outcome {
	if err == nil {
		r.forget(key)
		if result.RequeueAfter <= 0 {
			return Succeeded
		}
		r.queue.AddAfter(key, result.RequeueAfter)
		return Requeued
	}
	outcome := r.explain(ctx, logger, key, err)
	if outcome == Hopeless {
		r.forget(key)
	} else {
		r.queue.AddRateLimited(key) // Does nothing once the run is over.
	}
	return outcome
}

// explain logs an error if somebody should know, and says what it is. A fatal one ends
// the run, which returns it.
func (r *Reconciler[K]) explain(ctx context.Context, logger klog.Logger, key K, err error) Outcome {
	var panicked *panicError
	var terminal *terminalError
	var fatal *fatalError
	switch {
	case errors.As(err, &panicked):
		logger.Error(err, "Reconcile panicked, will retry", "stack", panicked.stack)
		return Panicked
	case isNotLeader(err), ctx.Err() != nil:
		return Cancelled // this run is over; the next one reconciles all
	case errors.As(err, &fatal):
		r.fail(err)
		return Hopeless
	case errors.As(err, &terminal):
		logger.Error(terminal.error, "Reconcile failed for good")
		return Hopeless
	case apierrors.IsConflict(err):
		logger.V(3).Info("Object has changed meanwhile, will retry", "err", err)
	case r.tell(key):
		logger.Error(err, "Reconcile failed, will retry at growing intervals")
	default:
		logger.V(2).Info("Reconcile still fails", "err", err, "failures", r.queue.NumRequeues(key)+1)
	}
	return Failed
}

// tell says whether a failure of the key is the first to be told.
func (r *Reconciler[K]) tell(key K) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	again := r.told[key]
	r.told[key] = true
	return !again
}

// forget ends a series of failures.
func (r *Reconciler[K]) forget(key K) {
	r.queue.Forget(key)
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.told, key)
}

func (r *Reconciler[K]) reconcile(ctx context.Context, key K) (result Result, err error) {
	returned := false
	defer func() {
		if reason := recover(); reason != nil {
			err = &panicError{reason: reason, stack: string(debug.Stack())}
		} else if !returned { // The worker ends, and nobody would notice.
			r.fail(fmt.Errorf("the reconcile of %v called runtime.Goexit", key))
		}
	}()
	if r.config.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, r.config.Timeout)
		defer cancel()
	}
	result, err = r.config.Reconcile(ctx, key)
	returned = true
	return result, err
}

// span is that of one reconcile; the zero value is none.
type span struct{ trace.Span }

func (r *Reconciler[K]) trace(ctx context.Context, key K) (context.Context, span) {
	if r.tracer == nil {
		return ctx, span{}
	}
	ctx, s := r.tracer.Start(ctx, "reconcile", trace.WithNewRoot(), trace.WithAttributes(attribute.String("controller", r.config.Name)))
	if s.IsRecording() {
		s.SetAttributes(attribute.String("key", fmt.Sprint(key)))
	}
	return ctx, span{s}
}

func (s span) done(outcome Outcome, err error) {
	if s.Span == nil {
		return
	}
	s.SetAttributes(attribute.String("result", string(outcome)))
	if err != nil {
		s.SetStatus(codes.Error, err.Error())
	}
	s.End()
}

// worker is what CheckHealth knows of a worker.
type worker[K comparable] struct {
	mu    sync.Mutex
	busy  bool
	key   K
	since time.Time
}

func (w *worker[K]) begin(key K, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.busy, w.key, w.since = true, key, now
}

func (w *worker[K]) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.busy = false
}

// CheckHealth fails if a worker has been busy with one key for longer than StuckAfter.
// The error names the keys.
func (r *Reconciler[K]) CheckHealth(context.Context) error {
	now := r.config.Clock.Now()
	var errs []error
	for i := range r.workers {
		w := &r.workers[i]
		w.mu.Lock()
		if busy := now.Sub(w.since); w.busy && busy > r.config.StuckAfter {
			errs = append(errs, fmt.Errorf("a worker of %d has been busy with %v for %v", len(r.workers), w.key, busy.Round(time.Second)))
		}
		w.mu.Unlock()
	}
	return errors.Join(errs...)
}

// Terminal marks an error that trying again cannot cure.
func Terminal(err error) error {
	if err == nil {
		return nil
	}
	return &terminalError{err}
}

// Fatal marks an error that ends the run: Run returns it, once the reconciles that run
// have ended. The host then treats the controller as failed.
func Fatal(err error) error {
	if err == nil {
		return nil
	}
	return &fatalError{err}
}

type fatalError struct{ error }

func (e *fatalError) Unwrap() error { return e.error }

type terminalError struct{ error }

func (e *terminalError) Unwrap() error { return e.error }

// panicError is a panic of Reconcile.
type panicError struct {
	reason any
	stack  string
}

func (e *panicError) Error() string { return fmt.Sprintf("panic: %v", e.reason) }

// isNotLeader recognises the refusal of a fence by its method.
func isNotLeader(err error) bool {
	var refusal interface{ NotLeader() bool }
	return errors.As(err, &refusal) && refusal.NotLeader()
}
