// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package shipped

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/incumbent-io/incumbent/test/cluster"
)

const (
	propagation       = "config-propagation"
	propagationTo     = "incumbent.io/propagate-to"
	propagationRefuse = "incumbent.io/refuse-propagation"
	propagationStatus = "incumbent.io/propagation-status"
	propagationFrom   = "incumbent.io/propagated-from"
	propagationCopy   = "incumbent.io/propagated-copy"
)

// config is what a ConfigMap or a Secret is about.
type config struct {
	to        string // the annotation; "" for none
	data      map[string]string
	binary    map[string][]byte
	immutable bool
	labels    map[string]string
}

// spread is a set of namespaces of one test, all labelled group=NAME.
type spread struct {
	t     *testing.T
	group string
}

// of returns the namespace of that name in this test.
func (s spread) of(name string) string { return s.group + "-" + name }

// everywhere selects all namespaces of the test that have the label team.
func (s spread) everywhere() string { return "team,group=" + s.group }

func (s spread) namespaces(names ...string) {
	s.t.Helper()
	for _, name := range names {
		labels := map[string]string{"group": s.group}
		if name != "platform" {
			labels["team"] = name
		}
		_, err := shared.Client.CoreV1().Namespaces().Create(s.t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: s.of(name), Labels: labels}}, metav1.CreateOptions{})
		s.check(err)
	}
}

func (s spread) check(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s spread) make(namespace, name string, c config) {
	s.t.Helper()
	o := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: c.labels}, Data: c.data, BinaryData: c.binary}
	if c.to != "" {
		o.Annotations = map[string]string{propagationTo: c.to}
	}
	if c.immutable {
		o.Immutable = &c.immutable
	}
	_, err := shared.Client.CoreV1().ConfigMaps(s.of(namespace)).Create(s.t.Context(), o, metav1.CreateOptions{})
	s.check(err)
}

func (s spread) get(namespace, name string) *corev1.ConfigMap {
	s.t.Helper()
	found, err := shared.Client.CoreV1().ConfigMaps(s.of(namespace)).Get(s.t.Context(), name, metav1.GetOptions{})
	s.check(err)
	return found
}

func (s spread) patch(namespace, name, patch string) {
	s.t.Helper()
	_, err := shared.Client.CoreV1().ConfigMaps(s.of(namespace)).Patch(s.t.Context(), name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	s.check(err)
}

func (s spread) patchNamespace(name, patch string) {
	s.t.Helper()
	_, err := shared.Client.CoreV1().Namespaces().Patch(s.t.Context(), s.of(name), types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	s.check(err)
}

func (s spread) remove(namespace, name string) {
	s.t.Helper()
	s.check(shared.Client.CoreV1().ConfigMaps(s.of(namespace)).Delete(s.t.Context(), name, metav1.DeleteOptions{}))
}

// awaitCopies waits until the ConfigMap of the namespace platform has copies in just
// the namespaces, and they are equal to it.
func (s spread) awaitCopies(moment, name string, namespaces ...string) {
	s.t.Helper()
	cluster.Eventually(s.t, 20*time.Second, moment, func() error {
		source := s.get("platform", name)
		list, err := shared.Client.CoreV1().ConfigMaps("").List(s.t.Context(), metav1.ListOptions{LabelSelector: propagationFrom + "=" + s.of("platform"), FieldSelector: "metadata.name=" + name})
		if err != nil {
			return err
		}
		var got []string
		for _, o := range list.Items {
			got = append(got, strings.TrimPrefix(o.Namespace, s.group+"-"))
			if diff := cmp.Diff([]any{source.Data, source.BinaryData, source.Immutable}, []any{o.Data, o.BinaryData, o.Immutable}); diff != "" {
				return fmt.Errorf("the copy in %s differs (-source +copy):\n%s", o.Namespace, diff)
			}
		}
		if diff := cmp.Diff(namespaces, got); diff != "" {
			return fmt.Errorf("namespaces with copies (-want +got):\n%s", diff)
		}
		return nil
	})
}

// awaitStatus waits until the status of the ConfigMap of the namespace platform has the
// text; "" waits until there is no status.
func (s spread) awaitStatus(moment, name, text string) (status string) {
	s.t.Helper()
	cluster.Eventually(s.t, 20*time.Second, moment, func() error {
		status = s.get("platform", name).Annotations[propagationStatus]
		if (text == "") != (status == "") || !strings.Contains(status, text) {
			return fmt.Errorf("the status is %q, want %q", status, text)
		}
		return nil
	})
	return status
}

// awaitEvent waits for an Event with a reason about an object, and returns its note.
func awaitEvent(t *testing.T, namespace, name, reason, text string) {
	t.Helper()
	cluster.Eventually(t, 20*time.Second, "Event "+reason+" about "+name, func() error {
		list, err := shared.Client.EventsV1().Events(namespace).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			return err
		}
		var notes []string
		for _, e := range list.Items {
			if e.Regarding.Name == name && e.Reason == reason {
				notes = append(notes, e.Note)
			}
		}
		if !strings.Contains(strings.Join(notes, "\n"), text) {
			return fmt.Errorf("notes are %q, want one with %q", notes, text)
		}
		return nil
	})
}

// TestConfigPropagation goes through what can happen to sources, copies and namespaces,
// with no more than the rights that the controller declares.
func TestConfigPropagation(t *testing.T) {
	const namespace = "propagation"
	shared.Namespace(t, namespace)
	manager := propagationAccount(t, namespace, "--config-propagation-secrets")
	f := newFleet(t, 2, namespace, propagation, "--config-propagation-secrets", "-v=10", "--kubeconfig="+manager.kubeconfig)
	scenarios := []struct {
		name string
		run  func(*testing.T, spread)
	}{
		{"follows", copiesFollow},
		{"foreign", foreignObjectsStay},
		{"edited", copiesAreEditedByHand},
		{"fields", keysThatOthersOwnToo},
		{"replaced", whatCannotBeChangedIsReplaced},
		{"quota", theAPIServerRefuses},
		{"large", largeObjects},
		{"leaving", namespacesLeave},
		{"two", twoSources},
		{"wrong", badInput},
		{"held", copiesWithFinalizers},
		{"secret", secretsOfEachType},
	}
	t.Run("all", func(t *testing.T) {
		for _, scenario := range scenarios {
			t.Run(scenario.name, func(t *testing.T) {
				t.Parallel() // They wait more than they do.
				scenario.run(t, spread{t, "p" + scenario.name})
			})
		}
	})
	for _, p := range f.members {
		for _, word := range []string{"hunter", "aHVudGVy"} { // plain and in base64
			if log := p.Log(); strings.Contains(log, word) {
				t.Errorf("the log has the content of a Secret: %s", log[max(0, strings.Index(log, word)-500):][:600])
			}
		}
		if strings.Contains(p.Log(), "is forbidden: User") { // also to create by an apply, of which the audit log does not tell
			t.Error("the rights that the controller declares are too few")
		}
	}
	for _, r := range manager.requests(t) {
		if !r.Allowed() {
			t.Errorf("not allowed: %v", r)
		}
	}
}

// propagationAccount returns an account with no more than the rights that the manager's
// own command prints for the controller alone.
func propagationAccount(t *testing.T, namespace string, flags ...string) account {
	t.Helper()
	return newAccount(t, namespace, append([]string{
		"--controllers=" + propagation, "--leader-elect-resource-namespace=" + namespace, "--leader-elect-resource-name=" + propagation,
	}, flags...)...)
}

func copiesFollow(t *testing.T, s spread) {
	s.namespaces("platform", "a", "b", "c")
	s.make("platform", "m", config{to: s.everywhere(), data: map[string]string{"k": "1", "l": "1"}, binary: map[string][]byte{"b": {0, 255}}, labels: map[string]string{"app": "x"}})
	s.awaitCopies("a new source", "m", "a", "b", "c")
	if got := s.get("a", "m").Labels["app"]; got != "" {
		t.Errorf("the label app was copied: %s", got)
	}
	s.patch("platform", "m", `{"data":{"k":"2","l":null,"n":""},"binaryData":{"b":"AA==","l":"/w=="}}`)
	s.awaitCopies("other content", "m", "a", "b", "c")
	s.namespaces("d")
	s.awaitCopies("a new namespace", "m", "a", "b", "c", "d")
	s.patchNamespace("b", `{"metadata":{"labels":{"team":null}}}`)
	s.patchNamespace("c", `{"metadata":{"annotations":{"`+propagationRefuse+`":"true"}}}`)
	s.awaitCopies("namespaces changed", "m", "a", "d")
	s.patch("platform", "m", `{"metadata":{"annotations":{"`+propagationTo+`":"group=`+s.group+`,team notin (a),team"}}}`)
	s.awaitCopies("another selector", "m", "d")
	s.patch("platform", "m", `{"metadata":{"annotations":{"`+propagationTo+`":"`+s.everywhere()+`"}}}`)
	s.awaitCopies("the first selector", "m", "a", "d")
	s.patch("platform", "m", `{"metadata":{"annotations":{"`+propagationTo+`":null}}}`)
	s.awaitCopies("without the annotation", "m")
	s.patch("platform", "m", `{"metadata":{"annotations":{"`+propagationTo+`":"`+s.everywhere()+`"}}}`)
	s.awaitCopies("with it", "m", "a", "d")
	s.remove("platform", "m")
	s.make("platform", "m", config{to: s.everywhere(), data: map[string]string{"new": "1"}})
	s.awaitCopies("made anew", "m", "a", "d")
	s.remove("platform", "m")
	s.awaitNone("without the source", "m")
}

// awaitNone waits until no ConfigMap of that name is in the namespaces of the test.
func (s spread) awaitNone(moment, name string) {
	s.t.Helper()
	cluster.Eventually(s.t, 20*time.Second, moment, func() error {
		list, err := shared.Client.CoreV1().ConfigMaps("").List(s.t.Context(), metav1.ListOptions{FieldSelector: "metadata.name=" + name})
		for _, o := range list.Items {
			if strings.HasPrefix(o.Namespace, s.group+"-") {
				err = errors.Join(err, errors.New("there is one in "+o.Namespace))
			}
		}
		return err
	})
}

func foreignObjectsStay(t *testing.T, s spread) {
	s.namespaces("platform", "a", "b", "c")
	s.make("a", "m", config{data: map[string]string{"mine": "x"}})
	s.make("platform", "m", config{to: s.everywhere(), data: map[string]string{"k": "1"}})
	s.awaitCopies("a conflict", "m", "b", "c")
	status := s.awaitStatus("a conflict", "m", "not copied to 1 of the selected namespaces: "+s.of("a")+": there is a ConfigMap of that name that is no copy")
	awaitEvent(t, s.of("platform"), "m", "NotPropagated", status)
	before := s.get("a", "m")
	s.patch("b", "m", `{"metadata":{"labels":{"`+propagationFrom+`":null}}}`)
	s.awaitStatus("a copy without its label", "m", "not copied to 2 of")
	unmarked := s.get("b", "m")
	s.patch("platform", "m", `{"data":{"k":"2"}}`)
	s.awaitCopies("other content", "m", "c")
	saved := s.get("c", "m")
	s.make("c", "saved", config{data: saved.Data, labels: saved.Labels})
	s.patch("c", "saved", `{"metadata":{"annotations":{"`+propagationCopy+`":"`+saved.Annotations[propagationCopy]+`"}}}`)
	s.patch("platform", "m", `{"metadata":{"annotations":{"`+propagationTo+`":"group=none"}}}`)
	s.awaitCopies("nothing selected", "m")
	s.awaitStatus("nothing selected", "m", "")
	awaitEvent(t, s.of("platform"), "m", "Propagated", "Copied to every namespace that is selected")
	for _, want := range []*corev1.ConfigMap{before, unmarked} {
		if diff := cmp.Diff(want, s.get(strings.TrimPrefix(want.Namespace, s.group+"-"), "m")); diff != "" {
			t.Errorf("a foreign object was touched (-before +after):\n%s", diff)
		}
	}
	s.get("c", "saved")
	s.patch("platform", "m", `{"metadata":{"annotations":{"`+propagationTo+`":"`+s.everywhere()+`"}}}`)
	s.awaitStatus("selected again", "m", "not copied to 2 of")
	s.remove("a", "m")
	s.remove("b", "m")
	s.awaitCopies("nothing is in the way", "m", "a", "b", "c")
	s.awaitStatus("nothing is in the way", "m", "")
}

func copiesAreEditedByHand(t *testing.T, s spread) {
	s.namespaces("platform", "a")
	s.make("platform", "m", config{to: s.everywhere(), data: map[string]string{"k": "1", "l": "1"}})
	s.awaitCopies("a new source", "m", "a")
	for moment, patch := range map[string]string{
		"a value":       `{"data":{"k":"2"}}`,
		"further keys":  `{"data":{"x":"2"},"binaryData":{"y":"AAAA"}}`,
		"fewer keys":    `{"data":{"k":null}}`,
		"no keys":       `{"data":null}`,
		"everything":    `{"data":{"k":null,"x":"2"},"binaryData":{"k":"AAAA"}}`,
		"immutable":     `{"immutable":true}`,
		"and different": `{"immutable":true,"data":{"x":"2"}}`,
		"its source":    `{"metadata":{"labels":{"` + propagationFrom + `":"x"}}}`,
		"its uid":       `{"metadata":{"annotations":{"` + propagationCopy + `":"` + s.of("a") + `/m of x"}}}`,
	} {
		s.patch("a", "m", patch)
		s.awaitCopies(moment, "m", "a")
		want := fmt.Sprintf("%s/m of %s", s.of("a"), s.get("platform", "m").UID)
		cluster.Eventually(t, 20*time.Second, moment+": the mark of the copy", func() error {
			if got := s.get("a", "m").Annotations[propagationCopy]; got != want {
				return fmt.Errorf("%s is %q, want %q", propagationCopy, got, want)
			}
			return nil
		})
	}
	s.remove("a", "m")
	s.awaitCopies("deleted", "m", "a")
	s.patch("a", "m", `{"metadata":{"labels":{"mine":"x"},"annotations":{"mine":"x"}}}`)
	s.patch("platform", "m", `{"data":{"k":"3"}}`)
	s.awaitCopies("with a foreign label", "m", "a")
	if o := s.get("a", "m"); o.Labels["mine"] != "x" || o.Annotations["mine"] != "x" {
		t.Errorf("the foreign label and annotation are gone: %v, %v", o.Labels, o.Annotations)
	}
	for _, entry := range s.get("a", "m").ManagedFields {
		if strings.Contains(string(entry.FieldsV1.GetRawString()), `"f:data"`) && (entry.Manager != "incumbent-config-propagation" || entry.Operation != metav1.ManagedFieldsOperationApply) {
			t.Errorf("%s owns data by %s; want incumbent-config-propagation by Apply", entry.Manager, entry.Operation)
		}
	}
}

// keysThatOthersOwnToo: an apply leaves keys that another field manager has applied.
func keysThatOthersOwnToo(t *testing.T, s spread) {
	s.namespaces("platform", "a")
	s.make("platform", "m", config{to: s.everywhere(), data: map[string]string{"k": "1", "l": "1"}})
	s.awaitCopies("a new source", "m", "a")
	apply := exec.CommandContext(t.Context(), shared.Program("kubectl"), "apply", "--server-side", "--force-conflicts", "--field-manager=other", "-f", "-")
	apply.Env = append(os.Environ(), "KUBECONFIG="+shared.Kubeconfig)
	apply.Stdin = strings.NewReader(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"namespace":"` + s.of("a") + `","name":"m"},"data":{"k":"1","l":"1"}}`)
	if out, err := apply.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	s.patch("platform", "m", `{"data":{"k":"2","l":null}}`)
	s.awaitCopies("a key goes that another owns, too", "m", "a")
}

func whatCannotBeChangedIsReplaced(t *testing.T, s spread) {
	s.namespaces("platform", "a", "b")
	s.make("platform", "m", config{to: s.everywhere(), data: map[string]string{"k": "1"}, immutable: true})
	s.awaitCopies("an immutable source", "m", "a", "b")
	s.remove("platform", "m")
	s.make("platform", "m", config{to: s.everywhere(), data: map[string]string{"k": "2"}, immutable: true})
	s.awaitCopies("another one", "m", "a", "b")
	s.remove("platform", "m")
	s.make("platform", "m", config{to: s.everywhere(), data: map[string]string{"k": "3"}})
	s.awaitCopies("one that can be changed", "m", "a", "b")
}

func theAPIServerRefuses(t *testing.T, s spread) {
	s.namespaces("platform", "a", "b")
	quotas := shared.Client.CoreV1().ResourceQuotas(s.of("a"))
	quota := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "few"}, Spec: corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{"count/configmaps": resource.MustParse("0")}}}
	_, err := quotas.Create(t.Context(), quota, metav1.CreateOptions{})
	s.check(err)
	cluster.Eventually(t, 20*time.Second, "the quota counts", func() error {
		found, err := quotas.Get(t.Context(), "few", metav1.GetOptions{})
		if err == nil && len(found.Status.Used) == 0 {
			err = errors.New("not yet")
		}
		return err
	})
	s.make("platform", "m", config{to: s.everywhere(), data: map[string]string{"k": "1"}})
	s.awaitCopies("over quota in one", "m", "b")
	status := s.awaitStatus("over quota in one", "m", s.of("a")+": the API server refuses it: ")
	if !strings.Contains(status, "exceeded quota: few") {
		t.Errorf("the status does not tell of the quota: %s", status)
	}
	awaitEvent(t, s.of("platform"), "m", "NotPropagated", "exceeded quota: few")
	s.check(quotas.Delete(t.Context(), "few", metav1.DeleteOptions{}))
	s.awaitCopies("without the quota", "m", "a", "b")
	s.awaitStatus("without the quota", "m", "")
}

func largeObjects(t *testing.T, s spread) {
	s.namespaces("platform", "a", "b")
	s.make("platform", "large", config{to: s.everywhere(), data: map[string]string{"k": strings.Repeat("x", 1<<20-10)}})
	s.awaitCopies("a megabyte", "large", "a", "b")
	many := map[string]string{}
	for i := range 10000 {
		many[fmt.Sprint("key-", i)] = "value"
	}
	s.make("platform", "many", config{to: s.everywhere(), data: many})
	s.awaitCopies("10,000 keys", "many", "a", "b")
}

func namespacesLeave(t *testing.T, s spread) {
	s.namespaces("platform", "a", "b")
	s.make("platform", "m", config{to: s.everywhere(), data: map[string]string{"k": "1"}})
	s.make("b", "stays", config{})
	s.patch("b", "stays", `{"metadata":{"finalizers":["example.com/wait"]}}`)
	s.awaitCopies("at first", "m", "a", "b")
	s.check(shared.Client.CoreV1().Namespaces().Delete(t.Context(), s.of("b"), metav1.DeleteOptions{}))
	s.patch("platform", "m", `{"data":{"k":"2"}}`)
	s.awaitCopies("one is terminating", "m", "a")
	s.awaitStatus("one is terminating", "m", "")
	s.patch("b", "stays", `{"metadata":{"finalizers":null}}`)
	cluster.Eventually(t, 60*time.Second, "it is gone", func() error {
		if _, err := shared.Client.CoreV1().Namespaces().Get(t.Context(), s.of("b"), metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			return fmt.Errorf("it is there: %v", err)
		}
		return nil
	})
	s.namespaces("b")
	s.awaitCopies("and made anew", "m", "a", "b")
}

func twoSources(t *testing.T, s spread) {
	s.namespaces("platform", "a", "b")
	other := spread{t, s.group + "2"}
	other.namespaces("platform")
	s.make("platform", "m", config{to: s.everywhere(), data: map[string]string{"k": "first"}})
	s.awaitCopies("the first", "m", "a", "b")
	born := s.get("platform", "m").CreationTimestamp
	cluster.Eventually(t, 5*time.Second, "the next second", func() error {
		if !time.Now().Truncate(time.Second).After(born.Time) {
			return errors.New("not yet")
		}
		return nil
	})
	other.make("platform", "m", config{to: "team=a,group=" + s.group, data: map[string]string{"k": "second"}})
	other.awaitStatus("the second", "m", s.of("a")+": the ConfigMap of that name in "+s.of("platform")+", which is older, is copied there")
	s.awaitCopies("the first stays", "m", "a", "b")
	uid := s.get("a", "m").UID
	s.remove("platform", "m")
	cluster.Eventually(t, 20*time.Second, "the second takes over", func() error {
		if o := s.get("a", "m"); o.Data["k"] != "second" || o.Labels[propagationFrom] != other.of("platform") {
			return fmt.Errorf("%v of %s", o.Data, o.Labels[propagationFrom])
		}
		return nil
	})
	if s.get("a", "m").UID != uid {
		t.Error("the copy was gone in between")
	}
	other.awaitStatus("the second takes over", "m", "")
}

func badInput(t *testing.T, s spread) {
	s.namespaces("platform", "a")
	s.make("platform", "m", config{to: s.everywhere(), data: map[string]string{"k": "1"}})
	s.awaitCopies("at first", "m", "a")
	for i, value := range []string{"", "team in a", "team=" + strings.Repeat("x", 64), "a,,b"} {
		s.patch("platform", "m", fmt.Sprintf(`{"data":{"k":"wrong %d"},"metadata":{"annotations":{"%s":%q}}}`, i, propagationTo, value))
		status := s.awaitStatus(value, "m", fmt.Sprintf("annotation %s is %q, which is no label selector", propagationTo, value))
		awaitEvent(t, s.of("platform"), "m", "InvalidSource", status)
		if got := s.get("a", "m").Data["k"]; got == fmt.Sprintf("wrong %d", i) {
			t.Errorf("%q: the copy was written: %s", value, got)
		}
		// What the status says to do mends it.
		_, fix, _ := strings.Cut(status, "fix it with: ")
		mend := exec.CommandContext(t.Context(), "sh", "-c", strings.Replace(strings.Replace(fix, "kubectl", shared.Program("kubectl"), 1), "team=a", s.everywhere(), 1))
		mend.Env = append(os.Environ(), "KUBECONFIG="+shared.Kubeconfig)
		if out, err := mend.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", fix, err, out)
		}
		s.awaitCopies(value+" mended", "m", "a")
		s.awaitStatus(value+" mended", "m", "")
	}
	s.patchNamespace("a", `{"metadata":{"annotations":{"`+propagationRefuse+`":"please"}}}`)
	s.awaitCopies("a refusal in other words", "m")
	awaitEvent(t, "default", s.of("a"), "InvalidAnnotation", `is "please", want "true" or "false"`)
	s.patchNamespace("a", `{"metadata":{"annotations":null}}`)
	s.awaitCopies("no refusal", "m", "a")
	s.patch("a", "m", `{"metadata":{"annotations":{"`+propagationTo+`":"group"}}}`)
	awaitEvent(t, s.of("a"), "m", "InvalidSource", "it is itself a copy, of ConfigMap "+s.of("platform")+"/m")
	s.awaitCopies("an annotated copy", "m", "a")
}

func copiesWithFinalizers(t *testing.T, s spread) {
	s.namespaces("platform", "a")
	s.make("platform", "m", config{to: s.everywhere(), data: map[string]string{"k": "1"}})
	s.awaitCopies("at first", "m", "a")
	s.patch("a", "m", `{"metadata":{"finalizers":["example.com/wait"]}}`)
	s.remove("platform", "m")
	cluster.Eventually(t, 20*time.Second, "the copy is deleted", func() error {
		if s.get("a", "m").DeletionTimestamp == nil {
			return errors.New("it is not")
		}
		return nil
	})
	s.make("platform", "m", config{to: s.everywhere(), data: map[string]string{"k": "2"}})
	s.patch("a", "m", `{"metadata":{"finalizers":null}}`)
	s.awaitCopies("it was let go", "m", "a")
}

func secretsOfEachType(t *testing.T, s spread) {
	s.namespaces("platform", "a")
	of := shared.Client.CoreV1().Secrets
	create := func(name string, secretType corev1.SecretType, data map[string]string) {
		t.Helper()
		annotations := map[string]string{propagationTo: s.everywhere(), "kubernetes.io/service-account.name": "default"}
		_, err := of(s.of("platform")).Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: annotations}, Type: secretType, StringData: data}, metav1.CreateOptions{})
		s.check(err)
	}
	await := func(moment, name string) {
		t.Helper()
		cluster.Eventually(t, 20*time.Second, moment, func() error {
			source, err := of(s.of("platform")).Get(t.Context(), name, metav1.GetOptions{})
			s.check(err)
			found, err := of(s.of("a")).Get(t.Context(), name, metav1.GetOptions{})
			if err != nil {
				return err
			}
			if !cmp.Equal(source.Data, found.Data) || source.Type != found.Type {
				return fmt.Errorf("the copy of type %s differs", found.Type)
			}
			return nil
		})
	}
	create("opaque", corev1.SecretTypeOpaque, map[string]string{"password": "hunter1"})
	create("basic", corev1.SecretTypeBasicAuth, map[string]string{"username": "me", "password": "hunter2"})
	create("docker", corev1.SecretTypeDockerConfigJson, map[string]string{".dockerconfigjson": `{"auths":{"x":{"auth":"hunter3"}}}`})
	create("own", "example.com/own", map[string]string{"x": "hunter4"})
	cluster.Eventually(t, 20*time.Second, "the service account, without which its token is deleted", func() error {
		_, err := shared.Client.CoreV1().ServiceAccounts(s.of("platform")).Get(t.Context(), "default", metav1.GetOptions{})
		return err
	})
	create("token", corev1.SecretTypeServiceAccountToken, nil)
	for _, name := range []string{"opaque", "basic", "docker", "own"} {
		await(name, name)
	}
	s.check(of(s.of("platform")).Delete(t.Context(), "own", metav1.DeleteOptions{}))
	create("own", "example.com/other", map[string]string{"y": "hunter5"})
	await("another type", "own")
	_, err := of(s.of("a")).Patch(t.Context(), "opaque", types.MergePatchType, []byte(`{"stringData":{"password":"hunter6","more":"hunter7"}}`), metav1.PatchOptions{})
	s.check(err)
	await("edited by hand", "opaque")
	awaitEvent(t, s.of("platform"), "token", "NotPropagated", "Secrets of type kubernetes.io/service-account-token are not copied")
	if _, err := of(s.of("a")).Get(t.Context(), "token", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the token was copied: %v", err)
	}
}

// TestConfigPropagationOverRestarts: what happens while nobody leads is seen to by the
// next leader, and nothing is written for what is as it should be.
func TestConfigPropagationOverRestarts(t *testing.T) {
	const namespace = "propagation-restarts"
	shared.Namespace(t, namespace)
	s := spread{t, "prestarts"}
	s.namespaces("platform", "a", "b")
	for _, name := range []string{"gone", "changed", "edited", "same"} {
		s.make("platform", name, config{to: s.everywhere(), data: map[string]string{"k": "1"}})
	}
	s.make("b", "foreign", config{data: map[string]string{"mine": "x"}})
	s.make("platform", "foreign", config{to: s.everywhere(), data: map[string]string{"k": "1"}})
	f := newFleet(t, 1, namespace, propagation)
	for _, name := range []string{"gone", "changed", "edited", "same"} {
		s.awaitCopies("at first", name, "a", "b")
	}
	s.awaitStatus("at first", "foreign", "not copied to 1 of")
	f.members[0].Terminate(t)
	s.remove("platform", "gone")
	s.patch("platform", "changed", `{"data":{"k":"2"}}`)
	s.patch("a", "edited", `{"data":{"k":"2"}}`)
	audit := propagationRequests()
	f = newFleet(t, 1, namespace, propagation)
	s.awaitNone("a source is gone", "gone")
	s.awaitCopies("a source has changed", "changed", "a", "b")
	s.awaitCopies("a copy was edited", "edited", "a", "b")
	f.members[0].Terminate(t)
	want := map[string]int{"delete 200": 2, "patch 200": 3}
	if diff := cmp.Diff(want, writesIn(t, audit)); diff != "" {
		t.Errorf("writes of the second manager (-want +got):\n%s", diff)
	}
}

// TestConfigPropagationLeavesSecretsAloneUnlessEnabled is about the requests, too.
func TestConfigPropagationLeavesSecretsAloneUnlessEnabled(t *testing.T) {
	const namespace = "propagation-public"
	shared.Namespace(t, namespace)
	s := spread{t, "ppublic"}
	s.namespaces("platform", "a")
	_, err := shared.Client.CoreV1().Secrets(s.of("platform")).Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s", Annotations: map[string]string{propagationTo: s.everywhere()}}}, metav1.CreateOptions{})
	s.check(err)
	manager := propagationAccount(t, namespace)
	newFleet(t, 1, namespace, propagation, "--kubeconfig="+manager.kubeconfig)
	s.make("platform", "m", config{to: s.everywhere(), data: map[string]string{"k": "1"}})
	s.awaitCopies("a ConfigMap is copied", "m", "a")
	if _, err := shared.Client.CoreV1().Secrets(s.of("a")).Get(t.Context(), "s", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the Secret was copied: %v", err)
	}
	for _, r := range manager.requests(t) {
		if r.ObjectRef.Resource == "secrets" {
			t.Errorf("request for Secrets: %v", r)
		}
	}
}

// propagationRequests returns the part of the audit log that tells of the requests of the
// controller from now on.
func propagationRequests() *cluster.AuditLog { return shared.Audit(time.Now(), " "+propagation+`"`) }

// writesIn counts the writes by verb and code.
func writesIn(t *testing.T, log *cluster.AuditLog) map[string]int {
	t.Helper()
	return countIn(t, log, func(r cluster.Request) string {
		if !r.IsWrite() {
			return ""
		}
		return fmt.Sprintf("%s %d", r.Verb, r.ResponseStatus.Code)
	})
}

// readsIn counts the reads of objects and of pages.
func readsIn(t *testing.T, log *cluster.AuditLog) map[string]int {
	t.Helper()
	return countIn(t, log, func(r cluster.Request) string {
		if r.IsWrite() || r.Verb == "watch" {
			return ""
		}
		return r.Verb + " " + r.ObjectRef.Resource
	})
}

func countIn(t *testing.T, log *cluster.AuditLog, kind func(cluster.Request) string) map[string]int {
	t.Helper()
	requests, err := log.Requests(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]int{}
	for _, r := range requests {
		if k := kind(r); k != "" {
			counts[k]++
		}
	}
	return counts
}
