// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package configpropagation

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/incumbent-io/incumbent/pkg/controllers"
	"github.com/incumbent-io/incumbent/pkg/controllertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is the controller in front of a fake API server, inside a bubble.
type world struct {
	*controllertest.Harness
	t *testing.T
}

func inWorld(t *testing.T, config controllertest.Config, scenario func(w world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
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

// ns returns a namespace; labels are "key=value".
func ns(name string, labels ...string) *corev1.Namespace {
	o := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{metav1LabelName: name}}}
	for _, label := range labels {
		key, value, _ := strings.Cut(label, "=")
		o.Labels[key] = value
	}
	return o
}

// cm returns a ConfigMap with one value; to is its AnnotationTo, "" for none.
func cm(name, to, value string) *corev1.ConfigMap {
	namespace, name, _ := strings.Cut(name, "/")
	o := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Data: map[string]string{"k": value}}
	if to != "" {
		o.Annotations = map[string]string{AnnotationTo: to}
	}
	return o
}

// born returns the object with a time of creation, so many seconds after an hour that
// has passed.
func born(o *corev1.ConfigMap, second int) *corev1.ConfigMap {
	o.CreationTimestamp = metav1.NewTime(time.Date(1999, 1, 1, 0, 0, second, 0, time.UTC))
	return o
}

// teams are three namespaces with a label, and one without.
func teams(more ...runtime.Object) []runtime.Object {
	return append([]runtime.Object{ns("platform"), ns("a", "team=a"), ns("b", "team=b"), ns("c", "team=c")}, more...)
}

func (w world) make(o *corev1.ConfigMap) {
	w.t.Helper()
	_, err := w.Kubernetes.CoreV1().ConfigMaps(o.Namespace).Create(context.Background(), o, metav1.CreateOptions{})
	w.check(err)
}

func (w world) get(name string) *corev1.ConfigMap {
	w.t.Helper()
	namespace, name, _ := strings.Cut(name, "/")
	found, err := w.Kubernetes.CoreV1().ConfigMaps(namespace).Get(context.Background(), name, metav1.GetOptions{})
	w.check(err)
	return found
}

func (w world) remove(name string) {
	w.t.Helper()
	namespace, name, _ := strings.Cut(name, "/")
	w.check(w.Kubernetes.CoreV1().ConfigMaps(namespace).Delete(context.Background(), name, metav1.DeleteOptions{}))
}

// patch merges a JSON patch into a ConfigMap.
func (w world) patch(name, patch string) {
	w.t.Helper()
	namespace, name, _ := strings.Cut(name, "/")
	_, err := w.Kubernetes.CoreV1().ConfigMaps(namespace).Patch(context.Background(), name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	w.check(err)
}

func (w world) patchNamespace(name, patch string) {
	w.t.Helper()
	_, err := w.Kubernetes.CoreV1().Namespaces().Patch(context.Background(), name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	w.check(err)
}

// there returns every ConfigMap as "namespace/name=value", with " of namespace" for
// copies.
func (w world) there() (list []string) {
	w.t.Helper()
	found, err := w.Kubernetes.CoreV1().ConfigMaps("").List(context.Background(), metav1.ListOptions{})
	w.check(err)
	for _, o := range found.Items {
		text := fmt.Sprintf("%s/%s=%s", o.Namespace, o.Name, o.Data["k"])
		if isCopy(&o) {
			text += " of " + o.Labels[LabelFrom]
		}
		list = append(list, text)
	}
	slices.Sort(list)
	return list
}

// expect compares what there is, after the controller has settled.
func (w world) expect(moment string, want ...string) {
	w.t.Helper()
	w.Settle()
	slices.Sort(want)
	if diff := cmp.Diff(want, w.there()); diff != "" {
		w.t.Errorf("%s: ConfigMaps differ (-want +got):\n%s", moment, diff)
	}
}

// expectWrites compares what the controller has written since the last call.
func (w world) expectWrites(moment string, want ...string) {
	w.t.Helper()
	w.Settle()
	var got []string
	for _, r := range w.Writes() {
		got = append(got, r.Verb+" "+r.Namespace+"/"+r.Name)
	}
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		w.t.Errorf("%s: writes differ (-want +got):\n%s", moment, diff)
	}
}

// expectStatus compares the status of a source, and the Events that have been recorded
// since the last call.
func (w world) expectStatus(moment, source, status string, events ...string) {
	w.t.Helper()
	w.Advance(2 * statusPause)
	if got := w.get(source).Annotations[AnnotationStatus]; got != status {
		w.t.Errorf("%s: status of %s:\ngot  %q\nwant %q", moment, source, got, status)
	}
	var got []string
	for _, e := range w.Events() {
		got = append(got, e.String())
	}
	if diff := cmp.Diff(events, got); diff != "" {
		w.t.Errorf("%s: Events differ (-want +got):\n%s", moment, diff)
	}
}

func TestACopyFollowsItsSource(t *testing.T) {
	inWorld(t, controllertest.Config{Objects: teams()}, func(w world) {
		w.expectWrites("at the start")
		w.make(cm("platform/m", "team", "1"))
		w.expect("a new source", "platform/m=1", "a/m=1 of platform", "b/m=1 of platform", "c/m=1 of platform")
		w.expectWrites("a new source", "patch a/m", "patch b/m", "patch c/m")
		w.patch("platform/m", `{"data":{"k":"2"}}`)
		w.expect("other content", "platform/m=2", "a/m=2 of platform", "b/m=2 of platform", "c/m=2 of platform")
		w.expectWrites("other content", "patch a/m", "patch b/m", "patch c/m")
		w.patch("platform/m", `{"metadata":{"labels":{"x":"y"}}}`)
		w.expectWrites("other labels")
		w.patch("platform/m", `{"metadata":{"annotations":{"incumbent.io/propagate-to":"team in (b,c), team!=c"}}}`)
		w.expect("another selector", "platform/m=2", "b/m=2 of platform")
		w.expectWrites("another selector", "delete a/m", "delete c/m")
		w.patch("platform/m", `{"metadata":{"annotations":null}}`)
		w.expect("without the annotation", "platform/m=2")
		w.patch("platform/m", `{"metadata":{"annotations":{"incumbent.io/propagate-to":"team=a"}}}`)
		w.expect("with the annotation again", "platform/m=2", "a/m=2 of platform")
		w.remove("platform/m")
		w.expect("without the source")
		w.Writes()
		w.Advance(time.Hour)
		w.expectWrites("an hour later")
	})
}

func TestACopyFollowsItsNamespace(t *testing.T) {
	inWorld(t, controllertest.Config{Objects: teams(cm("platform/m", "team", "1"))}, func(w world) {
		all := []string{"platform/m=1", "a/m=1 of platform", "b/m=1 of platform", "c/m=1 of platform"}
		w.expect("at the start", all...)
		_, err := w.Kubernetes.CoreV1().Namespaces().Create(context.Background(), ns("d", "team=d"), metav1.CreateOptions{})
		w.check(err)
		w.expect("a new namespace", append(all, "d/m=1 of platform")...)
		w.patchNamespace("d", `{"metadata":{"labels":{"team":null}}}`)
		w.expect("no match any more", all...)
		w.patchNamespace("d", `{"metadata":{"labels":{"team":"again"}}}`)
		w.expect("a match again", append(all, "d/m=1 of platform")...)
		w.patchNamespace("d", `{"metadata":{"annotations":{"incumbent.io/refuse-propagation":"true"}}}`)
		w.expect("it refuses", all...)
		w.patchNamespace("d", `{"metadata":{"annotations":{"incumbent.io/refuse-propagation":"false"}}}`)
		w.expect("it does not refuse", append(all, "d/m=1 of platform")...)
		w.expectStatus("nothing is wrong", "platform/m", "")
		w.patchNamespace("d", `{"metadata":{"annotations":{"incumbent.io/refuse-propagation":"yes"}}}`)
		w.expect("it refuses in other words", all...)
		w.expectStatus("nothing is wrong with the source", "platform/m", "",
			`Warning InvalidAnnotation Namespace d: annotation incumbent.io/refuse-propagation is "yes", want "true" or "false"; it is taken for "true"; fix it with: kubectl annotate namespace d incumbent.io/refuse-propagation=true --overwrite`)
	})
}

func TestANamespaceThatIsTerminatingIsLeftAlone(t *testing.T) {
	leaving := ns("d", "team=d")
	leaving.Finalizers = []string{"example.com/wait"}
	inWorld(t, controllertest.Config{Objects: teams(leaving, cm("platform/m", "team=d", "1"))}, func(w world) {
		w.expect("at the start", "platform/m=1", "d/m=1 of platform")
		w.check(w.Kubernetes.CoreV1().Namespaces().Delete(context.Background(), "d", metav1.DeleteOptions{}))
		w.Settle()
		w.Writes()
		w.patch("platform/m", `{"data":{"k":"2"}}`)
		w.make(cm("platform/n", "team=d", "1"))
		w.expectWrites("two changes")
		w.expectStatus("two changes", "platform/n", "")
	})
}

func TestATerminatingNamespaceThatTheCacheDoesNotKnowOf(t *testing.T) {
	refuse := func(r controllertest.Request) error {
		err := apierrors.NewForbidden(r.Resource.GroupResource(), r.Name, fmt.Errorf("unable to create new content in namespace %s because it is being terminated", r.Namespace))
		err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes, metav1.StatusCause{Type: corev1.NamespaceTerminatingCause})
		return err
	}
	inWorld(t, controllertest.Config{Objects: teams(cm("platform/m", "team=a", "1")), OnWrite: refuse}, func(w world) {
		if len(w.Writes()) == 0 {
			t.Error("at the start: nothing was tried")
		}
		w.Advance(time.Hour)
		w.expectWrites("later")
		w.expectStatus("later", "platform/m", "")
	})
}

func TestWhatIsForeignIsNotTouched(t *testing.T) {
	inWorld(t, controllertest.Config{Objects: teams(cm("a/m", "", "mine"), cm("platform/m", "team", "1"))}, func(w world) {
		w.expect("at the start", "platform/m=1", "a/m=mine", "b/m=1 of platform", "c/m=1 of platform")
		w.expectStatus("at the start", "platform/m", "not copied to 1 of the selected namespaces: a: there is a ConfigMap of that name that is no copy",
			"Warning NotPropagated ConfigMap platform/m: not copied to 1 of the selected namespaces: a: there is a ConfigMap of that name that is no copy")
		w.patch("b/m", `{"metadata":{"labels":{"incumbent.io/propagated-from":null}}}`)
		w.Settle()
		w.patch("platform/m", `{"data":{"k":"2"}}`)
		w.expect("without its label a copy is foreign", "platform/m=2", "a/m=mine", "b/m=1", "c/m=2 of platform")
		w.patch("c/m", `{"metadata":{"annotations":{"incumbent.io/propagated-copy":null}}}`)
		w.Settle()
		w.patch("platform/m", `{"data":{"k":"3"}}`)
		w.expect("and without its annotation", "platform/m=3", "a/m=mine", "b/m=1", "c/m=2")
		w.Writes()
		w.Stop()
		w.Start()
		w.Advance(time.Minute)
		w.Events()
		for _, r := range w.Writes() {
			if r.Namespace != "platform" {
				t.Errorf("after a hand-over: %s", r)
			}
		}
		w.remove("platform/m")
		w.expect("without the source", "a/m=mine", "b/m=1", "c/m=2")
		w.make(cm("platform/m", "team", "4"))
		w.remove("a/m")
		w.remove("b/m")
		w.remove("c/m")
		w.expect("nothing is in the way", "platform/m=4", "a/m=4 of platform", "b/m=4 of platform", "c/m=4 of platform")
	})
}

func TestTheStatusGoesWithTheProblem(t *testing.T) {
	inWorld(t, controllertest.Config{Objects: teams(cm("a/m", "", "mine"), cm("platform/m", "team", "1"))}, func(w world) {
		const status = "not copied to 1 of the selected namespaces: a: there is a ConfigMap of that name that is no copy"
		w.expectStatus("at the start", "platform/m", status, "Warning NotPropagated ConfigMap platform/m: "+status)
		w.Stop()
		w.Writes()
		w.Start()
		w.expectStatus("after a hand-over", "platform/m", status)
		w.expectWrites("after a hand-over")
		w.remove("a/m")
		w.expectStatus("the problem is gone", "platform/m", "", "Normal Propagated ConfigMap platform/m: Copied to every namespace that is selected")
	})
}

func TestSomebodyElseCreatesAtTheSameMoment(t *testing.T) {
	var somebody atomic.Pointer[world]
	between := func(r controllertest.Request) error {
		if w := somebody.Swap(nil); w != nil {
			w.make(cm("a/m", "", "mine"))
		}
		return nil
	}
	inWorld(t, controllertest.Config{Objects: teams(), OnWrite: between}, func(w world) {
		somebody.Store(&w)
		w.make(cm("platform/m", "team=a", "1"))
		w.Advance(time.Minute)
		w.expect("a foreign one was first", "platform/m=1", "a/m=mine")
		if somebody.Load() != nil {
			t.Error("nothing was tried")
		}
		if owners := w.get("a/m").ManagedFields; len(owners) != 1 {
			t.Errorf("it has been written: %v", owners)
		}
	})
}

func TestACopyThatBecomesForeignAtTheLastMomentIsLeftAlone(t *testing.T) {
	for name, follow := range map[string]func(w world){
		"written": func(w world) { w.patch("platform/m", `{"data":{"k":"2"}}`) },
		"deleted": func(w world) { w.remove("platform/m") },
	} {
		t.Run(name, func(t *testing.T) {
			var somebody atomic.Pointer[world]
			between := func(controllertest.Request) error {
				if w := somebody.Swap(nil); w != nil {
					w.patch("a/m", `{"metadata":{"labels":null}}`)
				}
				return nil
			}
			inWorld(t, controllertest.Config{Objects: teams(cm("platform/m", "team=a", "1")), OnWrite: between}, func(w world) {
				somebody.Store(&w)
				follow(w)
				w.Advance(time.Minute)
				if somebody.Load() != nil {
					t.Error("nothing was tried")
				}
				if o := w.get("a/m"); o.Data["k"] != "1" || len(o.Labels) > 0 {
					t.Errorf("it was written: %v, labels %v", o.Data, o.Labels)
				}
			})
		})
	}
}

func TestACopyIsPutBack(t *testing.T) {
	const want = "a/m=1 of platform"
	for name, edit := range map[string]func(w world){
		"another value":  func(w world) { w.patch("a/m", `{"data":{"k":"2"}}`) },
		"a further key":  func(w world) { w.patch("a/m", `{"data":{"more":"2"}}`) },
		"a missing key":  func(w world) { w.patch("a/m", `{"data":null}`) },
		"binary data":    func(w world) { w.patch("a/m", `{"binaryData":{"b":"AAAA"}}`) },
		"all of it":      func(w world) { w.patch("a/m", `{"data":{"k":"2","more":"2"},"binaryData":{"b":"AAAA"}}`) },
		"immutable":      func(w world) { w.patch("a/m", `{"immutable":true}`) },
		"another source": func(w world) { w.patch("a/m", `{"metadata":{"labels":{"incumbent.io/propagated-from":"x"}}}`) },
		"another uid": func(w world) {
			w.patch("a/m", `{"metadata":{"annotations":{"incumbent.io/propagated-copy":"a/m of x"}}}`)
		},
		"deleted": func(w world) { w.remove("a/m") },
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, controllertest.Config{Objects: teams(cm("platform/m", "team=a", "1"))}, func(w world) {
				w.patch("a/m", `{"metadata":{"labels":{"example.com/mine":"x"}}}`)
				w.Settle()
				before := w.get("a/m")
				edit(w)
				w.Advance(time.Second)
				w.expect("put back", "platform/m=1", want)
				after := w.get("a/m")
				if diff := cmp.Diff(before.Data, after.Data); diff != "" {
					t.Errorf("data (-want +got):\n%s", diff)
				}
				if len(after.BinaryData) > 0 || after.Immutable != nil && *after.Immutable {
					t.Errorf("got %v, immutable %v; want none", after.BinaryData, after.Immutable)
				}
				if diff := cmp.Diff(before.Annotations, after.Annotations); diff != "" {
					t.Errorf("annotations (-want +got):\n%s", diff)
				}
				if after.UID == before.UID && after.Labels["example.com/mine"] != "x" {
					t.Error("a foreign label was removed")
				}
				w.Writes()
				w.patch("a/m", `{"metadata":{"labels":{"example.com/mine":"y"}}}`)
				w.Advance(time.Hour)
				w.expectWrites("a foreign label")
			})
		})
	}
}

func TestWhatCannotBeChangedIsReplaced(t *testing.T) {
	inWorld(t, controllertest.Config{Objects: teams(cm("platform/m", "team=a", "1"))}, func(w world) {
		w.patch("platform/m", `{"immutable":true}`)
		w.Settle()
		if got := w.get("a/m").Immutable; got == nil || !*got {
			t.Errorf("immutable: got %v, want true", got)
		}
		w.remove("platform/m")
		w.make(cm("platform/m", "team=a", "2"))
		w.expect("the source was created anew", "platform/m=2", "a/m=2 of platform")
		if got := w.get("a/m").Immutable; got != nil {
			t.Errorf("immutable: got %v, want none", got)
		}
	})
}

func TestTheOldestSourceWins(t *testing.T) {
	objects := teams(ns("one"), ns("two"), born(cm("two/m", "team", "two"), 1), born(cm("one/m", "team=a", "one"), 2))
	inWorld(t, controllertest.Config{Objects: objects}, func(w world) {
		w.expect("at the start", "one/m=one", "two/m=two", "a/m=two of two", "b/m=two of two", "c/m=two of two")
		w.expectStatus("the younger one", "one/m", "not copied to 1 of the selected namespaces: a: the ConfigMap of that name in two, which is older, is copied there",
			"Warning NotPropagated ConfigMap one/m: not copied to 1 of the selected namespaces: a: the ConfigMap of that name in two, which is older, is copied there")
		uid := w.get("a/m").UID
		w.remove("two/m")
		w.expect("the next one takes over", "one/m=one", "a/m=one of one")
		if w.get("a/m").UID != uid {
			t.Error("the copy was deleted in between")
		}
		w.expectStatus("it has no problem", "one/m", "", "Normal Propagated ConfigMap one/m: Copied to every namespace that is selected")
		w.make(cm("two/m", "team", "two")) // the younger one now
		w.expect("an older one is there", "one/m=one", "two/m=two", "a/m=one of one", "b/m=two of two", "c/m=two of two")
	})
}

func TestOfSourcesOfOneSecondTheNameDecides(t *testing.T) {
	objects := teams(ns("one"), ns("two"), born(cm("two/m", "team=a", "two"), 1), born(cm("one/m", "team=a", "one"), 1))
	inWorld(t, controllertest.Config{Objects: objects}, func(w world) {
		w.expect("at the start", "one/m=one", "two/m=two", "a/m=one of one")
	})
}

func TestSourcesInNamespacesThatTheySelect(t *testing.T) {
	objects := []runtime.Object{ns("a", "team=a"), ns("b", "team=b"), cm("a/m", "team", "a"), cm("b/m", "team", "b"), cm("b/n", "team", "b")}
	inWorld(t, controllertest.Config{Objects: objects}, func(w world) {
		w.expect("none is copied over another", "a/m=a", "b/m=b", "b/n=b", "a/n=b of b")
		w.Events()
		const status = "not copied to 1 of the selected namespaces: b: there is a ConfigMap of that name that is no copy"
		w.expectStatus("both say so", "a/m", status)
		w.expectStatus("not onto itself", "b/n", "")
	})
}

func TestACopyIsNeverASource(t *testing.T) {
	inWorld(t, controllertest.Config{Objects: teams(cm("platform/m", "team=a", "1"))}, func(w world) {
		w.patch("a/m", `{"metadata":{"annotations":{"incumbent.io/propagate-to":"team=b"}}}`)
		w.expect("an annotated copy", "platform/m=1", "a/m=1 of platform")
		const status = "not copied: it is itself a copy, of ConfigMap platform/m; annotate that one, and remove the annotation incumbent.io/propagate-to here"
		w.expectStatus("an annotated copy", "a/m", status, "Warning InvalidSource ConfigMap a/m: "+status)
		w.patch("a/m", `{"metadata":{"annotations":{"incumbent.io/propagate-to":null}}}`)
		w.expectStatus("no longer annotated", "a/m", "")
	})
}

func TestWhatIsMadeOfACopyByHandIsNoCopy(t *testing.T) {
	inWorld(t, controllertest.Config{Objects: teams(cm("platform/m", "team=a", "1"))}, func(w world) {
		saved := w.get("a/m")
		for _, name := range []string{"a/saved", "b/m"} {
			o := cm(name, "", "saved")
			o.Labels, o.Annotations = maps.Clone(saved.Labels), maps.Clone(saved.Annotations)
			w.make(o)
		}
		w.expect("two of them", "platform/m=1", "a/m=1 of platform", "a/saved=saved", "b/m=saved")
		w.remove("platform/m")
		w.expect("without the source", "a/saved=saved", "b/m=saved")
	})
}

func TestAMalformedSelectorChangesNothing(t *testing.T) {
	for value, problem := range map[string]string{
		"":          "an empty one would select every namespace; to select every one, use kubernetes.io/metadata.name",
		"team in a": "unable to parse requirement: found 'a' expected: '('",
		"team=a b":  "found 'b', expected: ',' or 'end of string'",
	} {
		t.Run(value, func(t *testing.T) {
			inWorld(t, controllertest.Config{Objects: teams(cm("platform/m", "team in (a,b)", "1"))}, func(w world) {
				copied := []string{"a/m=1 of platform", "b/m=1 of platform"}
				w.expect("at the start", append(copied, "platform/m=1")...)
				w.patch("platform/m", fmt.Sprintf(`{"data":{"k":"2"},"metadata":{"annotations":{"incumbent.io/propagate-to":%q}}}`, value))
				w.expect("malformed", append(copied, "platform/m=2")...)
				w.Advance(2 * statusPause)
				status := w.get("platform/m").Annotations[AnnotationStatus]
				for _, want := range []string{fmt.Sprintf("%q", value), problem, "kubectl annotate configmap -n platform m incumbent.io/propagate-to='team=a' --overwrite"} {
					if !strings.Contains(status, want) {
						t.Errorf("the status lacks %q: %s", want, status)
					}
				}
				if got := w.Events(); len(got) != 1 || got[0].Type != "Warning" || got[0].Reason != "InvalidSource" || got[0].Note != status {
					t.Errorf("Events: got %v, want one with the status", got)
				}
				w.Stop()
				w.Start()
				w.patchNamespace("b", `{"metadata":{"annotations":{"incumbent.io/refuse-propagation":"true"}}}`)
				w.expect("a namespace can refuse even so", "platform/m=2", "a/m=1 of platform")
				w.patch("platform/m", `{"metadata":{"annotations":{"incumbent.io/propagate-to":"team=c"}}}`)
				w.expect("mended", "platform/m=2", "c/m=2 of platform")
				w.expectStatus("mended", "platform/m", "", "Normal Propagated ConfigMap platform/m: Copied to every namespace that is selected")
			})
		})
	}
}

func TestOnlySomeNamespacesHaveSources(t *testing.T) {
	config := controllertest.Config{Objects: teams(ns("other"), cm("platform/m", "team=a", "1"), cm("other/n", "team=a", "1"))}
	config.Options = func(o controllers.Options) { o.(*Options).SourceNamespaces = []string{"platform", "more"} }
	inWorld(t, config, func(w world) {
		w.expect("at the start", "platform/m=1", "other/n=1", "a/m=1 of platform")
		const status = "not copied: of namespace other nothing is copied, only of platform, more; move it there, or have other added to --config-propagation-source-namespaces"
		w.expectStatus("of another one", "other/n", status, "Warning InvalidSource ConfigMap other/n: "+status)
	})
}

func TestWhatHappensWhileNobodyLeads(t *testing.T) {
	inWorld(t, controllertest.Config{Objects: teams(cm("platform/gone", "team", "1"), cm("platform/changed", "team=a", "1"), cm("platform/same", "team", "1"))}, func(w world) {
		w.Stop()
		w.Writes()
		w.remove("platform/gone")
		w.patch("platform/changed", `{"data":{"k":"2"}}`)
		w.patch("b/same", `{"data":{"k":"2"}}`)
		w.Start()
		w.expect("the next leader sees to it", "platform/changed=2", "platform/same=1", "a/changed=2 of platform",
			"a/same=1 of platform", "b/same=1 of platform", "c/same=1 of platform")
		w.expectWrites("no more than that", "delete a/gone", "delete b/gone", "delete c/gone", "patch a/changed", "patch b/same")
	})
}

func TestAHandOverOfManyCopiesWritesNothing(t *testing.T) {
	objects := []runtime.Object{ns("platform"), cm("platform/m", "team", "1"), cm("platform/n", "team", "1")}
	for i := range 120 {
		objects = append(objects, ns(fmt.Sprint("t", i), "team=x"))
	}
	inWorld(t, controllertest.Config{Objects: objects}, func(w world) {
		if got := len(w.Writes()); got != 240 {
			t.Errorf("at the start: %d writes, want 240", got)
		}
		w.Stop()
		w.Start()
		w.Advance(time.Hour)
		w.expectWrites("after a hand-over")
		w.Stop()
		w.patch("t77/m", `{"data":{"k":"2"}}`)
		w.Start()
		w.Advance(time.Hour)
		w.expectWrites("one was edited meanwhile", "patch t77/m")
	})
}

func TestTheRefusalOfTheAPIServerIsTold(t *testing.T) {
	var full atomic.Bool
	full.Store(true)
	refuse := func(r controllertest.Request) error {
		if full.Load() && r.Namespace == "a" {
			return apierrors.NewForbidden(r.Resource.GroupResource(), r.Name, fmt.Errorf("exceeded quota: few"))
		}
		return nil
	}
	config := controllertest.Config{Objects: teams(cm("platform/m", "team", "1")), OnWrite: refuse, AllowErrors: []string{"exceeded quota"}}
	inWorld(t, config, func(w world) {
		w.expect("the others have it", "platform/m=1", "b/m=1 of platform", "c/m=1 of platform")
		const status = `not copied to 1 of the selected namespaces: a: the API server refuses it: writing the copy of platform/m: configmaps "m" is forbidden: exceeded quota: few`
		w.expectStatus("over quota", "platform/m", status, "Warning NotPropagated ConfigMap platform/m: "+status)
		full.Store(false)
		w.Advance(maxRetry)
		w.expect("the quota is larger", "platform/m=1", "a/m=1 of platform", "b/m=1 of platform", "c/m=1 of platform")
		w.expectStatus("the quota is larger", "platform/m", "", "Normal Propagated ConfigMap platform/m: Copied to every namespace that is selected")
	})
}

func TestAnErrorThatPassesIsNoProblemOfTheSource(t *testing.T) {
	var tries atomic.Int64
	fail := func(controllertest.Request) error {
		if tries.Add(1) <= 3 {
			return apierrors.NewServiceUnavailable("later")
		}
		return nil
	}
	inWorld(t, controllertest.Config{Objects: teams(cm("platform/m", "team=a", "1")), OnWrite: fail, AllowErrors: []string{"later"}}, func(w world) {
		w.Advance(time.Minute)
		w.expect("in the end", "platform/m=1", "a/m=1 of platform")
		w.expectStatus("in the end", "platform/m", "")
	})
}

func TestTheStatusNamesTenNamespaces(t *testing.T) {
	objects := []runtime.Object{ns("platform"), cm("platform/m", "team", "1")}
	for i := range 12 {
		name := fmt.Sprintf("t%02d", i)
		objects = append(objects, ns(name, "team=x"), cm(name+"/m", "", "mine"))
	}
	inWorld(t, controllertest.Config{Objects: objects}, func(w world) {
		status := w.get("platform/m").Annotations[AnnotationStatus]
		if !strings.HasPrefix(status, "not copied to 12 of the selected namespaces: t00: ") || !strings.HasSuffix(status, "; and 2 more") {
			t.Errorf("got %q", status)
		}
		w.expectWrites("in one write", "patch platform/m")
	})
}

func secretOf(name, to string, secretType corev1.SecretType, value string) *corev1.Secret {
	o := cm(name, to, "")
	return &corev1.Secret{ObjectMeta: o.ObjectMeta, Type: secretType, Data: map[string][]byte{"k": []byte(value)}}
}

func TestSecretsAreCopiedIfEnabled(t *testing.T) {
	objects := teams(secretOf("platform/s", "team=a", corev1.SecretTypeOpaque, "1"))
	inWorld(t, controllertest.Config{Objects: objects}, func(w world) {
		w.expectWrites("disabled")
	})
	inWorld(t, controllertest.Config{Objects: objects, Options: withSecrets}, func(w world) {
		secrets := w.Kubernetes.CoreV1().Secrets("a")
		expect := func(moment string, secretType corev1.SecretType, value string) {
			t.Helper()
			w.Settle()
			got, err := secrets.Get(context.Background(), "s", metav1.GetOptions{})
			w.check(err)
			if got.Type != secretType || string(got.Data["k"]) != value || len(got.Data) != 1 {
				t.Errorf("%s: got %s of type %s, want %s of type %s", moment, got.Data, got.Type, value, secretType)
			}
		}
		expect("at the start", corev1.SecretTypeOpaque, "1")
		_, err := secrets.Patch(context.Background(), "s", types.MergePatchType, []byte(`{"data":{"more":"AAAA"}}`), metav1.PatchOptions{})
		w.check(err)
		expect("a further key", corev1.SecretTypeOpaque, "1")
		sources := w.Kubernetes.CoreV1().Secrets("platform")
		w.check(sources.Delete(context.Background(), "s", metav1.DeleteOptions{}))
		_, err = sources.Create(context.Background(), secretOf("platform/s", "team=a", "example.com/other", "2"), metav1.CreateOptions{})
		w.check(err)
		expect("of another type", "example.com/other", "2")
	})
}

func TestTokensOfServiceAccountsAreNotCopied(t *testing.T) {
	objects := teams(secretOf("platform/s", "team=a", corev1.SecretTypeServiceAccountToken, "1"))
	inWorld(t, controllertest.Config{Objects: objects, Options: withSecrets}, func(w world) {
		w.Settle()
		got, err := w.Kubernetes.CoreV1().Secrets("platform").Get(context.Background(), "s", metav1.GetOptions{})
		w.check(err)
		const want = "not copied to 1 of the selected namespaces: a: Secrets of type kubernetes.io/service-account-token are not copied, those of all other types are"
		if status := got.Annotations[AnnotationStatus]; status != want {
			t.Errorf("status: got %q, want %q", status, want)
		}
		w.expectWrites("only the status", "patch platform/s")
	})
}

func TestNothingIsRememberedOfWhatIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var built *controller
		w := world{controllertest.Run(t, controllers.Descriptor[*Options]{
			Name: Name, Summary: "The last one that was built is kept.", Options: defaults, Access: access,
			Init: func(_ context.Context, c *controllers.Context, o *Options) (_ controllers.Controller, err error) {
				built, err = newController(c, o)
				return built, err
			},
		}, controllertest.Config{Objects: teams(cm("a/m", "", "mine"))}), t}
		w.make(cm("platform/m", "team", "1"))
		w.patchNamespace("c", `{"metadata":{"annotations":{"incumbent.io/refuse-propagation":"yes"}}}`)
		w.Advance(time.Minute)
		if len(built.targets) == 0 || len(built.sources) == 0 || len(built.reader.reads) == 0 || len(built.warned) == 0 {
			t.Errorf("nothing is remembered of what is there: %d targets, %d sources, %d reads, %d warnings", len(built.targets), len(built.sources), len(built.reader.reads), len(built.warned))
		}
		w.remove("platform/m")
		w.patchNamespace("c", `{"metadata":{"annotations":null}}`)
		w.Advance(time.Minute)
		w.expect("in the end", "a/m=mine")
		if len(built.targets)+len(built.sources)+len(built.reader.reads)+len(built.warned) > 0 {
			t.Errorf("remembered: targets %v, sources %v, reads %v, warnings %v; want none", built.targets, built.sources, built.reader.reads, built.warned)
		}
	})
}
