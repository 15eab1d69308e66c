// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package configrollout

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/cache"

	"github.com/incumbent-io/incumbent/pkg/controllers"
	"github.com/incumbent-io/incumbent/pkg/controllers/runner"
	"github.com/incumbent-io/incumbent/pkg/controllertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// In all scenarios a change must be quiet for quiet, and waits for most at most.
const (
	quiet = 5 * time.Second
	most  = time.Minute
)

// world is the controller in front of a fake API server, inside a bubble.
type world struct {
	*controllertest.Harness
	t *testing.T
}

func inWorld(t *testing.T, config controllertest.Config, scenario func(w world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		if config.Instance == (controllers.Instance{}) {
			config.Instance = controllers.Instance{Manager: "m", Namespace: "system", PodNamespace: "system"}
		}
		scenario(world{controllertest.Run(t, Descriptor(), config), t})
	})
}

func withSecrets(o controllers.Options) { o.(*Options).Secrets = true }

func (w world) check(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func yes() map[string]string { return map[string]string{AnnotationOptIn: "true"} }

// deployment returns one that refers to the parts of ConfigMaps in env variables.
func deploymentOf(annotations map[string]string, env ...corev1.EnvVarSource) *appsv1.Deployment {
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "app", UID: "uid-app", Annotations: annotations},
		Spec:       appsv1.DeploymentSpec{Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{container(env...)}}}},
	}
}

func (w world) app() *appsv1.Deployment {
	w.t.Helper()
	found, err := w.Kubernetes.AppsV1().Deployments("ns").Get(context.Background(), "app", metav1.GetOptions{})
	w.check(err)
	return found
}

func (w world) patchApp(patch string) {
	w.t.Helper()
	_, err := w.Kubernetes.AppsV1().Deployments("ns").Patch(context.Background(), "app", types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	w.check(err)
}

// set makes the value of the key k of a ConfigMap the given one.
func (w world) set(name, value string) {
	w.t.Helper()
	maps := w.Kubernetes.CoreV1().ConfigMaps("ns")
	found, err := maps.Get(context.Background(), name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		created := mapOf(name, map[string]string{"k": value}, nil)
		created.ResourceVersion = ""
		_, err = maps.Create(context.Background(), created, metav1.CreateOptions{})
		w.check(err)
		return
	}
	w.check(err)
	found.Data["k"] = value
	_, err = maps.Update(context.Background(), found, metav1.UpdateOptions{})
	w.check(err)
}

// expect compares what the controller has told since the last call, and with it how
// often it has written to workloads.
func (w world) expect(moment string, writes int, events ...string) {
	w.t.Helper()
	w.Settle()
	var got []string
	for _, e := range w.Events() {
		got = append(got, e.Reason+": "+e.Note)
	}
	if diff := cmp.Diff(events, got); diff != "" {
		w.t.Errorf("%s: events differ (-want +got):\n%s", moment, diff)
	}
	if list := w.Writes(); len(list) != writes {
		w.t.Errorf("%s: writes %v, want %d", moment, list, writes)
	}
}

const rolledFor = "RolloutTriggered: Rolled, because this changed: "

func TestARolloutFollowsAQuietPeriod(t *testing.T) {
	objects := []runtime.Object{mapOf("m", map[string]string{"k": "1"}, nil), deploymentOf(yes(), keyOfMap("m", "k", nil))}
	inWorld(t, controllertest.Config{Objects: objects}, func(w world) {
		w.expect("at the start", 1)
		if hash := w.app().Spec.Template.Annotations[AnnotationHash]; hash != "" {
			t.Errorf("the template was written at the start: %s", hash)
		}
		w.set("m", "2")
		w.Advance(quiet - time.Second)
		w.set("m", "3")
		w.Advance(quiet - time.Second)
		w.expect("before it is quiet", 0)
		w.Advance(time.Second)
		w.expect("once it is quiet", 1, rolledFor+"configmap/m")
		if hash := w.app().Spec.Template.Annotations[AnnotationHash]; hash == "" {
			t.Error("the template has no hash")
		}
		w.set("m", "4")
		w.Advance(time.Second)
		w.set("m", "3")
		w.Advance(time.Hour)
		w.expect("changed and changed back", 0)
	})
}

func TestEndlessChangesAreRolledFromTimeToTime(t *testing.T) {
	objects := []runtime.Object{mapOf("m", map[string]string{"k": "1"}, nil), deploymentOf(yes(), keyOfMap("m", "k", nil))}
	inWorld(t, controllertest.Config{Objects: objects}, func(w world) {
		w.expect("at the start", 1)
		for second := range int(most/time.Second) - 1 {
			w.set("m", fmt.Sprint("change ", second))
			w.Advance(time.Second)
		}
		w.expect("before the longest delay", 0)
		w.Advance(time.Second)
		w.expect("after the longest delay", 1, rolledFor+"configmap/m")
	})
}

func TestHandOver(t *testing.T) {
	objects := []runtime.Object{mapOf("m", map[string]string{"k": "1"}, nil), deploymentOf(yes(), keyOfMap("m", "k", nil))}
	inWorld(t, controllertest.Config{Objects: objects}, func(w world) {
		w.expect("at the start", 1)
		w.Stop()
		w.Start()
		w.Advance(time.Hour)
		w.expect("nothing has changed", 0)
		w.Stop()
		w.set("m", "2")
		w.Start()
		w.Advance(quiet)
		w.expect("changed while nobody led", 1, rolledFor+"configmap/m")
		w.set("m", "3")
		w.Advance(time.Second)
		w.Stop()
		w.Start()
		w.Advance(time.Hour)
		w.expect("handed over in the quiet period", 1, rolledFor+"configmap/m")
	})
}

func TestPausedIsRolledAtOnceWhenItResumes(t *testing.T) {
	objects := []runtime.Object{mapOf("m", map[string]string{"k": "1"}, nil), deploymentOf(yes(), keyOfMap("m", "k", nil))}
	inWorld(t, controllertest.Config{Objects: objects}, func(w world) {
		w.expect("at the start", 1)
		w.patchApp(`{"spec":{"paused":true}}`)
		w.set("m", "2")
		w.Advance(time.Hour)
		w.expect("paused", 0, "RolloutHeld: Changed: configmap/m; not rolled while it is paused")
		w.patchApp(`{"spec":{"paused":false}}`)
		w.expect("resumed", 1, rolledFor+"configmap/m")
	})
}

func TestNothingIsRolledIntoMissingConfiguration(t *testing.T) {
	objects := []runtime.Object{
		mapOf("m", map[string]string{"k": "1"}, nil), mapOf("n", map[string]string{"k": "1"}, nil),
		deploymentOf(yes(), keyOfMap("m", "k", nil), keyOfMap("n", "k", nil)),
	}
	inWorld(t, controllertest.Config{Objects: objects}, func(w world) {
		w.expect("at the start", 1)
		w.check(w.Kubernetes.CoreV1().ConfigMaps("ns").Delete(t.Context(), "n", metav1.DeleteOptions{}))
		w.Advance(time.Hour)
		w.expect("one is gone", 0)
		w.set("m", "2")
		w.Advance(time.Hour)
		w.expect("the other has changed", 0, "RolloutHeld: Changed: configmap/m; not rolled while what new Pods need is missing: key k of configmap/n")
		w.set("n", "1")
		w.expect("it is back", 1, rolledFor+"configmap/m")
	})
}

func TestMalformedAnnotationIsToldOnce(t *testing.T) {
	bad := map[string]string{AnnotationOptIn: "True"}
	inWorld(t, controllertest.Config{Objects: []runtime.Object{mapOf("m", map[string]string{"k": "1"}, nil), deploymentOf(bad, keyOfMap("m", "k", nil))}}, func(w world) {
		const told = `InvalidAnnotation: Left alone: annotation incumbent.io/rollout-on-config-change is %q, want "true" or "false"; fix it with: kubectl annotate deployment app incumbent.io/rollout-on-config-change=true --overwrite`
		w.expect("at the start", 0, fmt.Sprintf(told, "True"))
		w.patchApp(`{"metadata":{"labels":{"x":"y"}}}`)
		w.expect("something else has changed", 0)
		w.patchApp(`{"metadata":{"annotations":{"incumbent.io/rollout-on-config-change":""}}}`)
		w.expect("another bad value", 0, fmt.Sprintf(told, ""))
		w.patchApp(`{"metadata":{"annotations":{"incumbent.io/rollout-on-config-change":"true"}}}`)
		w.expect("corrected", 1)
		w.patchApp(`{"metadata":{"annotations":{"incumbent.io/rollout-on-config-change":"False"}}}`)
		w.set("m", "2")
		w.Advance(time.Hour)
		w.expect("bad again", 0, fmt.Sprintf(told, "False"))
		w.patchApp(`{"metadata":{"annotations":{"incumbent.io/rollout-on-config-change":"false"}}}`)
		w.expect("opted out", 1)
		if app := w.app(); app.Labels[LabelSeal] != "" || app.Annotations[AnnotationRecord] != "" || app.Labels["x"] != "y" {
			t.Errorf("after opting out: labels %v, annotations %v, want all but the controller's", app.Labels, app.Annotations)
		}
	})
}

// TestWhatIsWrittenIsWhatWasJudged has somebody change the workload before each write
// arrives.
func TestWhatIsWrittenIsWhatWasJudged(t *testing.T) {
	for _, test := range []struct {
		name, patch string
		rolled      bool
	}{
		{"opted out", `{"metadata":{"annotations":{"incumbent.io/rollout-on-config-change":null}}}`, false},
		{"paused", `{"spec":{"paused":true}}`, false},
		{"refers to something else", `{"spec":{"template":{"spec":{"containers":null}}}}`, false},
		{"annotated", `{"metadata":{"annotations":{"example.com/mine":"x"}}}`, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			var interfere atomic.Pointer[string]
			var there world
			config := controllertest.Config{
				Objects: []runtime.Object{mapOf("m", map[string]string{"k": "1"}, nil), deploymentOf(yes(), keyOfMap("m", "k", nil))},
				OnWrite: func(controllertest.Request) error {
					if patch := interfere.Swap(nil); patch != nil {
						there.patchApp(*patch)
					}
					return nil
				},
			}
			inWorld(t, config, func(w world) {
				there = w
				w.expect("at the start", 1)
				interfere.Store(&test.patch)
				w.set("m", "2")
				w.Advance(quiet)
				if rolled := w.app().Spec.Template.Annotations[AnnotationHash] != ""; rolled != test.rolled {
					t.Errorf("rolled: %v, want %v", rolled, test.rolled)
				}
			})
		})
	}
}

func TestARefusedRolloutIsToldOnceAndTriedAgain(t *testing.T) {
	var refuse atomic.Bool
	config := controllertest.Config{
		Objects:     []runtime.Object{mapOf("m", map[string]string{"k": "1"}, nil), deploymentOf(yes(), keyOfMap("m", "k", nil))},
		AllowErrors: []string{"the policy says no"},
		OnWrite: func(controllertest.Request) error {
			if refuse.Load() {
				return apierrors.NewForbidden(schema.GroupResource{Group: "apps", Resource: "deployments"}, "app", errors.New("the policy says no"))
			}
			return nil
		},
	}
	inWorld(t, config, func(w world) {
		w.expect("at the start", 1)
		refuse.Store(true)
		w.set("m", "2")
		w.Advance(quiet + 10*time.Second)
		w.Settle()
		events, tries := w.Events(), w.Writes()
		if len(events) != 1 || events[0].Reason != "RolloutFailed" || !strings.Contains(events[0].Note, "the policy says no") {
			t.Errorf("events %v, want one RolloutFailed with the reason", events)
		}
		if len(tries) < 3 {
			t.Errorf("tried %d times in 10 s, want at least 3", len(tries))
		}
		refuse.Store(false)
		w.Advance(time.Minute)
		if app := w.app(); app.Spec.Template.Annotations[AnnotationHash] == "" {
			t.Error("not rolled once it is allowed")
		}
	})
}

func TestARecordThatIsRefusedIsToldOnce(t *testing.T) {
	const reason = "metadata.annotations: Too long: may not be more than 262144 bytes"
	var refuse atomic.Bool
	refuse.Store(true)
	config := controllertest.Config{
		Objects:     []runtime.Object{mapOf("m", map[string]string{"k": "1"}, nil), deploymentOf(yes(), keyOfMap("m", "k", nil))},
		AllowErrors: []string{reason},
		OnWrite: func(controllertest.Request) error {
			if refuse.Load() {
				return &apierrors.StatusError{ErrStatus: metav1.Status{Reason: metav1.StatusReasonInvalid, Code: 422, Message: reason}}
			}
			return nil
		},
	}
	inWorld(t, config, func(w world) {
		w.Advance(10 * time.Second)
		tries := len(w.Writes())
		if tries < 3 {
			t.Errorf("tried %d times in 10 s, want at least 3", tries)
		}
		w.expect("refused", 0, "RecordFailed: Changes cannot be followed, the API server refuses the record: "+reason)
		refuse.Store(false)
		w.Advance(time.Minute)
		w.expect("accepted", 1)
		w.set("m", "2")
		w.Advance(quiet)
		w.expect("changed", 1, rolledFor+"configmap/m")
		refuse.Store(true)
		w.patchApp(`{"metadata":{"labels":null}}`)
		w.Settle()
		_ = w.Writes()
		w.expect("refused again", 0, "RecordFailed: Changes cannot be followed, the API server refuses the record: "+reason)
		w.patchApp(`{"metadata":{"annotations":{"incumbent.io/rollout-on-config-change":null}}}`)
		w.Advance(time.Minute)
		_ = w.Writes()
		w.expect("opted out, and refused", 0, "RecordFailed: The record cannot be removed, the API server refuses: "+reason)
	})
}

// TestAWorkloadThatIsGoneIsNotSaidToBeRolled deletes it before the write arrives.
func TestAWorkloadThatIsGoneIsNotSaidToBeRolled(t *testing.T) {
	var remove atomic.Bool
	var there world
	config := controllertest.Config{
		Objects: []runtime.Object{mapOf("m", map[string]string{"k": "1"}, nil), deploymentOf(yes(), keyOfMap("m", "k", nil))},
		OnWrite: func(controllertest.Request) error {
			if remove.Load() {
				return there.Kubernetes.AppsV1().Deployments("ns").Delete(context.Background(), "app", metav1.DeleteOptions{})
			}
			return nil
		},
	}
	inWorld(t, config, func(w world) {
		there = w
		w.expect("at the start", 1)
		remove.Store(true)
		w.set("m", "2")
		w.Advance(time.Hour)
		w.expect("gone", 1)
	})
}

// TestMarksThatAreTakenAway: kubectl replace leaves nothing that is not in its file.
func TestMarksThatAreTakenAway(t *testing.T) {
	const plain = `{"metadata":{"labels":null,"annotations":{"incumbent.io/config-record":null}},"spec":{"template":{"metadata":{"annotations":null}}}}`
	objects := []runtime.Object{mapOf("m", map[string]string{"k": "1"}, nil), deploymentOf(yes(), keyOfMap("m", "k", nil))}
	inWorld(t, controllertest.Config{Objects: objects}, func(w world) {
		w.expect("at the start", 1)
		w.patchApp(plain)
		w.Advance(time.Hour)
		w.expect("taken away", 1)
		w.set("m", "2")
		w.Advance(time.Second)
		w.patchApp(plain)
		w.Advance(time.Hour)
		w.expect("taken away in the quiet period", 1, rolledFor+"configmap/m")
	})
}

// TestWhoOptsInAgainBeginsAnew has a workload opt in again, with other content, before the
// controller sees that its marks are gone.
func TestWhoOptsInAgainBeginsAnew(t *testing.T) {
	var out atomic.Bool
	var there world
	config := controllertest.Config{
		Objects: []runtime.Object{mapOf("m", map[string]string{"k": "1"}, nil), deploymentOf(yes(), keyOfMap("m", "k", nil))},
		OnWrite: func(controllertest.Request) error {
			if out.Swap(false) {
				there.set("m", "2")
				there.patchApp(`{"metadata":{"labels":null,"annotations":{"incumbent.io/config-record":null,"incumbent.io/rollout-on-config-change":"true"}}}`)
			}
			return nil
		},
	}
	inWorld(t, config, func(w world) {
		there = w
		w.expect("at the start", 1)
		out.Store(true)
		w.patchApp(`{"metadata":{"annotations":{"incumbent.io/rollout-on-config-change":"false"}}}`)
		w.Advance(time.Hour)
		w.expect("out and in again", 2) // one in vain, and what there is then is recorded
		w.set("m", "3")
		w.Advance(time.Hour)
		w.expect("changed after that", 1, rolledFor+"configmap/m")
	})
}

// TestAWorkloadThatIsMadeAnewHasNoPast: while the only worker is busy with another one,
// a workload is replaced by one of its name, and what it refers to changes.
func TestAWorkloadThatIsMadeAnewHasNoPast(t *testing.T) {
	other := deploymentOf(yes(), keyOfMap("o", "k", nil))
	other.Name, other.UID = "other", "uid-other"
	var replace atomic.Bool
	var there world
	config := controllertest.Config{
		Objects: []runtime.Object{
			mapOf("m", map[string]string{"k": "1"}, nil), deploymentOf(yes(), keyOfMap("m", "k", nil)),
			mapOf("o", map[string]string{"k": "1"}, nil), other,
		},
		Options: func(o controllers.Options) { o.(*Options).Workers = 1 },
		OnWrite: func(r controllertest.Request) error {
			if !replace.Swap(false) {
				return nil
			}
			deployments := there.Kubernetes.AppsV1().Deployments("ns")
			again := deploymentOf(yes(), keyOfMap("m", "k", nil))
			again.UID = "uid-again"
			there.check(deployments.Delete(context.Background(), "app", metav1.DeleteOptions{}))
			there.set("m", "2")
			_, err := deployments.Create(context.Background(), again, metav1.CreateOptions{})
			time.Sleep(time.Second) // until the caches have it
			return err
		},
	}
	inWorld(t, config, func(w world) {
		there = w
		w.expect("at the start", 2)
		replace.Store(true)
		w.set("o", "2")
		w.Advance(time.Hour)
		w.expect("made anew", 2, rolledFor+"configmap/o")
		if app := w.app(); app.Spec.Template.Annotations[AnnotationHash] != "" || app.Annotations[AnnotationRecord] == "" {
			t.Errorf("the new one has the template %v and the annotations %v, want it recorded and not rolled", app.Spec.Template.Annotations, app.Annotations)
		}
	})
}

// TestAnotherManagerIsNotFoughtForEver: each would put right what the other records.
func TestAnotherManagerIsNotFoughtForEver(t *testing.T) {
	objects := []runtime.Object{mapOf("m", map[string]string{"k": "1"}, nil), deploymentOf(yes(), keyOfMap("m", "k", nil))}
	rival := func(w world) {
		app := w.app()
		theirs, standing := recordOn(app.UID, app.Labels, app.Annotations)
		if standing != recorded {
			t.Fatalf("the record on it is %v, want a valid one", app.Annotations)
		}
		theirs.set("secret/s", "k", "0a0b0c0d:ff")
		text := workload{ObjectMeta: app.ObjectMeta}.patch(marks{record: theirs})
		_, err := w.Kubernetes.AppsV1().Deployments("ns").Patch(context.Background(), "app", types.MergePatchType, text, metav1.PatchOptions{})
		w.check(err)
	}
	inWorld(t, controllertest.Config{Objects: objects}, func(w world) {
		w.expect("at the start", 1)
		for round := range maxContests - 1 {
			rival(w)
			w.expect(fmt.Sprint("replaced, round ", round), 1)
		}
		rival(w)
		w.expect("replaced once too often", 0, "RecordContested: Another manager replaces what this one records here, which is left to it from now on: changes may go unnoticed. Run config-rollout in one manager of a cluster only")
		w.patchApp(`{"metadata":{"labels":{"x":"y"}}}`)
		w.expect("told once", 0)
		w.set("m", "2")
		w.Advance(quiet)
		w.expect("what can be compared is rolled", 1, rolledFor+"configmap/m")
		rival(w)
		w.Advance(time.Hour)
		w.expect("after the rollout", 0)
	})
}

// TestDisplacedRecords: kubectl rollout undo puts a Deployment's former template and
// annotations back.
func TestDisplacedRecords(t *testing.T) {
	objects := []runtime.Object{
		mapOf("m", map[string]string{"k": "1"}, nil), mapOf("former", map[string]string{"k": "1"}, nil),
		deploymentOf(yes(), keyOfMap("former", "k", nil)),
	}
	undo := func(w world, to *appsv1.Deployment) {
		now := w.app()
		now.Annotations, now.Spec.Template = to.Annotations, to.Spec.Template
		_, err := w.Kubernetes.AppsV1().Deployments("ns").Update(context.Background(), now, metav1.UpdateOptions{})
		w.check(err)
	}
	refer := func(w world, name string) {
		now := w.app()
		now.Spec.Template.Spec.Containers[0] = container(keyOfMap(name, "k", nil))
		_, err := w.Kubernetes.AppsV1().Deployments("ns").Update(context.Background(), now, metav1.UpdateOptions{})
		w.check(err)
	}
	inWorld(t, controllertest.Config{Objects: objects}, func(w world) {
		w.expect("at the start", 1)
		first := w.app()
		refer(w, "m")
		w.expect("another reference", 1)
		second := w.app()
		w.set("m", "2")
		w.Advance(quiet)
		w.expect("its content changed", 1, rolledFor+"configmap/m")

		undo(w, second)
		w.Advance(time.Hour)
		w.expect("undone", 1)
		undo(w, first)
		w.Advance(time.Hour)
		w.expect("undone, to another reference", 1)
		undo(w, second)
		w.Advance(time.Hour)
		w.expect("and back", 1)

		w.Stop()
		undo(w, second)
		w.Start()
		w.Advance(time.Hour)
		w.expect("undone while nobody led", 1)
		w.Stop()
		undo(w, second)
		w.set("m", "3")
		w.Start()
		w.Advance(time.Hour)
		w.expect("undone and changed while nobody led", 1, rolledFor+"what it refers to")
	})
}

func secretOf(name, value string) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name}, Data: map[string][]byte{"k": []byte(value)}}
}

func (w world) setSecret(value string) {
	w.t.Helper()
	_, err := w.Kubernetes.CoreV1().Secrets("ns").Patch(context.Background(), "s", types.MergePatchType, fmt.Appendf(nil, `{"stringData":null,"data":{"k":%q}}`, value), metav1.PatchOptions{})
	w.check(err)
}

func TestSecretsCountOnlyIfEnabled(t *testing.T) {
	objects := []runtime.Object{secretOf("s", "1"), mapOf("m", map[string]string{"k": "1"}, nil), deploymentOf(yes(), keyOfSecret("s", "k"), keyOfMap("m", "k", nil))}
	inWorld(t, controllertest.Config{Objects: objects}, func(w world) {
		w.expect("at the start", 1)
		w.setSecret("Mg==")
		w.Advance(time.Hour)
		w.expect("the Secret has changed", 0)
		if text := w.app().Annotations[AnnotationRecord]; strings.Contains(text, "secret/") {
			t.Errorf("the record is %s, want no Secret in it", text)
		}
	})
	inWorld(t, controllertest.Config{Objects: objects, Options: withSecrets}, func(w world) {
		w.expect("at the start", 2) // the key and the record
		w.setSecret("Mg==")
		w.Advance(time.Hour)
		w.expect("the Secret has changed", 1, rolledFor+"secret/s")
		w.Stop()
		w.Start()
		w.Advance(time.Hour)
		w.expect("handed over", 0)
		w.Stop()
		w.setSecret("Mw==")
		w.Start()
		w.Advance(time.Hour)
		w.expect("changed while nobody led", 1, rolledFor+"secret/s")
	})
}

func TestALostKeyRollsNothing(t *testing.T) {
	objects := []runtime.Object{secretOf("s", "1"), deploymentOf(yes(), keyOfSecret("s", "k"))}
	inWorld(t, controllertest.Config{Objects: objects, Options: withSecrets}, func(w world) {
		w.expect("at the start", 2)
		w.Stop()
		w.check(w.Kubernetes.CoreV1().Secrets("system").Delete(t.Context(), KeySecret, metav1.DeleteOptions{}))
		w.Start()
		w.Advance(time.Hour)
		w.expect("with a new key", 2)
		w.setSecret("Mg==")
		w.Advance(time.Hour)
		w.expect("changed", 1, rolledFor+"secret/s")
	})
}

func TestAKeyThatIsTooShortIsNamed(t *testing.T) {
	short := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "system", Name: KeySecret}, Data: map[string][]byte{keyField: []byte("short")}}
	k := &keeper{secrets: fake.NewClientset(short).CoreV1().Secrets, namespace: "system"}
	_, err := k.get(t.Context())
	for _, want := range []string{"system/incumbent-config-rollout", "5 bytes", "at least 32", "delete it"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q in it", err, want)
		}
	}
}

func TestKindsThatAreNotServedAreLeftOut(t *testing.T) {
	all := kinds()
	deployments, statefulSets, daemonSets := all[deployment].resource, all[statefulSet].resource, all[daemonSet].resource
	objects := []runtime.Object{mapOf("m", map[string]string{"k": "1"}, nil), deploymentOf(yes(), keyOfMap("m", "k", nil))}
	inWorld(t, controllertest.Config{Objects: objects, Absent: []schema.GroupVersionResource{statefulSets, daemonSets}}, func(w world) {
		w.set("m", "2")
		w.Advance(quiet)
		w.expect("only Deployments", 2, rolledFor+"configmap/m")
	})
	inWorld(t, controllertest.Config{Absent: []schema.GroupVersionResource{deployments, statefulSets, daemonSets}}, func(w world) {
		if got := w.Status().State; got != runner.Skipped {
			t.Errorf("without any kind it is %s, want skipped", got)
		}
	})
}

// TestAnObjectIsReadOncePerVersion has many workloads ask for one object.
func TestAnObjectIsReadOncePerVersion(t *testing.T) {
	client := fake.NewClientset(mapOf("m", map[string]string{"k": "1"}, nil))
	r := newReader(client, nil)
	r.caches[configMap] = cache.NewSharedIndexInformer(nil, &metav1.PartialObjectMetadata{}, 0, cache.Indexers{})
	from := source{configMap, "m"}
	ask := func(version string) *contents {
		t.Helper()
		c, err := r.contents(t.Context(), "ns", from, version)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	reads := func(want int) {
		t.Helper()
		if got := len(client.Actions()); got != want {
			t.Errorf("read %d times, want %d", got, want)
		}
	}
	for range 100 {
		ask("1")
	}
	reads(1)
	ask("2") // the cache is ahead of what was read
	ask("2")
	reads(2)
	ask("1") // what was read is ahead of the cache
	reads(2)
	r.forget(from.in("ns"))
	ask("1")
	reads(3)
	if err := client.CoreV1().ConfigMaps("ns").Delete(t.Context(), "m", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := ask("5"); got != nil {
		t.Errorf("it has %v, want nothing once it is gone", got)
	}
}
