// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package objectttl

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	kubernetesfake "k8s.io/client-go/kubernetes/fake"
	metadatafake "k8s.io/client-go/metadata/fake"
	kubetesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/events"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/ktesting"
	testingclock "k8s.io/utils/clock/testing"

	"github.com/incumbent-io/incumbent/pkg/clients"
	"github.com/incumbent-io/incumbent/pkg/controllers"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	configMaps = schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}
	widgets    = schema.GroupVersionResource{Group: "example.com", Version: "v1", Resource: "widgets"}
	epoch      = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
)

// journal is what the controller did, in order.
type journal struct {
	mu      sync.Mutex
	entries []string
}

func (j *journal) add(format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.entries = append(j.entries, fmt.Sprintf(format, args...))
}

// take returns the entries since the last call.
func (j *journal) take() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	entries := j.entries
	j.entries = nil
	return entries
}

// Eventf makes a journal an events.EventRecorder.
func (j *journal) Eventf(regarding, _ runtime.Object, eventType, reason, _, note string, args ...any) {
	ref, ok := regarding.(*corev1.ObjectReference)
	if !ok {
		j.add("event about a %T, which carries no kind", regarding)
		return
	}
	j.add("event %s %s %s/%s %s/%s uid=%s rv=%s: %s", eventType, reason, ref.APIVersion, ref.Kind, ref.Namespace, ref.Name, ref.UID, ref.ResourceVersion, fmt.Sprintf(note, args...))
}

var _ events.EventRecorder = (*journal)(nil)

// world is a controller in front of a fake API server, inside a synctest bubble.
type world struct {
	t       *testing.T
	clock   *testingclock.FakeClock
	journal *journal
	api     *metadatafake.FakeMetadataClient
	kube    *kubernetesfake.Clientset
	version int
	logs    ktesting.Underlier

	// refuse is the answer to the next DELETEs instead of the deletion.
	refuse func() error
	absent map[schema.GroupVersionResource]bool // what the API server does not serve
}

func (w *world) served(gvr schema.GroupVersionResource) bool { return !w.absent[gvr] }

func newWorld(t *testing.T) *world {
	w := &world{
		t:       t,
		clock:   testingclock.NewFakeClock(epoch),
		journal: &journal{},
		api:     metadatafake.NewSimpleMetadataClient(metadatafake.NewTestScheme()),
		kube:    kubernetesfake.NewClientset(),
	}
	w.kube.Resources = []*metav1.APIResourceList{
		{GroupVersion: "v1", APIResources: []metav1.APIResource{{Name: "configmaps", Kind: "ConfigMap", Namespaced: true}}},
		{GroupVersion: "example.com/v1", APIResources: []metav1.APIResource{{Name: "widgets/status", Kind: "Scale"}, {Name: "widgets", Kind: "Widget"}}},
	}
	w.api.PrependReactor("delete", "*", w.onDelete)
	return w
}

// onDelete does what the API server does and the fake does not: preconditions.
func (w *world) onDelete(action kubetesting.Action) (bool, runtime.Object, error) {
	del := action.(kubetesting.DeleteActionImpl)
	who := fmt.Sprintf("%s %s/%s", del.Resource.Resource, del.Namespace, del.Name)
	if w.refuse != nil {
		err := w.refuse()
		w.journal.add("delete %s: %v", who, err)
		return true, nil, err
	}
	found, err := w.api.Tracker().Get(del.Resource, del.Namespace, del.Name)
	if err != nil {
		w.journal.add("delete %s: not found", who)
		return true, nil, err
	}
	object, p := found.(*metav1.PartialObjectMetadata), del.DeleteOptions.Preconditions
	if p == nil || p.UID == nil || p.ResourceVersion == nil {
		w.journal.add("delete %s without preconditions", who)
		return true, nil, nil
	}
	if *p.UID != object.UID || *p.ResourceVersion != object.ResourceVersion {
		w.journal.add("delete %s: conflict", who)
		return true, nil, apierrors.NewConflict(del.Resource.GroupResource(), del.Name, errors.New("precondition failed"))
	}
	w.journal.add("delete %s (%s)", who, *del.DeleteOptions.PropagationPolicy)
	if len(object.Finalizers) > 0 {
		dying := object.DeepCopy()
		dying.DeletionTimestamp = new(metav1.NewTime(w.clock.Now()))
		w.put(configMaps, dying)
		return true, nil, nil
	}
	return false, nil, nil
}

// object returns an object that was created at the clock's second.
func (w *world) object(namespace, name string, annotations map[string]string) *metav1.PartialObjectMetadata {
	return &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
		Namespace: namespace, Name: name, UID: types.UID("uid-" + name), Annotations: annotations,
		CreationTimestamp: metav1.NewTime(w.clock.Now().Truncate(time.Second)),
	}}
}

// put creates or updates the object, with a new resourceVersion.
func (w *world) put(gvr schema.GroupVersionResource, object *metav1.PartialObjectMetadata) {
	w.t.Helper()
	w.version++
	object = object.DeepCopy()
	object.ResourceVersion = fmt.Sprint(w.version)
	err := w.api.Tracker().Create(gvr, object, object.Namespace)
	if apierrors.IsAlreadyExists(err) {
		err = w.api.Tracker().Update(gvr, object, object.Namespace)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) remove(gvr schema.GroupVersionResource, namespace, name string) {
	w.t.Helper()
	if err := w.api.Tracker().Delete(gvr, namespace, name); err != nil {
		w.t.Fatal(err)
	}
}

// pass lets the clock go on by d, after everything due has been done and before what
// becomes due has been.
func (w *world) pass(d time.Duration) {
	synctest.Wait()
	w.clock.Step(d)
	synctest.Wait()
}

// expect compares the journal since the last call.
func (w *world) expect(moment string, want ...string) {
	w.t.Helper()
	synctest.Wait()
	if diff := cmp.Diff(want, w.journal.take()); diff != "" {
		w.t.Errorf("%s: the journal differs (-want +got):\n%s", moment, diff)
	}
}

// logged returns how many log entries of that severity contain text.
func (w *world) logged(severity ktesting.LogType, text string) int {
	count := 0
	for _, entry := range w.logs.GetBuffer().Data() {
		if entry.Type == severity && (strings.Contains(entry.Message, text) || entry.Err != nil && strings.Contains(entry.Err.Error(), text)) {
			count++
		}
	}
	return count
}

// inWorld runs scenario in front of a running controller, or without one until the
// scenario calls w.start.
func inWorld(t *testing.T, scenario func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { scenario(newWorld(t)) })
}

// start runs the registered controller the way the manager does, until the returned
// function is called, which waits for its end.
func (w *world) start(resources ...string) (stop func()) {
	w.t.Helper()
	logger := ktesting.NewLogger(w.t, ktesting.NewConfig(ktesting.BufferLogs(true), ktesting.Verbosity(4)))
	w.logs = logger.GetSink().(ktesting.Underlier)
	ctx := klog.NewContext(context.Background(), logger)

	fakes := &clients.Fakes{Kubernetes: w.kube, Metadata: w.api}
	set := must(clients.NewSet(clients.SetConfig{Fakes: fakes}))
	pool := must(clients.NewPool(clients.PoolConfig{Name: w.t.Name(), Fakes: fakes}))

	configured := Descriptor().Configure()
	options := configured.Options.(*Options)
	options.Resources, options.Workers = resources, 1
	view := pool.View(configured.Name, nil)
	initCtx, discard := context.WithCancel(ctx)
	built := must(configured.Init(initCtx, &controllers.Context{
		Name: configured.Name, Clients: set, Informers: view, Clock: w.clock,
		Events: func(*runtime.Scheme) events.EventRecorder { return w.journal },
		Served: w.served,
	}))
	poolCtx, stopPool := context.WithCancel(ctx)
	poolEnd := goResult(func() error { return pool.Run(poolCtx) })
	w.check(view.WaitForSync(ctx))
	w.check(view.Attach())
	// Until the watch is open: a request that a scenario holds up holds the fake's
	// lock, too.
	synctest.Wait()
	runCtx, stopRun := context.WithCancel(ctx)
	runEnd := goResult(func() error { return built.Run(runCtx) })
	return func() {
		stopRun()
		w.check(<-runEnd)
		w.check(view.Detach(ctx))
		view.Release()
		discard()
		stopPool()
		w.check(<-poolEnd)
	}
}

func (w *world) check(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

// goResult runs f in a goroutine; the channel gives what it returned.
func goResult(f func() error) <-chan error {
	result := make(chan error, 1)
	go func() { result <- f() }()
	return result
}

func TestObjectVanishesBetweenItsTTLAndOneSecondMore(t *testing.T) {
	for _, fraction := range []time.Duration{0, time.Millisecond, 500 * time.Millisecond, 999 * time.Millisecond} {
		t.Run(fraction.String(), func(t *testing.T) {
			inWorld(t, func(w *world) {
				defer w.start("v1/configmaps")()
				w.pass(fraction)
				w.put(configMaps, w.object("ns", "a", map[string]string{AnnotationTTL: "10s"}))
				w.pass(10 * time.Second)
				if fraction > 0 {
					w.expect("at its age of 10 s")
				}
				w.pass(time.Second - fraction)
				w.expect("at the end of the 11th second after the second of its creation",
					"delete configmaps ns/a (Background)",
					"event Normal Expired v1/ConfigMap ns/a uid=uid-a rv=1: Deleted: expired at 2026-11-20T12:00:11Z by incumbent.io/ttl=10s")
			})
		})
	}
}

func TestObjectsThatExistAtTheStart(t *testing.T) {
	inWorld(t, func(w *world) {
		w.put(configMaps, w.object("ns", "kept", nil))
		w.put(configMaps, w.object("ns", "past", map[string]string{AnnotationExpiresAt: "2020-01-01T00:00:00Z"}))
		w.put(configMaps, w.object("ns", "future", map[string]string{AnnotationExpiresAt: "2026-11-20T12:00:30Z"}))
		defer w.start("v1/configmaps")()
		w.expect("at the start",
			"delete configmaps ns/past (Background)",
			"event Normal Expired v1/ConfigMap ns/past uid=uid-past rv=2: Deleted: expired at 2020-01-01T00:00:00Z by incumbent.io/expires-at=2020-01-01T00:00:00Z")
		w.pass(30*time.Second - 1)
		w.expect("a nanosecond before")
		w.pass(1)
		w.expect("on time",
			"delete configmaps ns/future (Background)",
			"event Normal Expired v1/ConfigMap ns/future uid=uid-future rv=3: Deleted: expired at 2026-11-20T12:00:30Z by incumbent.io/expires-at=2026-11-20T12:00:30Z")
	})
}

func TestChangedAnnotationMovesTheDeadline(t *testing.T) {
	inWorld(t, func(w *world) {
		defer w.start("v1/configmaps")()
		object := w.object("ns", "a", map[string]string{AnnotationTTL: "1m"})
		w.put(configMaps, object)
		w.pass(30 * time.Second)

		object.Annotations[AnnotationTTL] = "2m"
		w.put(configMaps, object)
		w.pass(31 * time.Second)
		w.expect("at the old deadline, which was put off")

		delete(object.Annotations, AnnotationTTL)
		w.put(configMaps, object)
		w.pass(time.Minute)
		w.expect("at the deadline that was taken away")

		object.Annotations[AnnotationTTL] = "2m2s"
		w.put(configMaps, object)
		w.pass(time.Second)
		w.expect("at 2m2s")
		object.Annotations[AnnotationTTL] = "2m1s"
		w.put(configMaps, object)
		w.expect("once the deadline was moved to the present",
			"delete configmaps ns/a (Background)",
			"event Normal Expired v1/ConfigMap ns/a uid=uid-a rv=5: Deleted: expired at 2026-11-20T12:02:02Z by incumbent.io/ttl=2m1s")
	})
}

func TestMalformedAnnotationIsReportedOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		defer w.start("v1/configmaps")()
		warning := func(rv int, text string) string {
			return fmt.Sprintf("event Warning InvalidTTL v1/ConfigMap ns/a uid=uid-a rv=%d: Left alone: %s", rv, text)
		}
		object := w.object("ns", "a", map[string]string{AnnotationTTL: "soon"})
		w.put(configMaps, object)
		w.expect("malformed", warning(1, `incumbent.io/ttl must be a positive duration such as "90s", "1h30m" or "7d", got "soon"`))

		object.Labels = map[string]string{"changed": "yes"}
		w.put(configMaps, object)
		w.pass(48 * time.Hour)
		w.expect("changed in something else, and two days later")

		object.Annotations[AnnotationTTL] = "-5s"
		w.put(configMaps, object)
		w.expect("another malformed value", warning(3, `incumbent.io/ttl must be positive, as in "90s", "1h30m" or "7d", got "-5s"`))

		object.Annotations[AnnotationExpiresAt] = "2020-01-01T00:00:00Z"
		w.put(configMaps, object)
		w.expect("a good annotation beside the malformed one")

		object.Annotations[AnnotationExpiresAt] = "never"
		w.put(configMaps, object)
		w.expect("both malformed", warning(5, `incumbent.io/ttl must be positive, as in "90s", "1h30m" or "7d", got "-5s"; incumbent.io/expires-at must be an instant in RFC 3339 such as "2027-01-31T18:00:00Z", got "never"`))

		object.UID = "uid-b"
		w.put(configMaps, object)
		if got := len(w.settled()); got != 1 {
			t.Errorf("%d entries about an object that replaced it, want 1 warning", got)
		}
		w.remove(configMaps, "ns", "a")
		w.expect("removed")
		w.put(configMaps, object)
		if got := len(w.settled()); got != 1 {
			t.Errorf("%d entries after it was removed and made anew, want 1 warning", got)
		}
	})
}

// settled returns the journal once nothing moves.
func (w *world) settled() []string {
	synctest.Wait()
	return w.journal.take()
}

func TestLongAnnotationFitsIntoAnEvent(t *testing.T) {
	inWorld(t, func(w *world) {
		defer w.start("v1/configmaps")()
		w.put(configMaps, w.object("ns", "a", map[string]string{AnnotationTTL: strings.Repeat("ü", 100_000)}))
		w.put(configMaps, w.object("ns", "b", map[string]string{AnnotationTTL: strings.Repeat("1ns", 100_000)}))
		w.pass(time.Hour)
		for _, entry := range w.settled() {
			if _, note, isEvent := strings.Cut(entry, ": "); isEvent && (len(note) > maxNote || !strings.HasSuffix(note, "...")) {
				t.Errorf("a note of %d bytes, want at most %d and a mark of the cut: %s", len(note), maxNote, note)
			}
		}
	})
}

func TestConflictIsJudgedAgainByTheNewerObject(t *testing.T) {
	inWorld(t, func(w *world) {
		defer w.start("v1/configmaps")()
		object := w.object("ns", "a", map[string]string{AnnotationExpiresAt: "2026-11-20T12:00:10Z"})
		w.put(configMaps, object)
		synctest.Wait()
		// The object is kept longer at the last moment: the cache does not know yet.
		gone := w.refuse
		w.refuse = func() error {
			w.refuse = gone
			return apierrors.NewConflict(configMaps.GroupResource(), "a", errors.New("changed"))
		}
		w.pass(10 * time.Second)
		w.expect("a conflict", `delete configmaps ns/a: Operation cannot be fulfilled on configmaps "a": changed`)
		object.Annotations[AnnotationExpiresAt] = "2026-11-20T13:00:00Z"
		w.put(configMaps, object)
		w.pass(time.Minute)
		w.expect("by the newer object")
		w.pass(time.Hour)
		if got := len(w.settled()); got != 2 {
			t.Errorf("%d entries at the new deadline, want the deletion and its event", got)
		}
		if got := w.logged(ktesting.LogError, ""); got != 0 {
			t.Errorf("%d errors logged, want none for a conflict", got)
		}
	})
}

func TestConflictWithoutNewsIsTriedAgain(t *testing.T) {
	inWorld(t, func(w *world) {
		defer w.start("v1/configmaps")()
		w.refuse = func() error {
			return apierrors.NewConflict(configMaps.GroupResource(), "a", errors.New("changed"))
		}
		w.put(configMaps, w.object("ns", "a", map[string]string{AnnotationExpiresAt: "2026-11-20T12:00:00Z"}))
		if got := len(w.settled()); got != 1 {
			t.Errorf("%d attempts, want 1", got)
		}
		w.refuse = nil
		w.pass(firstRetry)
		if got := len(w.settled()); got != 2 {
			t.Errorf("%d entries after %v, want the deletion and its event", got, firstRetry)
		}
	})
}

func TestObjectsThatAreAlreadyGoingAreLeftAlone(t *testing.T) {
	inWorld(t, func(w *world) {
		defer w.start("v1/configmaps")()
		dying := w.object("ns", "dying", map[string]string{AnnotationTTL: "bad", AnnotationExpiresAt: "2020-01-01T00:00:00Z"})
		dying.DeletionTimestamp = new(metav1.NewTime(epoch))
		w.put(configMaps, dying)
		w.expect("being deleted")

		held := w.object("ns", "held", map[string]string{AnnotationExpiresAt: "2020-01-01T00:00:00Z"})
		held.Finalizers = []string{"example.com/hold"}
		w.put(configMaps, held)
		if got := len(w.settled()); got != 2 {
			t.Errorf("%d entries, want the deletion and its event", got)
		}
		w.pass(time.Hour)
		w.expect("deleted, but held by a finalizer")
	})
}

func TestObjectThatIsGoneIsFine(t *testing.T) {
	inWorld(t, func(w *world) {
		defer w.start("v1/configmaps")()
		w.refuse = func() error { return apierrors.NewNotFound(configMaps.GroupResource(), "a") }
		w.put(configMaps, w.object("ns", "a", map[string]string{AnnotationExpiresAt: "2020-01-01T00:00:00Z"}))
		w.expect("gone", `delete configmaps ns/a: configmaps "a" not found`)
		w.pass(time.Hour)
		w.expect("an hour later")
		if got := w.logged(ktesting.LogError, ""); got != 0 {
			t.Errorf("%d errors logged, want none", got)
		}
	})
}

func TestFailuresAreLoggedOncePerObjectAndRetriedAtGrowingIntervals(t *testing.T) {
	inWorld(t, func(w *world) {
		defer w.start("v1/configmaps")()
		w.refuse = func() error {
			return apierrors.NewForbidden(configMaps.GroupResource(), "a", errors.New("not allowed"))
		}
		w.put(configMaps, w.object("ns", "a", map[string]string{AnnotationExpiresAt: "2020-01-01T00:00:00Z"}))
		if got := len(w.settled()); got != 1 {
			t.Errorf("%d attempts at once, want 1", got)
		}
		for wait := firstRetry; wait < maxRetry; wait *= 2 {
			w.pass(wait - 1)
			w.expect(fmt.Sprintf("before the retry after %v", wait))
			w.pass(1)
			if got := len(w.settled()); got != 1 {
				t.Errorf("%d attempts after %v, want 1", got, wait)
			}
		}
		w.pass(maxRetry)
		if got := len(w.settled()); got != 1 {
			t.Errorf("%d attempts after %v, want 1", got, maxRetry)
		}
		if got := w.logged(ktesting.LogError, "not allowed"); got != 1 {
			t.Errorf("%d errors logged, want 1", got)
		}
		// Once it is allowed the object goes, and the count starts anew.
		w.refuse = nil
		w.pass(maxRetry)
		if got := len(w.settled()); got != 2 {
			t.Errorf("%d entries, want the deletion and its event", got)
		}
	})
}

type notLeader struct{}

func (notLeader) Error() string   { return "not the leader" }
func (notLeader) NotLeader() bool { return true }

func TestRefusalByTheFenceIsQuiet(t *testing.T) {
	inWorld(t, func(w *world) {
		stop := w.start("v1/configmaps")
		w.refuse = func() error { return fmt.Errorf("transport: %w", notLeader{}) }
		w.put(configMaps, w.object("ns", "a", map[string]string{AnnotationExpiresAt: "2020-01-01T00:00:00Z"}))
		w.expect("refused", "delete configmaps ns/a: transport: not the leader")
		stop()
		if got := w.logged(ktesting.LogError, ""); got != 0 {
			t.Errorf("%d errors logged, want none", got)
		}
	})
}

func TestRunFinishesWhatItHasBegunAndNothingElse(t *testing.T) {
	inWorld(t, func(w *world) {
		answer := make(chan struct{})
		asked := 0
		w.refuse = func() error {
			asked++
			<-answer
			return errors.New("late")
		}
		for i := range 10 {
			w.put(configMaps, w.object("ns", fmt.Sprint("a", i), map[string]string{AnnotationExpiresAt: "2020-01-01T00:00:00Z"}))
		}
		stop := w.start("v1/configmaps")
		synctest.Wait()
		stopped := make(chan struct{})
		go func() {
			stop()
			close(stopped)
		}()
		synctest.Wait()
		select {
		case <-stopped:
			t.Error("Run has returned while a request was in flight")
		default:
		}
		close(answer)
		<-stopped
		if asked != 1 {
			t.Errorf("%d requests, want only the one that was in flight at the end", asked)
		}
	})
}

func TestDiscardedBuildLeavesNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		fakes := &clients.Fakes{Kubernetes: w.kube, Metadata: w.api}
		pool := must(clients.NewPool(clients.PoolConfig{Name: t.Name(), Fakes: fakes}))
		view := pool.View(Name, nil)
		ctx, discard := context.WithCancel(context.Background())
		must(Descriptor().Configure().Init(ctx, &controllers.Context{
			Clients: must(clients.NewSet(clients.SetConfig{Fakes: fakes})), Informers: view, Clock: w.clock,
			Name: Name, Events: func(*runtime.Scheme) events.EventRecorder { return w.journal },
			Served: w.served,
		}))
		discard()
		view.Release()
		// The bubble fails if a goroutine stays.
	})
}

func TestClockThatWasSetBackDoesNotDeleteEarly(t *testing.T) {
	inWorld(t, func(w *world) {
		defer w.start("v1/configmaps")()
		w.put(configMaps, w.object("ns", "a", map[string]string{AnnotationTTL: "30m"}))
		synctest.Wait()
		w.clock.SetTime(epoch.Add(-10 * time.Minute))
		w.pass(40 * time.Minute)
		w.expect("30 minutes by the clock that was set back")
		w.pass(time.Second)
		if got := len(w.settled()); got != 2 {
			t.Errorf("%d entries at the deadline, want the deletion and its event", got)
		}
	})
}

func TestFarFutureDoesNotOverflow(t *testing.T) {
	inWorld(t, func(w *world) {
		defer w.start("v1/configmaps")()
		w.put(configMaps, w.object("ns", "a", map[string]string{AnnotationExpiresAt: "9999-12-31T23:59:59Z"}))
		w.put(configMaps, w.object("ns", "b", map[string]string{AnnotationTTL: "106751d23h47m16.854775807s"}))
		for range 48 {
			w.pass(time.Hour)
		}
		w.expect("two days later")
	})
}

// A step of the wall clock does not move timers, so no timer may be set for longer
// than the step is allowed to go unnoticed.
func TestLongWaitsAreCut(t *testing.T) {
	w := newWorld(t)
	store := cache.NewStore(cache.MetaNamespaceKeyFunc)
	c := &controller{clock: w.clock, stores: map[schema.GroupVersionResource]cache.Store{configMaps: store}}
	for expiresAt, want := range map[string]time.Duration{
		"9999-12-31T23:59:59Z": maxWait,
		"2026-11-20T13:00:01Z": maxWait,
		"2026-11-20T12:59:59Z": maxWait - time.Second,
	} {
		w.check(store.Add(w.object("ns", "a", map[string]string{AnnotationExpiresAt: expiresAt})))
		got, err := c.reconcile(t.Context(), item{resource: configMaps, name: cache.NewObjectName("ns", "a")})
		if err != nil || got.RequeueAfter != want {
			t.Errorf("%s: it waits %v (error %v), want %v", expiresAt, got.RequeueAfter, err, want)
		}
	}
}

// One resource that is not there, or not granted, does not hold up the others.
func TestAbsentResourceNarrows(t *testing.T) {
	inWorld(t, func(w *world) {
		w.absent = map[schema.GroupVersionResource]bool{widgets: true}
		stop := w.start("example.com/v1/widgets", "v1/configmaps")
		w.put(configMaps, w.object("ns", "a", map[string]string{AnnotationExpiresAt: "2020-01-01T00:00:00Z"}))
		if got := len(w.settled()); got != 2 {
			t.Errorf("%d entries, want the deletion and its event", got)
		}
		stop()
		for _, action := range w.api.Actions() {
			if action.GetResource() == widgets {
				t.Errorf("a request to %s the absent resource", action.GetVerb())
			}
		}
	})
}

func TestWithoutAnyResourceItFails(t *testing.T) {
	w := newWorld(t)
	fakes := &clients.Fakes{Kubernetes: w.kube, Metadata: w.api}
	_, err := build(t.Context(), &controllers.Context{
		Name: Name, Clients: must(clients.NewSet(clients.SetConfig{Fakes: fakes})),
		Events: func(*runtime.Scheme) events.EventRecorder { return w.journal },
		Served: func(schema.GroupVersionResource) bool { return false },
	}, &Options{Resources: []string{"v1/secrets", "example.com/v1/widgets"}, Workers: 1})
	if err == nil || !strings.Contains(err.Error(), "v1/secrets, example.com/v1/widgets") {
		t.Errorf("got %v, want an error that names the resources", err)
	}
}

func TestClusterScopedObjectOfACustomResource(t *testing.T) {
	inWorld(t, func(w *world) {
		defer w.start("v1/configmaps", "example.com/v1/widgets")()
		w.put(widgets, w.object("", "w", map[string]string{AnnotationExpiresAt: "2020-01-01T00:00:00Z"}))
		w.expect("expired",
			"delete widgets /w (Background)",
			"event Normal Expired example.com/v1/Widget /w uid=uid-w rv=1: Deleted: expired at 2020-01-01T00:00:00Z by incumbent.io/expires-at=2020-01-01T00:00:00Z")
	})
}

func TestDeletionDoesNotWaitForTheKindOfItsEvent(t *testing.T) {
	inWorld(t, func(w *world) {
		defer w.start("v1/configmaps")()
		w.kube.Resources = nil
		w.put(configMaps, w.object("ns", "a", map[string]string{AnnotationExpiresAt: "2020-01-01T00:00:00Z"}))
		w.expect("expired", "delete configmaps ns/a (Background)")
		w.put(configMaps, w.object("ns", "b", map[string]string{AnnotationTTL: "bad"}))
		w.expect("malformed")
		w.kube.Resources = []*metav1.APIResourceList{{GroupVersion: "v1", APIResources: []metav1.APIResource{{Name: "configmaps", Kind: "ConfigMap"}}}}
		w.pass(firstRetry)
		if got := len(w.settled()); got != 1 {
			t.Errorf("%d entries once the kind can be found, want the warning", got)
		}
	})
}

func TestPanicStopsOneObjectOnly(t *testing.T) {
	inWorld(t, func(w *world) {
		defer w.start("v1/configmaps")()
		w.refuse = func() error {
			w.refuse = nil
			panic("boom")
		}
		w.put(configMaps, w.object("ns", "a", map[string]string{AnnotationExpiresAt: "2020-01-01T00:00:00Z"}))
		synctest.Wait()
		w.put(configMaps, w.object("ns", "b", map[string]string{AnnotationExpiresAt: "2020-01-01T00:00:00Z"}))
		if got := len(w.settled()); got != 2 {
			t.Errorf("%d entries, want the deletion of b and its event", got)
		}
		w.pass(firstRetry)
		if got := len(w.settled()); got != 2 {
			t.Errorf("%d entries, want the deletion of a and its event", got)
		}
	})
}
