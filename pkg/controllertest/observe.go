// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package controllertest

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/tools/reference"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
)

// Event is a Kubernetes Event that the controller has recorded.
type Event struct {
	// Type is Normal or Warning.
	Type, Reason, Action, Note string
	// Regarding is the object that it is about.
	Regarding corev1.ObjectReference
}

// String returns the event in one line, such as
// "Warning Conflict ConfigMap team-a/limits: it is not mine".
func (e Event) String() string {
	name := strings.TrimPrefix(e.Regarding.Namespace+"/"+e.Regarding.Name, "/")
	return fmt.Sprintf("%s %s %s %s: %s", e.Type, e.Reason, e.Regarding.Kind, name, e.Note)
}

// maxNote is how long the API server lets the note of an Event be.
const maxNote = 1024

// recorder keeps Events.
type recorder struct {
	scheme *runtime.Scheme
	book   *book
}

var _ events.EventRecorderLogger = recorder{}

// book is where all recorders of a harness write.
type book struct {
	t testing.TB

	mu     sync.Mutex
	events []Event
}

// Eventf implements events.EventRecorder. What the API server would refuse fails the
// test.
func (r recorder) Eventf(regarding, _ runtime.Object, eventType, reason, action, note string, args ...any) {
	ref, err := reference.GetReference(r.scheme, regarding)
	if err != nil {
		r.book.t.Errorf("Event %s: no reference to its object: %v", reason, err)
		return
	}
	e := Event{Type: eventType, Reason: reason, Action: action, Note: fmt.Sprintf(note, args...), Regarding: *ref}
	switch {
	case e.Type != corev1.EventTypeNormal && e.Type != corev1.EventTypeWarning:
		r.book.t.Errorf("Event %s: its type is %q, want %s or %s", e, e.Type, corev1.EventTypeNormal, corev1.EventTypeWarning)
	case e.Reason == "" || e.Action == "":
		r.book.t.Errorf("Event %s: reason %q and action %q are both required", e, e.Reason, e.Action)
	case len(e.Note) > maxNote:
		r.book.t.Errorf("Event %s: its note has %d bytes, the API server accepts %d", e, len(e.Note), maxNote)
	}
	r.book.mu.Lock()
	defer r.book.mu.Unlock()
	r.book.events = append(r.book.events, e)
}

// WithLogger implements events.EventRecorderLogger.
func (r recorder) WithLogger(klog.Logger) events.EventRecorderLogger { return r }

func (b *book) take() []Event {
	b.mu.Lock()
	defer b.mu.Unlock()
	taken := b.events
	b.events = nil
	return taken
}

// queues counts what the workqueues of the controller hold and process, as their
// metrics tell.
type queues struct {
	mu    sync.Mutex
	held  map[string]int // by name
	added uint64
}

var _ workqueue.MetricsProvider = (*queues)(nil)

// NewAddsMetric implements workqueue.MetricsProvider.
func (q *queues) NewAddsMetric(name string) workqueue.CounterMetric {
	return counter(func() { q.count(name, 1) })
}

// NewWorkDurationMetric implements workqueue.MetricsProvider.
func (q *queues) NewWorkDurationMetric(name string) workqueue.HistogramMetric {
	return counter(func() { q.count(name, -1) })
}

func (q *queues) count(name string, n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.held[name] += n
	if n > 0 {
		q.added++
	}
}

// forget is called when a run has ended: nobody processes what its queues still hold.
func (q *queues) forget() {
	q.mu.Lock()
	defer q.mu.Unlock()
	clear(q.held)
}

// state tells which queues are not empty, and a number that grows with each addition.
func (q *queues) state() (busy []string, added uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for name, n := range q.held {
		if n > 0 {
			busy = append(busy, fmt.Sprintf("%s holds %d", name, n))
		}
	}
	slices.Sort(busy)
	return busy, q.added
}

// NewDepthMetric implements workqueue.MetricsProvider.
func (*queues) NewDepthMetric(string) workqueue.GaugeMetric { return counter(nil) }

// NewLatencyMetric implements workqueue.MetricsProvider.
func (*queues) NewLatencyMetric(string) workqueue.HistogramMetric { return counter(nil) }

// NewUnfinishedWorkSecondsMetric implements workqueue.MetricsProvider.
func (*queues) NewUnfinishedWorkSecondsMetric(string) workqueue.SettableGaugeMetric {
	return counter(nil)
}

// NewLongestRunningProcessorSecondsMetric implements workqueue.MetricsProvider.
func (*queues) NewLongestRunningProcessorSecondsMetric(string) workqueue.SettableGaugeMetric {
	return counter(nil)
}

// NewRetriesMetric implements workqueue.MetricsProvider.
func (*queues) NewRetriesMetric(string) workqueue.CounterMetric { return counter(nil) }

// counter is every kind of metric at once. nil: nobody counts.
type counter func()

func (c counter) call() {
	if c != nil {
		c()
	}
}

// Inc implements workqueue.CounterMetric.
func (c counter) Inc() { c.call() }

// Dec implements workqueue.GaugeMetric.
func (c counter) Dec() { c.call() }

// Set implements workqueue.SettableGaugeMetric.
func (c counter) Set(float64) { c.call() }

// Observe implements workqueue.HistogramMetric.
func (c counter) Observe(float64) { c.call() }

// journal passes what is logged on to the test, and fails it for an error.
type journal struct {
	t       testing.TB
	allowed []string
	values  string
	name    string
}

var _ logr.LogSink = journal{}

// verbosity is what a test shows of the log.
const verbosity = 4

// Init implements logr.LogSink.
func (journal) Init(logr.RuntimeInfo) {}

// Enabled implements logr.LogSink.
func (journal) Enabled(level int) bool { return level <= verbosity }

// Info implements logr.LogSink.
func (j journal) Info(_ int, message string, values ...any) {
	j.t.Log(j.line(message, values))
}

// Error implements logr.LogSink.
func (j journal) Error(err error, message string, values ...any) {
	line := j.line(message, append([]any{"err", err}, values...))
	for _, text := range j.allowed {
		if strings.Contains(line, text) {
			j.t.Log("allowed error: " + line)
			return
		}
	}
	j.t.Errorf("logged an error: %s", line)
}

// WithValues implements logr.LogSink.
func (j journal) WithValues(values ...any) logr.LogSink {
	j.values += pairs(values)
	return j
}

// WithName implements logr.LogSink.
func (j journal) WithName(name string) logr.LogSink {
	j.name = strings.TrimPrefix(j.name+"."+name, ".")
	return j
}

func (j journal) line(message string, values []any) string {
	if j.name != "" {
		message = j.name + ": " + message
	}
	return message + pairs(values) + j.values
}

func pairs(values []any) string {
	var text strings.Builder
	for i := 0; i+1 < len(values); i += 2 {
		fmt.Fprintf(&text, " %v=%+v", values[i], values[i+1])
	}
	return text.String()
}
