// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package leaderlabel

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apimachinery/pkg/watch"
	metadatafake "k8s.io/client-go/metadata/fake"
	kubetesting "k8s.io/client-go/testing"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/ktesting"
	testingclock "k8s.io/utils/clock/testing"

	"github.com/incumbent-io/incumbent/pkg/clients"
	"github.com/incumbent-io/incumbent/pkg/controllers"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// instance is this process in all scenarios: the Pod a.
var instance = controllers.Instance{
	Manager: "manager", Lease: "lease", LeaseNamespace: "ns", Identity: "a_1",
	PodName: "a", PodNamespace: "ns", PodUID: "uid-a",
}

// world is a controller in front of a fake API server, inside a synctest bubble.
type world struct {
	t     *testing.T
	clock *testingclock.FakeClock
	api   *metadatafake.FakeMetadataClient
	logs  ktesting.Underlier

	version int
	mu      sync.Mutex
	journal []string
	// refuse is asked about each patch, by the name of its Pod.
	refuse func(pod string) error
}

func inWorld(t *testing.T, scenario func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{
			t:      t,
			clock:  testingclock.NewFakeClock(time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)),
			api:    metadatafake.NewSimpleMetadataClient(metadatafake.NewTestScheme()),
			refuse: func(string) error { return nil },
		}
		w.api.PrependReactor("patch", "pods", w.onPatch)
		scenario(w)
	})
}

// onPatch does what the API server does and the fake does not: it refuses a patch
// that would change the UID, or is of another version. It keeps a journal of the labels.
func (w *world) onPatch(action kubetesting.Action) (bool, runtime.Object, error) {
	patch := action.(kubetesting.PatchActionImpl)
	var content struct {
		Metadata struct {
			UID             types.UID          `json:"uid"`
			ResourceVersion string             `json:"resourceVersion"`
			Labels          map[string]*string `json:"labels"`
		} `json:"metadata"`
	}
	if err := json.Unmarshal(patch.Patch, &content); err != nil || patch.PatchType != types.MergePatchType {
		return true, nil, fmt.Errorf("patch %s of type %s: %v", patch.Patch, patch.PatchType, err)
	}
	entry := patch.Name
	for _, label := range slices.Sorted(maps.Keys(content.Metadata.Labels)) {
		if value := content.Metadata.Labels[label]; value != nil {
			entry += " +" + strings.TrimPrefix(label, "incumbent.io/") + "=" + *value
		} else {
			entry += " -" + strings.TrimPrefix(label, "incumbent.io/")
		}
	}
	err := w.refuse(patch.Name)
	if err == nil {
		err = w.precondition(patch, content.Metadata.UID, content.Metadata.ResourceVersion)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		w.journal = append(w.journal, entry+": "+string(apierrors.ReasonForError(err)))
		return true, nil, err
	}
	w.journal = append(w.journal, entry)
	return false, nil, nil
}

func (w *world) precondition(patch kubetesting.PatchActionImpl, uid types.UID, version string) error {
	found, err := w.api.Tracker().Get(patch.Resource, patch.Namespace, patch.Name)
	if err != nil {
		return err
	}
	existing := found.(*metav1.PartialObjectMetadata)
	if version != "" && existing.ResourceVersion != version {
		return apierrors.NewConflict(pods.GroupResource(), patch.Name, errors.New("the object has been modified"))
	}
	if existing.UID != uid {
		return apierrors.NewInvalid(schema.GroupKind{Kind: "Pod"}, patch.Name, field.ErrorList{
			field.Invalid(field.NewPath("metadata", "uid"), uid, "field is immutable"),
		})
	}
	return nil
}

func (w *world) put(pod *metav1.PartialObjectMetadata) {
	w.t.Helper()
	pod = pod.DeepCopy()
	w.version++
	pod.ResourceVersion = fmt.Sprint(w.version)
	err := w.api.Tracker().Create(pods, pod, pod.Namespace)
	if apierrors.IsAlreadyExists(err) {
		err = w.api.Tracker().Update(pods, pod, pod.Namespace)
	}
	w.check(err)
}

func (w *world) remove(name string) {
	w.t.Helper()
	w.check(w.api.Tracker().Delete(pods, "ns", name))
}

// expect compares the patches since the last call, once nothing moves.
func (w *world) expect(moment string, want ...string) {
	w.t.Helper()
	synctest.Wait()
	w.mu.Lock()
	got := w.journal
	w.journal = nil
	w.mu.Unlock()
	if diff := cmp.Diff(want, got); diff != "" {
		w.t.Errorf("%s: the patches differ (-want +got):\n%s", moment, diff)
	}
}

// expectTries expects one patch and no other, once or more often, once nothing moves.
func (w *world) expectTries(moment, want string) {
	w.t.Helper()
	synctest.Wait()
	w.mu.Lock()
	got := slices.Compact(w.journal)
	w.journal = nil
	w.mu.Unlock()
	if diff := cmp.Diff([]string{want}, got); diff != "" {
		w.t.Errorf("%s: the patches differ (-want +got):\n%s", moment, diff)
	}
}

// leaders compares the Pods that carry the role.
func (w *world) leaders(want ...string) {
	w.t.Helper()
	synctest.Wait()
	list, err := w.api.Resource(pods).Namespace("ns").List(context.Background(), metav1.ListOptions{LabelSelector: LabelRole + "=" + RoleLeader})
	w.check(err)
	var got []string
	for i := range list.Items {
		got = append(got, list.Items[i].Name)
	}
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		w.t.Errorf("the labelled Pods differ (-want +got):\n%s", diff)
	}
}

func (w *world) errorsLogged() int {
	count := 0
	for _, entry := range w.logs.GetBuffer().Data() {
		if entry.Type == ktesting.LogError {
			count++
		}
	}
	return count
}

// start runs the registered controller the way the manager does. The returned
// function ends it and returns what Run returned.
func (w *world) start() (stop func() error) {
	w.t.Helper()
	logger := ktesting.NewLogger(w.t, ktesting.NewConfig(ktesting.BufferLogs(true), ktesting.Verbosity(4)))
	w.logs = logger.GetSink().(ktesting.Underlier)
	ctx := klog.NewContext(context.Background(), logger)

	fakes := &clients.Fakes{Metadata: w.api}
	set := must(clients.NewSet(clients.SetConfig{Fakes: fakes}))
	pool := must(clients.NewPool(clients.PoolConfig{Name: w.t.Name(), Fakes: fakes}))

	configured := Descriptor().Configure()
	view := pool.View(configured.Name, nil)
	built := must(configured.Init(ctx, &controllers.Context{
		Name: configured.Name, Instance: instance, Clients: set, Informers: view, Clock: w.clock,
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
	return func() error {
		stopRun()
		err := <-runEnd
		w.check(view.Detach(ctx))
		view.Release()
		stopPool()
		w.check(<-poolEnd)
		return err
	}
}

func (w *world) check(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) end(stop func() error) {
	w.t.Helper()
	w.check(stop())
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

func leading(mark string) map[string]string {
	return map[string]string{LabelRole: RoleLeader, LabelLease: mark}
}

const (
	labelA  = "a +lease=lease +role=leader"
	oustedB = "b -lease -role"
)

func TestFirstLeaderLabelsItself(t *testing.T) {
	inWorld(t, func(w *world) {
		w.put(pod("a", "uid-a", "rs", nil))
		w.put(pod("b", "uid-b", "rs", nil))
		defer w.end(w.start())
		w.expect("at the start", labelA)
		w.leaders("a")
		w.clock.Step(time.Hour)
		w.expect("an hour later")
	})
}

func TestOthersLoseTheLabelBeforeTheNewLeaderGetsIt(t *testing.T) {
	inWorld(t, func(w *world) {
		w.put(pod("a", "uid-a", "rs", nil))
		w.put(pod("b", "uid-b", "rs", leading("lease")))
		w.put(pod("stranger", "uid-s", "other", leading("other")))
		defer w.end(w.start())
		w.expect("at the start", oustedB, labelA)
		w.leaders("a", "stranger")
	})
}

func TestLeaderOfAnEarlierTermKeepsItsLabel(t *testing.T) {
	inWorld(t, func(w *world) {
		w.put(pod("a", "uid-a", "rs", leading("lease")))
		defer w.end(w.start())
		w.expect("at the start")
		w.leaders("a")
	})
}

func TestInterferenceIsCorrectedAtOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		w.put(pod("a", "uid-a", "rs", nil))
		w.put(pod("b", "uid-b", "rs", nil))
		defer w.end(w.start())
		w.expect("at the start", labelA)

		w.put(pod("a", "uid-a", "rs", nil))
		w.expect("both labels taken from the leader", labelA)
		w.put(pod("a", "uid-a", "rs", map[string]string{LabelRole: RoleLeader}))
		w.expect("the mark taken from the leader", labelA)
		w.put(pod("b", "uid-b", "rs", map[string]string{LabelRole: RoleLeader}))
		w.expect("a sibling labelled by hand", oustedB)
		w.put(pod("b", "uid-b", "rs", leading("lease")))
		w.expect("a sibling labelled like the leader", oustedB)
		w.put(pod("stranger", "uid-s", "other", leading("other")))
		w.put(pod("stranger", "uid-s", "other", map[string]string{LabelRole: RoleLeader}))
		w.expect("the leader of something else")
		w.remove("stranger")
		w.put(pod("c", "uid-c", "rs", leading("lease")))
		w.expect("a new sibling with the labels in its template", "c -lease -role")
		w.leaders("a")
	})
}

func TestNobodyIsLabelledWhileAnotherCannotBeOusted(t *testing.T) {
	inWorld(t, func(w *world) {
		w.put(pod("a", "uid-a", "rs", nil))
		w.put(pod("b", "uid-b", "rs", leading("lease")))
		w.refuse = func(pod string) error {
			if pod == "b" {
				return apierrors.NewForbidden(pods.GroupResource(), pod, errors.New("not allowed"))
			}
			return nil
		}
		defer w.end(w.start())
		w.expectTries("at the start", oustedB+": Forbidden")
		w.leaders("b")
		for range 20 {
			w.clock.Step(maxRetry)
			w.expectTries("later", oustedB+": Forbidden")
		}
		if got := w.errorsLogged(); got != 1 {
			t.Errorf("%d errors logged, want 1", got)
		}
		w.refuse = func(string) error { return nil }
		w.clock.Step(maxRetry)
		w.expect("once it is allowed", oustedB, labelA)
		w.leaders("a")
	})
}

func TestOtherPodThatIsGoneOrReplacedDoesNotHoldUpTheLabel(t *testing.T) {
	for name, err := range map[string]error{
		"NotFound": apierrors.NewNotFound(pods.GroupResource(), "b"),
		"Invalid": apierrors.NewInvalid(schema.GroupKind{Kind: "Pod"}, "b", field.ErrorList{
			field.Invalid(field.NewPath("metadata", "uid"), "uid-b", "field is immutable"),
		}),
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.put(pod("a", "uid-a", "rs", nil))
				w.put(pod("b", "uid-b", "rs", leading("lease")))
				w.refuse = func(pod string) error {
					if pod != "b" {
						return nil
					}
					w.remove("b")
					return err
				}
				defer w.end(w.start())
				w.expect("at the start", oustedB+": "+name, labelA)
			})
		})
	}
}

// The leader of something else may get its label between the look and the patch.
func TestPodThatIsRelabelledMeanwhileIsLeftAlone(t *testing.T) {
	inWorld(t, func(w *world) {
		w.put(pod("a", "uid-a", "rs", nil))
		w.put(pod("b", "uid-b", "rs", leading("lease")))
		w.refuse = func(name string) error {
			if name == "b" {
				w.put(pod("b", "uid-b", "rs", leading("other")))
			}
			return nil
		}
		defer w.end(w.start())
		w.expect("at the start", oustedB+": Conflict", labelA)
		w.leaders("a", "b")
	})
}

func TestOtherRefusalsHoldUpTheLabel(t *testing.T) {
	for _, err := range []*apierrors.StatusError{
		apierrors.NewInvalid(schema.GroupKind{Kind: "Pod"}, "b", field.ErrorList{field.Invalid(field.NewPath("spec"), "", "")}),
		apierrors.NewConflict(pods.GroupResource(), "b", errors.New("changed")),
	} {
		t.Run(string(err.ErrStatus.Reason), func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.put(pod("a", "uid-a", "rs", nil))
				w.put(pod("b", "uid-b", "rs", leading("lease")))
				w.refuse = func(string) error { return err }
				defer w.end(w.start())
				w.expectTries("at the start", oustedB+": "+string(err.ErrStatus.Reason))
				w.refuse = func(string) error { return nil }
				w.clock.Step(maxRetry)
				w.expect("at the retry", oustedB, labelA)
			})
		})
	}
}

func TestOwnPodThatIsNotThereIsReported(t *testing.T) {
	for _, test := range []struct {
		name   string
		exists *metav1.PartialObjectMetadata
	}{
		{name: "absent"},
		{name: "replaced by another of its name", exists: pod("a", "uid-other", "rs", nil)},
	} {
		t.Run(test.name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.put(pod("b", "uid-b", "rs", nil))
				if test.exists != nil {
					w.put(test.exists)
				}
				stop := w.start()
				w.expect("at the start")
				w.leaders()
				err := stop()
				if !errors.Is(err, errPodGone) || !strings.Contains(err.Error(), "ns/a") || !strings.Contains(err.Error(), "uid-a") {
					t.Errorf("Run returned %v, want an error that names the Pod ns/a and its UID", err)
				}
			})
		})
	}
}

func TestOwnPodThatGoesDuringTheRunIsReported(t *testing.T) {
	inWorld(t, func(w *world) {
		w.put(pod("a", "uid-a", "rs", nil))
		stop := w.start()
		w.expect("at the start", labelA)
		w.remove("a")
		w.expect("removed")
		w.put(pod("a", "uid-other", "rs", nil))
		w.expect("replaced")
		if err := stop(); !errors.Is(err, errPodGone) {
			t.Errorf("Run returned %v, want %v", err, errPodGone)
		}
	})
}

func TestOwnPodThatIsReplacedDuringTheRunIsReported(t *testing.T) {
	inWorld(t, func(w *world) {
		w.put(pod("a", "uid-a", "rs", nil))
		stop := w.start()
		w.expect("at the start", labelA)
		w.put(pod("a", "uid-other", "rs", nil))
		w.expect("replaced")
		w.leaders()
		if err := stop(); !errors.Is(err, errPodGone) {
			t.Errorf("Run returned %v, want %v", err, errPodGone)
		}
	})
}

// After a restore of etcd a watch does not tell what has become of the labels.
func TestChangeThatTheWatchHasMissedIsCorrected(t *testing.T) {
	inWorld(t, func(w *world) {
		w.put(pod("a", "uid-a", "rs", nil))
		w.put(pod("b", "uid-b", "rs", nil))
		deaf := watch.NewFake()
		defer deaf.Stop()
		w.api.PrependWatchReactor("pods", kubetesting.DefaultWatchReactor(deaf, nil))
		defer w.end(w.start())
		w.expect("at the start", labelA)
		w.put(pod("a", "uid-a", "rs", nil))
		w.put(pod("b", "uid-b", "rs", leading("lease")))
		w.clock.Step(recheck - 1)
		w.expect("before it is looked at again")
		w.clock.Step(1)
		w.expect("looked at again", oustedB, labelA)
	})
}

type notLeader struct{}

func (notLeader) Error() string   { return "not the leader" }
func (notLeader) NotLeader() bool { return true }

func TestRefusalByTheFenceIsQuiet(t *testing.T) {
	inWorld(t, func(w *world) {
		w.put(pod("a", "uid-a", "rs", nil))
		w.refuse = func(string) error { return fmt.Errorf("transport: %w", notLeader{}) }
		stop := w.start()
		w.expect("refused", labelA+": ")
		w.end(stop)
		if got := w.errorsLogged(); got != 0 {
			t.Errorf("%d errors logged, want none", got)
		}
	})
}

func TestFailedLookupOfTheOwnPodIsRetried(t *testing.T) {
	inWorld(t, func(w *world) {
		w.put(pod("a", "uid-a", "rs", nil))
		failing := true
		w.api.PrependReactor("list", "pods", func(action kubetesting.Action) (bool, runtime.Object, error) {
			if restrictions := action.(kubetesting.ListActionImpl).GetListRestrictions(); failing && !restrictions.Fields.Empty() {
				if got := restrictions.Fields.String(); got != "metadata.name=a" {
					t.Errorf("field selector %q, want metadata.name=a", got)
				}
				return true, nil, errors.New("unavailable")
			}
			return false, nil, nil
		})
		defer w.end(w.start())
		w.expect("while it fails")
		failing = false
		w.clock.Step(firstRetry)
		w.expect("after it", labelA)
	})
}

func TestRunFinishesItsRequest(t *testing.T) {
	inWorld(t, func(w *world) {
		w.put(pod("a", "uid-a", "rs", nil))
		answer := make(chan struct{})
		w.refuse = func(string) error {
			<-answer
			return nil
		}
		stop := w.start()
		synctest.Wait()
		stopped := goResult(stop)
		synctest.Wait()
		select {
		case err := <-stopped:
			t.Errorf("Run returned %v while a request was in flight", err)
		default:
		}
		close(answer)
		w.check(<-stopped)
		w.expect("at the end", labelA)
		w.leaders("a")
	})
}
