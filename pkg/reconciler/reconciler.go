// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package reconciler

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
)

// DefaultStuckAfter is how long a worker may be busy with one key.
const DefaultStuckAfter = 5 * time.Minute

// Result says what is to follow a reconcile that did not fail.
type Result struct {
	// RequeueAfter has the key reconciled again after that time; 0 does not.
	RequeueAfter time.Duration
}

// Config says what a Reconciler does. Name, Reconcile and at least one of Watches are
// required.
type Config[K comparable] struct {
	// Name names the queue in metrics; it should be the controller's.
	Name string
	// Reconcile brings what the key stands for into its desired state. ctx ends when
	// the controller is told to stop, and after Timeout.
	Reconcile func(ctx context.Context, key K) (Result, error)
	// Watches say where keys come from.
	Watches []Watch[K]
	// Workers is how many keys are reconciled at the same time. Default: 1.
	Workers int
	// Timeout bounds one reconcile. Default: none.
	Timeout time.Duration
	// StuckAfter is when a busy worker makes CheckHealth fail. Default:
	// DefaultStuckAfter.
	StuckAfter time.Duration
	// RateLimiter says how long to wait after a failure. Default: 5 ms, doubled with
	// each further failure of the key up to 1,000 s.
	RateLimiter workqueue.TypedRateLimiter[K]
	// Metrics makes the queue's metrics. If it is an Observer, too, it is told of every
	// reconcile. Default: client-go's own provider.
	Metrics workqueue.MetricsProvider
	// Tracer makes a span for each reconcile. Default: none.
	Tracer trace.TracerProvider
	// Clock times the queue and CheckHealth. Default: the system's.
	Clock clock.WithTicker
}

// Outcome is how a reconcile ended.
type Outcome string

// The outcomes of a reconcile.
const (
	Succeeded Outcome = "success"
	Requeued  Outcome = "requeue"   // succeeded, and asked for another
	Failed    Outcome = "error"     // will be tried again
	Hopeless  Outcome = "terminal"  // failed with Terminal
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
	config Config[K]
	queue  workqueue.TypedRateLimitingInterface[K]
	order  *priority[K]
	tracer trace.Tracer
	watch  Observer       // nil: nobody is told
	remove []func() error // of the handlers

	mu   sync.Mutex
	busy map[K]time.Time // since when
	done time.Time       // when a reconcile last ended
}

// New checks the configuration and adds the event handlers of its watches. The error
// joins every mistake.
func New[K comparable](config Config[K]) (*Reconciler[K], error) {
	var errs []error
	if config.Name == "" {
		errs = append(errs, errors.New("reconciler: Config.Name is required"))
	}
	if config.Reconcile == nil {
		errs = append(errs, errors.New("reconciler: Config.Reconcile is required"))
	}
	if len(config.Watches) == 0 {
		errs = append(errs, errors.New("reconciler: Config.Watches is empty, so nothing would ever be reconciled"))
	}
	if config.Workers < 0 || config.Timeout < 0 || config.StuckAfter < 0 {
		errs = append(errs, fmt.Errorf("reconciler: Workers %d, Timeout %v and StuckAfter %v must not be negative", config.Workers, config.Timeout, config.StuckAfter))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	config.Workers = max(config.Workers, 1)
	if config.StuckAfter == 0 {
		config.StuckAfter = DefaultStuckAfter
	}
	if config.Tracer == nil {
		config.Tracer = noop.NewTracerProvider()
	}
	if config.Clock == nil {
		config.Clock = clock.RealClock{}
	}
	if config.RateLimiter == nil {
		config.RateLimiter = workqueue.NewTypedItemExponentialFailureRateLimiter[K](5*time.Millisecond, 1000*time.Second)
	}
	r := &Reconciler[K]{config: config, order: newPriority[K](), busy: map[K]time.Time{}, tracer: config.Tracer.Tracer(tracerName)}
	r.watch, _ = config.Metrics.(Observer)
	inner := workqueue.NewTypedWithConfig(workqueue.TypedQueueConfig[K]{Name: config.Name, MetricsProvider: config.Metrics, Clock: config.Clock, Queue: r.order})
	delaying := workqueue.NewTypedDelayingQueueWithConfig(workqueue.TypedDelayingQueueConfig[K]{Name: config.Name, MetricsProvider: config.Metrics, Clock: config.Clock, Queue: inner})
	r.queue = workqueue.NewTypedRateLimitingQueueWithConfig(config.RateLimiter, workqueue.TypedRateLimitingQueueConfig[K]{DelayingQueue: delaying})
	for _, watch := range config.Watches {
		remove, err := watch.attach(r)
		if err != nil {
			errs = append(errs, fmt.Errorf("reconciler %s: %w", config.Name, err))
			continue
		}
		r.remove = append(r.remove, remove)
	}
	if err := errors.Join(errs...); err != nil {
		r.queue.ShutDown()
		return nil, errors.Join(err, r.detach())
	}
	return r, nil
}

// add puts a key into the queue; one that can wait behind all that cannot.
func (r *Reconciler[K]) add(key K, canWait bool) {
	r.order.mark(key, canWait)
	r.queue.Add(key)
}

// detach removes the event handlers.
func (r *Reconciler[K]) detach() error {
	var errs []error
	for _, remove := range r.remove {
		errs = append(errs, remove())
	}
	return errors.Join(errs...)
}

// Run reconciles until ctx ends, and returns when every worker has returned.
func (r *Reconciler[K]) Run(ctx context.Context) error {
	var all sync.WaitGroup
	for _, watch := range r.config.Watches {
		if watch.pump != nil {
			all.Go(func() { watch.pump(ctx, r) })
		}
	}
	for range r.config.Workers {
		all.Go(func() { r.work(ctx) })
	}
	<-ctx.Done()
	r.queue.ShutDown()
	all.Wait()
	return r.detach()
}

func (r *Reconciler[K]) work(ctx context.Context) {
	for {
		key, shutdown := r.queue.Get()
		if shutdown {
			return
		}
		if ctx.Err() == nil {
			r.process(ctx, key)
		}
		r.queue.Done(key)
	}
}

// tracerName names this package to whoever collects spans.
const tracerName = "github.com/incumbent-io/incumbent/pkg/reconciler"

// process reconciles one key, and tells of it.
func (r *Reconciler[K]) process(ctx context.Context, key K) {
	began := r.config.Clock.Now()
	inside, span := r.tracer.Start(ctx, "reconcile", trace.WithNewRoot(), trace.WithAttributes(attribute.String("controller", r.config.Name)))
	if span.IsRecording() {
		span.SetAttributes(attribute.String("key", fmt.Sprint(key)))
	}
	r.begin(key)
	result, err := r.reconcile(inside, key)
	r.end(key)
	outcome := r.settle(ctx, key, result, err)
	span.SetAttributes(attribute.String("result", string(outcome)))
	if err != nil {
		span.SetStatus(codes.Error, err.Error())
	}
	span.End()
	if r.watch != nil {
		r.watch.Reconciled(r.config.Name, outcome, r.config.Clock.Since(began))
	}
}

// settle decides what follows a reconcile.
func (r *Reconciler[K]) settle(ctx context.Context, key K, result Result, err error) Outcome {
	var panicked *panicError
	var terminal *terminalError
	switch {
	case err == nil && result.RequeueAfter > 0:
		r.queue.Forget(key)
		r.queue.AddAfter(key, result.RequeueAfter)
		return Requeued
	case err == nil:
		r.queue.Forget(key)
		return Succeeded
	case ctx.Err() != nil, isNotLeader(err):
		r.queue.Forget(key) // this run is over; the next one reconciles all
		return Cancelled
	case errors.As(err, &terminal):
		r.queue.Forget(key)
		klog.FromContext(ctx).Error(terminal.error, "Reconcile failed for good", "key", key)
		return Hopeless
	case errors.As(err, &panicked):
		klog.FromContext(ctx).Error(err, "Reconcile panicked, will retry", "key", key, "stack", panicked.stack)
		r.queue.AddRateLimited(key)
		return Panicked
	}
	klog.FromContext(ctx).Error(err, "Reconcile failed, will retry", "key", key)
	r.queue.AddRateLimited(key)
	return Failed
}

func (r *Reconciler[K]) reconcile(ctx context.Context, key K) (result Result, err error) {
	defer func() {
		if reason := recover(); reason != nil {
			err = &panicError{reason: reason, stack: string(debug.Stack())}
		}
	}()
	if r.config.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, r.config.Timeout)
		defer cancel()
	}
	return r.config.Reconcile(ctx, key)
}

func (r *Reconciler[K]) begin(key K) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.busy[key] = r.config.Clock.Now()
}

func (r *Reconciler[K]) end(key K) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.busy, key)
	r.done = r.config.Clock.Now()
}

// CheckHealth fails if a worker is stuck: busy with one key for longer than StuckAfter
// while no other reconcile has ended. The error names the keys.
func (r *Reconciler[K]) CheckHealth(context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.config.Clock.Now()
	if now.Sub(r.done) <= r.config.StuckAfter {
		return nil
	}
	var errs []error
	for key, since := range r.busy {
		if busy := now.Sub(since); busy > r.config.StuckAfter {
			errs = append(errs, fmt.Errorf("a worker has been busy with %v for %v, and nothing else was completed", key, busy.Round(time.Second)))
		}
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
