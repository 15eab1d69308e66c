// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package shipped

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"github.com/incumbent-io/incumbent/test/cluster"
)

const (
	rollout       = "config-rollout"
	rolloutOptIn  = "incumbent.io/rollout-on-config-change"
	rolloutHash   = "incumbent.io/config-hash"
	rolloutRecord = "incumbent.io/config-record"
	rolloutSeal   = "incumbent.io/config-seal"
	rolloutQuiet  = time.Second
)

// rolloutFleet starts n managers with config-rollout in a namespace of the test, with
// no more rights than they need.
func rolloutFleet(t *testing.T, n int, namespace string, args ...string) *fleet {
	t.Helper()
	a := newAccount(t, namespace, "--controllers="+rollout, "--config-rollout-secrets",
		"--leader-elect-resource-namespace="+namespace, "--leader-elect-resource-name="+rollout)
	own := []string{"--kubeconfig=" + a.kubeconfig, "--config-rollout-secrets", "--config-rollout-quiet-period=" + rolloutQuiet.String()}
	if n == 1 { // Nobody is killed, so nothing is gained by losing the lease on a busy machine.
		own = append(own, "--leader-elect-lease-duration=30s", "--leader-elect-renew-deadline=20s", "--leader-elect-retry-period=2s")
	}
	f := newFleet(t, n, namespace, rollout, append(own, args...)...)
	f.account = a
	return f
}

// workloads are the workloads of one namespace, of whatever kind.
type workloads struct {
	t         *testing.T
	namespace string
	client    dynamic.Interface
	story     *chronicle
}

func workloadsIn(t *testing.T, namespace string) workloads {
	t.Helper()
	client, err := dynamic.NewForConfig(shared.REST)
	if err != nil {
		t.Fatal(err)
	}
	w := workloads{t, namespace, client, newChronicle()}
	w.keepChronicle()
	return w
}

var workloadKinds = []string{"Deployment", "StatefulSet", "DaemonSet"}

// of returns the client of one kind.
func (w workloads) of(kind string) dynamic.ResourceInterface {
	return w.client.Resource(appsv1.SchemeGroupVersion.WithResource(strings.ToLower(kind) + "s")).Namespace(w.namespace)
}

// make returns a workload that runs no Pods. optIn is the value of the annotation.
func (w workloads) make(kind, name, optIn string, pod corev1.PodSpec) *unstructured.Unstructured {
	w.t.Helper()
	if len(pod.Containers) == 0 {
		pod.Containers = []corev1.Container{{}}
	}
	for _, list := range [][]corev1.Container{pod.InitContainers, pod.Containers} {
		for i := range list {
			list[i].Name, list[i].Image = fmt.Sprintf("c%d", i), "incumbent-io/manager"
		}
	}
	pod.NodeSelector = map[string]string{"incumbent.io/no-node": "has-this"}
	if len(pod.InitContainers) > 0 {
		pod.InitContainers[0].Name = "init"
	}
	labels := map[string]string{"app": name}
	spec := map[string]any{
		"selector": map[string]any{"matchLabels": labels},
		"template": corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: pod},
	}
	switch kind {
	case "Deployment":
		spec["replicas"] = 0
	case "StatefulSet":
		spec["replicas"], spec["serviceName"] = 0, name
	}
	object := map[string]any{
		"apiVersion": "apps/v1", "kind": kind,
		"metadata": map[string]any{"namespace": w.namespace, "name": name, "annotations": map[string]any{"example.com/mine": "x"}}, "spec": spec,
	}
	if optIn != "" {
		object["metadata"].(map[string]any)["annotations"] = map[string]any{"example.com/mine": "x", rolloutOptIn: optIn}
	}
	text, err := json.Marshal(object)
	if err != nil {
		w.t.Fatal(err)
	}
	u := &unstructured.Unstructured{}
	if err := json.Unmarshal(text, &u.Object); err != nil {
		w.t.Fatal(err)
	}
	return u
}

func (w workloads) create(kind, name, optIn string, pod corev1.PodSpec) {
	w.t.Helper()
	if _, err := w.of(kind).Create(w.t.Context(), w.make(kind, name, optIn, pod), metav1.CreateOptions{}); err != nil {
		w.t.Fatal(err)
	}
}

func (w workloads) get(kind, name string) *unstructured.Unstructured {
	w.t.Helper()
	found, err := w.of(kind).Get(w.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	return found
}

func (w workloads) patch(kind, name, patch string) {
	w.t.Helper()
	if _, err := w.of(kind).Patch(w.t.Context(), name, types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		w.t.Fatal(err)
	}
}

// awaitRecord waits until the controller has recorded what the workload refers to.
func (w workloads) awaitRecord(kind, name string) {
	w.t.Helper()
	cluster.Eventually(w.t, 20*time.Second, "record of "+kind+" "+name, func() error {
		if w.get(kind, name).GetLabels()[rolloutSeal] == "" {
			return errors.New("there is none")
		}
		return nil
	})
}

// rollouts counts how often the controller has rolled the workload of that name as it
// is now: each rollout has a hash that was not there before.
func (w workloads) rollouts(kind, name string) int {
	w.t.Helper()
	object := w.get(kind, name)
	var hashes map[string]bool
	cluster.Eventually(w.t, 20*time.Second, "the chronicle of "+kind+" "+name, func() error {
		hashes = map[string]bool{}
		for _, state := range w.story.of(object.GetUID()) {
			if hash := hashOn(state); hash != "" {
				hashes[hash] = true
			}
			if state.GetResourceVersion() == object.GetResourceVersion() {
				return nil
			}
		}
		return errors.New("its last state is not there yet")
	})
	return len(hashes)
}

// awaitRollouts waits until the workload has been rolled so often.
func (w workloads) awaitRollouts(kind, name string, want int) {
	w.t.Helper()
	cluster.Eventually(w.t, 20*time.Second, fmt.Sprintf("rollout %d of %s %s", want, kind, name), func() error {
		if got := w.rollouts(kind, name); got != want {
			return fmt.Errorf("there were %d", got)
		}
		return nil
	})
}

// expectRollouts fails if the workload has been rolled another number of times.
func (w workloads) expectRollouts(when, kind, name string, want int) {
	w.t.Helper()
	if got := w.rollouts(kind, name); got != want {
		w.t.Errorf("%s: %s %s has been rolled %d times, want %d", when, kind, name, got, want)
	}
}

// barrier returns once the controller has done what follows from all that was written
// before: it changes what a workload of its own refers to, and waits for its rollout.
// Whatever else was to be rolled became due before that.
func (w workloads) barrier() {
	w.t.Helper()
	const name = "barrier"
	if _, err := w.of("Deployment").Get(w.t.Context(), name, metav1.GetOptions{}); apierrors.IsNotFound(err) {
		w.configMap(name, map[string]string{"k": "0"})
		w.create("Deployment", name, "true", envFrom(name))
		w.awaitRecord("Deployment", name)
	}
	before := w.rollouts("Deployment", name)
	w.configMap(name, map[string]string{"k": fmt.Sprint("rollout ", before+1)})
	w.awaitRollouts("Deployment", name, before+1)
}

// configMap creates the ConfigMap or changes its data, and nothing else of it.
func (w workloads) configMap(name string, data map[string]string) {
	w.t.Helper()
	maps := shared.Client.CoreV1().ConfigMaps(w.namespace)
	found, err := maps.Get(w.t.Context(), name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		_, err = maps.Create(w.t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: data}, metav1.CreateOptions{})
	} else if err == nil {
		found.Data = data
		_, err = maps.Update(w.t.Context(), found, metav1.UpdateOptions{})
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// secret creates the Secret or changes its data.
func (w workloads) secret(name string, data map[string]string) {
	w.t.Helper()
	secrets := shared.Client.CoreV1().Secrets(w.namespace)
	found, err := secrets.Get(w.t.Context(), name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		_, err = secrets.Create(w.t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, StringData: data}, metav1.CreateOptions{})
	} else if err == nil {
		found.Data, found.StringData = nil, data
		_, err = secrets.Update(w.t.Context(), found, metav1.UpdateOptions{})
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w workloads) remove(name string) {
	w.t.Helper()
	if err := shared.Client.CoreV1().ConfigMaps(w.namespace).Delete(w.t.Context(), name, metav1.DeleteOptions{}); err != nil {
		w.t.Fatal(err)
	}
}

// revisions counts the ReplicaSets of a Deployment.
func (w workloads) revisions(name string) int {
	w.t.Helper()
	list, err := shared.Client.AppsV1().ReplicaSets(w.namespace).List(w.t.Context(), metav1.ListOptions{LabelSelector: "app=" + name})
	if err != nil {
		w.t.Fatal(err)
	}
	return len(list.Items)
}

// awaitEvent waits for an Event about the workload whose note has all of the texts.
func (w workloads) awaitEvent(name, reason string, texts ...string) {
	w.t.Helper()
	cluster.Eventually(w.t, 20*time.Second, "Event "+reason+" on "+name, func() error {
		list, err := shared.Client.EventsV1().Events(w.namespace).List(w.t.Context(), metav1.ListOptions{})
		if err != nil {
			return err
		}
		var notes []string
		for _, event := range list.Items {
			if event.Regarding.Name != name || event.Reason != reason {
				continue
			}
			all := true
			for _, text := range texts {
				all = all && strings.Contains(event.Note, text)
			}
			if all {
				return nil
			}
			notes = append(notes, event.Note)
		}
		return fmt.Errorf("got the notes %q, want one with %q", notes, texts)
	})
}

// The ways to refer to a ConfigMap.

func ref(name string) corev1.LocalObjectReference { return corev1.LocalObjectReference{Name: name} }

func envFrom(name string) corev1.PodSpec {
	return corev1.PodSpec{Containers: []corev1.Container{{EnvFrom: []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: ref(name)}}}}}}
}

func optionalEnvFrom(name string) corev1.PodSpec {
	pod := envFrom(name)
	pod.Containers[0].EnvFrom[0].ConfigMapRef.Optional = new(true)
	return pod
}

func envOf(name string) []corev1.EnvVar {
	return []corev1.EnvVar{{Name: "E", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: ref(name), Key: "k"}}}}
}

func volume(from corev1.VolumeSource) corev1.PodSpec {
	return corev1.PodSpec{Volumes: []corev1.Volume{{Name: "v", VolumeSource: from}}}
}

var itemK = []corev1.KeyToPath{{Key: "k", Path: "p"}}

// waysToRefer are Pods that see the key k of the ConfigMap and the Secret called n.
// Those whose name ends in "key" see nothing but that.
func waysToRefer(n string) map[string]corev1.PodSpec {
	return map[string]corev1.PodSpec{
		"env-key":         {Containers: []corev1.Container{{Env: envOf(n)}}},
		"env-from":        envFrom(n),
		"init-env-key":    {InitContainers: []corev1.Container{{Env: envOf(n)}}},
		"init-env-from":   {InitContainers: envFrom(n).Containers},
		"volume":          volume(corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: ref(n)}}),
		"volume-key":      volume(corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: ref(n), Items: itemK}}),
		"projected":       volume(corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: ref(n)}}}}}),
		"projected-key":   volume(corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: ref(n), Items: itemK}}}}}),
		"s-env-key":       {Containers: []corev1.Container{{Env: []corev1.EnvVar{{Name: "E", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: ref(n), Key: "k"}}}}}}},
		"s-env-from":      {Containers: []corev1.Container{{EnvFrom: []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: ref(n)}}}}}},
		"s-volume":        volume(corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: n}}),
		"s-volume-key":    volume(corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: n, Items: itemK}}),
		"s-projected":     volume(corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{{Secret: &corev1.SecretProjection{LocalObjectReference: ref(n)}}}}}),
		"s-projected-key": volume(corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{{Secret: &corev1.SecretProjection{LocalObjectReference: ref(n), Items: itemK}}}}}),
	}
}

// TestConfigRollout shows, workload by workload, what is rolled and what is not. The
// managers are the same for all, and see all of it at the same time.
func TestConfigRollout(t *testing.T) {
	shared.Namespace(t, "rollout")
	f := rolloutFleet(t, 1, "rollout", "-v=10")
	for name, test := range map[string]func(*testing.T, workloads){
		"references":      everyKindOfReference,
		"binary-data":     binaryDataAndImmutable,
		"burst":           aBurstIsOneRollout,
		"paused":          pausedIsRespected,
		"missing":         missingReferences,
		"bad-annotation":  badAnnotation,
		"undo":            undoSticks,
		"opting":          optingInAndOut,
		"three-writers":   threeWriters,
		"new-references":  aChangedTemplateIsNoChangeOfContent,
		"recreated":       aWorkloadThatIsMadeAnew,
		"another-tenants": onlyTheOwnNamespaceCounts,
		"replaced":        replacedByFile,
		"many-references": manyReferences,
		"on-delete":       onDeleteLeavesThePods,
		"scaled":          anAutoscalerIsNotDisturbed,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			namespace := "rollout-" + name
			shared.Namespace(t, namespace)
			test(t, workloadsIn(t, namespace))
		})
	}
	t.Cleanup(func() { // after the parallel tests
		if log := f.members[0].Log(); strings.Contains(log, "hunter") {
			t.Error("the content of a Secret is in the log")
		}
		f.account.check(t, "configmaps", "secrets", "deployments", "statefulsets", "daemonsets")
	})
}

func everyKindOfReference(t *testing.T, w workloads) {
	ways := waysToRefer("app")
	w.configMap("app", map[string]string{"k": "1", "other": "1"})
	w.secret("app", map[string]string{"k": "hunter1", "other": "hunter1"})
	for name, pod := range ways {
		for _, kind := range workloadKinds {
			w.create(kind, name, "true", pod)
		}
	}
	each := func(do func(kind, name string)) {
		for name := range ways {
			for _, kind := range workloadKinds {
				do(kind, name)
			}
		}
	}
	each(w.awaitRecord)
	each(func(kind, name string) { w.expectRollouts("opted in", kind, name, 0) })

	shared.Kubectl(t, "label", "configmap,secret", "-n", w.namespace, "app", "touched=yes")
	shared.Kubectl(t, "annotate", "configmap,secret", "-n", w.namespace, "app", "touched=yes")
	w.barrier()
	each(func(kind, name string) { w.expectRollouts("metadata changed", kind, name, 0) })

	w.configMap("app", map[string]string{"k": "1", "other": "2"})
	w.secret("app", map[string]string{"k": "hunter1", "other": "hunter2"})
	w.barrier()
	rollouts := func(name string) int {
		if strings.HasSuffix(name, "key") {
			return 0
		}
		return 1
	}
	each(func(kind, name string) { w.expectRollouts("another key changed", kind, name, rollouts(name)) })

	w.configMap("app", map[string]string{"k": "2", "other": "2"})
	w.secret("app", map[string]string{"k": "hunter2", "other": "hunter2"})
	w.barrier()
	each(func(kind, name string) { w.expectRollouts("the key changed", kind, name, rollouts(name)+1) })
	w.awaitEvent("env-key", "RolloutTriggered", "configmap/app")
	w.awaitEvent("s-volume", "RolloutTriggered", "secret/app")
	each(func(kind, name string) {
		if hashOn(w.get(kind, name)) == "" {
			t.Errorf("%s %s has no hash on its Pod template", kind, name)
		}
	})
}

func binaryDataAndImmutable(t *testing.T, w workloads) {
	maps := shared.Client.CoreV1().ConfigMaps(w.namespace)
	object, err := maps.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "app"}, BinaryData: map[string][]byte{"k": {0xff}}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	w.create("Deployment", "binary", "true", waysToRefer("app")["volume-key"])
	w.awaitRecord("Deployment", "binary")
	object.Immutable = new(true)
	if object, err = maps.Update(t.Context(), object, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	w.barrier()
	w.expectRollouts("made immutable", "Deployment", "binary", 0)

	w.remove("app")
	object.BinaryData, object.ResourceVersion, object.UID = map[string][]byte{"k": {0xfe}}, "", ""
	if _, err := maps.Create(t.Context(), object, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	w.barrier()
	w.expectRollouts("an immutable one was replaced", "Deployment", "binary", 1)
}

func aBurstIsOneRollout(t *testing.T, w workloads) {
	w.configMap("app", map[string]string{"k": "1"})
	w.configMap("too", map[string]string{"k": "1"})
	pod := envFrom("app")
	pod.Containers = append(pod.Containers, envFrom("too").Containers...)
	w.create("Deployment", "burst", "true", pod)
	w.awaitRecord("Deployment", "burst")
	cluster.Eventually(t, 20*time.Second, "a ReplicaSet", func() error {
		if n := w.revisions("burst"); n != 1 {
			return fmt.Errorf("there are %d", n)
		}
		return nil
	})
	for i := range 20 {
		w.configMap("app", map[string]string{"k": fmt.Sprint("a", i)})
		w.configMap("too", map[string]string{"k": fmt.Sprint("b", i)})
	}
	w.barrier()
	w.expectRollouts("after the burst", "Deployment", "burst", 1)
	w.awaitEvent("burst", "RolloutTriggered", "configmap/app, configmap/too")
	cluster.Eventually(t, 20*time.Second, "a second ReplicaSet", func() error {
		if n := w.revisions("burst"); n != 2 {
			return fmt.Errorf("there are %d", n)
		}
		return nil
	})

	w.configMap("app", map[string]string{"k": "back soon"})
	w.configMap("app", map[string]string{"k": "a19"})
	w.barrier()
	w.expectRollouts("changed and changed back", "Deployment", "burst", 1)
}

func pausedIsRespected(t *testing.T, w workloads) {
	w.configMap("app", map[string]string{"k": "1"})
	w.create("Deployment", "paused", "true", envFrom("app"))
	w.awaitRecord("Deployment", "paused")
	w.patch("Deployment", "paused", `{"spec":{"paused":true}}`)
	w.configMap("app", map[string]string{"k": "2"})
	w.barrier()
	w.expectRollouts("changed while paused", "Deployment", "paused", 0)
	w.awaitEvent("paused", "RolloutHeld", "configmap/app", "paused")
	w.patch("Deployment", "paused", `{"spec":{"paused":false}}`)
	w.awaitRollouts("Deployment", "paused", 1)
	w.barrier()
	w.expectRollouts("long after", "Deployment", "paused", 1)
}

// onDeleteLeavesThePods to whoever deletes them.
func onDeleteLeavesThePods(t *testing.T, w workloads) {
	w.configMap("app", map[string]string{"k": "1"})
	w.create("StatefulSet", "set", "true", envFrom("app"))
	w.patch("StatefulSet", "set", `{"spec":{"replicas":1,"updateStrategy":{"type":"OnDelete","rollingUpdate":null}}}`)
	w.awaitRecord("StatefulSet", "set")
	pods := shared.Client.CoreV1().Pods(w.namespace)
	pod := func(what string, right func(*corev1.Pod) bool) (found *corev1.Pod) {
		t.Helper()
		cluster.Eventually(t, 20*time.Second, what, func() (err error) {
			if found, err = pods.Get(t.Context(), "set-0", metav1.GetOptions{}); err == nil && !right(found) {
				err = fmt.Errorf("the Pod is %s with annotations %v", found.UID, found.Annotations)
			}
			return err
		})
		return found
	}
	first := pod("a Pod", func(*corev1.Pod) bool { return true })
	w.configMap("app", map[string]string{"k": "2"})
	w.awaitRollouts("StatefulSet", "set", 1)
	cluster.Eventually(t, 20*time.Second, "the StatefulSet's controller knows the template", func() error {
		status := w.get("StatefulSet", "set").Object["status"].(map[string]any)
		if status["updateRevision"] == status["currentRevision"] {
			return fmt.Errorf("the status is %v", status)
		}
		return nil
	})
	w.barrier() // time in which a rolling update would have replaced it
	if now, err := pods.Get(t.Context(), "set-0", metav1.GetOptions{}); err != nil || now.UID != first.UID || now.DeletionTimestamp != nil {
		t.Errorf("the Pod was not left alone: got %v (%v)", now, err)
	}
	if err := pods.Delete(t.Context(), "set-0", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	hash := hashOn(w.get("StatefulSet", "set"))
	pod("the next Pod has the template", func(p *corev1.Pod) bool { return p.UID != first.UID && p.Annotations[rolloutHash] == hash })
}

// anAutoscalerIsNotDisturbed writes replicas without a pause until a rollout has come.
func anAutoscalerIsNotDisturbed(t *testing.T, w workloads) {
	w.configMap("app", map[string]string{"k": "1"})
	w.create("Deployment", "scaled", "true", envFrom("app"))
	w.awaitRecord("Deployment", "scaled")
	w.configMap("app", map[string]string{"k": "2"})
	var replicas int64
	cluster.Eventually(t, 20*time.Second, "a rollout", func() error {
		replicas = replicas%3 + 1
		scale := fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, replicas)
		if _, err := w.of("Deployment").Patch(t.Context(), "scaled", types.MergePatchType, scale, metav1.PatchOptions{}, "scale"); err != nil {
			return err
		}
		if hashOn(w.get("Deployment", "scaled")) == "" {
			return errors.New("there was none")
		}
		return nil
	})
	w.barrier()
	w.expectRollouts("scaled meanwhile", "Deployment", "scaled", 1)
	if got, _, _ := unstructured.NestedInt64(w.get("Deployment", "scaled").Object, "spec", "replicas"); got != replicas {
		t.Errorf("got %d replicas, want %d as they were last written", got, replicas)
	}
}

func missingReferences(t *testing.T, w workloads) {
	w.configMap("app", map[string]string{"k": "1"})
	w.configMap("too", map[string]string{"k": "1"})
	pod := envFrom("app")
	pod.Containers = append(pod.Containers, envFrom("too").Containers...)
	w.create("Deployment", "required", "true", pod)
	w.create("Deployment", "optional", "true", optionalEnvFrom("app"))
	w.create("StatefulSet", "early", "true", envFrom("late"))
	w.create("DaemonSet", "never", "true", optionalEnvFrom("late"))
	for _, name := range []string{"required", "optional"} {
		w.awaitRecord("Deployment", name)
	}
	w.awaitRecord("DaemonSet", "never")
	both := func(when string, required, optional int) {
		t.Helper()
		w.barrier()
		w.expectRollouts(when, "Deployment", "required", required)
		w.expectRollouts(when, "Deployment", "optional", optional)
	}

	w.remove("app")
	both("deleted", 0, 0)
	w.configMap("app", map[string]string{"k": "1"})
	both("back as it was", 0, 0)
	w.remove("app")
	w.barrier()
	w.configMap("too", map[string]string{"k": "2"})
	both("another changed while a required one is missing", 0, 0)
	w.awaitEvent("required", "RolloutHeld", "configmap/too", "missing: configmap/app")
	w.configMap("app", map[string]string{"k": "2"})
	both("back with other content", 1, 1)

	w.configMap("late", map[string]string{"k": "1"})
	w.awaitRecord("StatefulSet", "early")
	w.barrier()
	w.expectRollouts("what Pods were waiting for appeared", "StatefulSet", "early", 0)
	w.awaitRollouts("DaemonSet", "never", 1)
	w.configMap("late", map[string]string{"k": "2"})
	w.awaitRollouts("StatefulSet", "early", 1)
}

func badAnnotation(t *testing.T, w workloads) {
	w.configMap("app", map[string]string{"k": "1"})
	w.create("Deployment", "bad", "yes", envFrom("app"))
	w.awaitEvent("bad", "InvalidAnnotation", `"yes"`, `"true" or "false"`, "kubectl annotate deployment bad incumbent.io/rollout-on-config-change=true --overwrite")
	w.configMap("app", map[string]string{"k": "2"})
	w.barrier()
	w.expectRollouts("with a bad annotation", "Deployment", "bad", 0)
	shared.Kubectl(t, "annotate", "deployment", "bad", "-n", w.namespace, "incumbent.io/rollout-on-config-change=true", "--overwrite")
	w.awaitRecord("Deployment", "bad")
	w.configMap("app", map[string]string{"k": "3"})
	w.awaitRollouts("Deployment", "bad", 1)
}

// undoSticks: whoever undoes a rollout does not see it come back, and the next change
// counts again.
func undoSticks(t *testing.T, w workloads) {
	w.configMap("app", map[string]string{"k": "1"})
	w.create("Deployment", "undone", "true", envFrom("app"))
	w.create("StatefulSet", "undone", "true", envFrom("app"))
	for i, kind := range workloadKinds[:2] {
		w.awaitRecord(kind, "undone")
		if i == 0 {
			cluster.Eventually(t, 20*time.Second, "a ReplicaSet with the record", func() error {
				list, err := shared.Client.AppsV1().ReplicaSets(w.namespace).List(t.Context(), metav1.ListOptions{LabelSelector: "app=undone"})
				if err != nil || len(list.Items) != 1 || list.Items[0].Annotations[rolloutRecord] == "" {
					return fmt.Errorf("%d, %w", len(list.Items), err)
				}
				return nil
			})
		}
	}
	w.configMap("app", map[string]string{"k": "2"})
	for _, kind := range workloadKinds[:2] {
		w.awaitRollouts(kind, "undone", 1)
		cluster.Eventually(t, 20*time.Second, "two revisions", func() error {
			_, err := shared.Run(t.Context(), "kubectl", "rollout", "undo", strings.ToLower(kind)+"/undone", "-n", w.namespace)
			return err
		})
		cluster.Eventually(t, 20*time.Second, "undone", func() error {
			if hash := hashOn(w.get(kind, "undone")); hash != "" {
				return errors.New("the hash is still there: " + hash)
			}
			return nil
		})
	}
	w.barrier()
	for _, kind := range workloadKinds[:2] {
		w.expectRollouts("undone", kind, "undone", 1)
	}
	w.configMap("app", map[string]string{"k": "1"})
	w.barrier()
	for _, kind := range workloadKinds[:2] {
		w.expectRollouts("changed after the undo", kind, "undone", 2)
	}
}

func optingInAndOut(t *testing.T, w workloads) {
	w.configMap("app", map[string]string{"k": "1"})
	w.create("Deployment", "opting", "", envFrom("app"))
	w.create("Deployment", "never", "", envFrom("app"))
	w.create("Deployment", "not", "false", envFrom("app"))
	w.configMap("app", map[string]string{"k": "2"})
	w.barrier()
	w.expectRollouts("not opted in", "Deployment", "opting", 0)
	w.patch("Deployment", "opting", `{"metadata":{"annotations":{"incumbent.io/rollout-on-config-change":"true"}}}`)
	w.awaitRecord("Deployment", "opting")
	w.configMap("app", map[string]string{"k": "3"})
	w.awaitRollouts("Deployment", "opting", 1)
	w.patch("Deployment", "opting", `{"metadata":{"annotations":{"incumbent.io/rollout-on-config-change":null}}}`)
	cluster.Eventually(t, 20*time.Second, "nothing recorded after opting out", func() error {
		o := w.get("Deployment", "opting")
		if o.GetLabels()[rolloutSeal] != "" || o.GetAnnotations()[rolloutRecord] != "" {
			return errors.New("it is still there")
		}
		return nil
	})
	w.configMap("app", map[string]string{"k": "4"})
	w.barrier()
	w.expectRollouts("opted out", "Deployment", "opting", 1)
	w.patch("Deployment", "opting", `{"metadata":{"annotations":{"incumbent.io/rollout-on-config-change":"true"}}}`)
	w.awaitRecord("Deployment", "opting")
	w.barrier()
	w.expectRollouts("opted in again", "Deployment", "opting", 1)
	for _, name := range []string{"never", "not"} {
		for _, field := range w.get("Deployment", name).GetManagedFields() {
			if field.Manager == "incumbent-"+rollout {
				t.Errorf("%s was written: %v", name, field.FieldsV1)
			}
		}
		w.expectRollouts("not opted in", "Deployment", name, 0)
	}
}

// threeWriters change each workload all the time, while it is rolled.
func threeWriters(t *testing.T, w workloads) {
	w.configMap("app", map[string]string{"k": "1"})
	for _, kind := range workloadKinds {
		w.create(kind, "busy", "true", envFrom("app"))
	}
	for _, kind := range workloadKinds {
		w.awaitRecord(kind, "busy")
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var writers sync.WaitGroup
	for i := range 3 * len(workloadKinds) {
		kind := workloadKinds[i%len(workloadKinds)]
		writers.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				patch := fmt.Sprintf(`{"metadata":{"annotations":{"example.com/w%d":"%d"}},"spec":{"revisionHistoryLimit":%d}}`, i, n, 10+n%2)
				if _, err := w.of(kind).Patch(ctx, "busy", types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil && ctx.Err() == nil {
					t.Error(err)
					return
				}
				time.Sleep(2 * time.Millisecond)
			}
		})
	}
	for i := range 3 {
		w.configMap("app", map[string]string{"k": fmt.Sprint("new", i)})
		for _, kind := range workloadKinds {
			w.awaitRollouts(kind, "busy", i+1)
		}
	}
	w.barrier()
	stop()
	writers.Wait()
	for _, kind := range workloadKinds {
		w.expectRollouts("after three changes", kind, "busy", 3)
		if got := w.get(kind, "busy").GetAnnotations()["example.com/mine"]; got != "x" {
			t.Errorf("a foreign annotation is %q, want x", got)
		}
	}
}

// replacedByFile: kubectl replace leaves nothing that is not in its file.
func replacedByFile(t *testing.T, w workloads) {
	w.configMap("app", map[string]string{"k": "1"})
	w.create("StatefulSet", "replaced", "true", envFrom("app"))
	w.awaitRecord("StatefulSet", "replaced")
	plain := w.make("StatefulSet", "replaced", "true", envFrom("app"))
	replace := func() {
		t.Helper()
		if _, err := w.of("StatefulSet").Update(t.Context(), plain, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	replace()
	w.barrier()
	w.expectRollouts("replaced", "StatefulSet", "replaced", 0)
	w.configMap("app", map[string]string{"k": "2"})
	replace()
	w.barrier()
	w.expectRollouts("replaced in the quiet period", "StatefulSet", "replaced", 1)
	replace()
	w.barrier()
	w.expectRollouts("the hash is replaced, too", "StatefulSet", "replaced", 1)
	w.awaitRecord("StatefulSet", "replaced")
}

// manyReferences has a record near the limit of what annotations may hold.
func manyReferences(t *testing.T, w workloads) {
	const keys = 1500
	data := map[string]string{}
	pod := corev1.PodSpec{Containers: []corev1.Container{{}}}
	for i := range keys {
		key := fmt.Sprint("key-", i)
		data[key] = "1"
		pod.Containers[0].Env = append(pod.Containers[0].Env, corev1.EnvVar{Name: fmt.Sprint("E", i), ValueFrom: &corev1.EnvVarSource{
			ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: ref("app"), Key: key},
		}})
	}
	w.configMap("app", data)
	w.create("Deployment", "many", "true", pod)
	w.awaitRecord("Deployment", "many")
	t.Logf("%d keys of one ConfigMap make a record of %d bytes", keys, len(w.get("Deployment", "many").GetAnnotations()[rolloutRecord]))
	data["key-77"] = "2"
	w.configMap("app", data)
	w.awaitRollouts("Deployment", "many", 1)

	crowded := w.make("Deployment", "crowded", "true", pod)
	crowded.SetAnnotations(map[string]string{rolloutOptIn: "true", "example.com/big": strings.Repeat("x", 220<<10)})
	if _, err := w.of("Deployment").Create(t.Context(), crowded, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	w.awaitEvent("crowded", "RecordFailed", "annotations", "262144")
	w.patch("Deployment", "crowded", `{"metadata":{"annotations":{"example.com/big":null}}}`)
	w.awaitRecord("Deployment", "crowded")
}

func aChangedTemplateIsNoChangeOfContent(t *testing.T, w workloads) {
	w.configMap("app", map[string]string{"k": "1"})
	w.configMap("too", map[string]string{"k": "1"})
	w.create("Deployment", "changing", "true", envFrom("app"))
	w.awaitRecord("Deployment", "changing")
	w.patch("Deployment", "changing", `{"spec":{"template":{"spec":{"containers":[{"name":"c0","image":"incumbent-io/manager","envFrom":[{"configMapRef":{"name":"too"}}]}]}}}}`)
	w.barrier()
	w.expectRollouts("another reference", "Deployment", "changing", 0)
	w.configMap("app", map[string]string{"k": "2"})
	w.barrier()
	w.expectRollouts("what it referred to before changed", "Deployment", "changing", 0)
	w.configMap("too", map[string]string{"k": "2"})
	w.barrier()
	w.expectRollouts("what it refers to now changed", "Deployment", "changing", 1)
}

func aWorkloadThatIsMadeAnew(t *testing.T, w workloads) {
	w.configMap("app", map[string]string{"k": "1"})
	w.create("Deployment", "anew", "true", envFrom("app"))
	w.awaitRecord("Deployment", "anew")
	saved := w.get("Deployment", "anew")
	w.configMap("app", map[string]string{"k": "2"})
	w.awaitRollouts("Deployment", "anew", 1)
	if err := w.of("Deployment").Delete(t.Context(), "anew", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	saved.SetResourceVersion("")
	saved.SetUID("")
	cluster.Eventually(t, 20*time.Second, "restored from a copy", func() error {
		_, err := w.of("Deployment").Create(t.Context(), saved, metav1.CreateOptions{})
		return err
	})
	seal := saved.GetLabels()[rolloutSeal]
	cluster.Eventually(t, 20*time.Second, "a record of its own", func() error {
		if w.get("Deployment", "anew").GetLabels()[rolloutSeal] == seal {
			return errors.New("it still has that of the copied one")
		}
		return nil
	})
	w.barrier()
	w.expectRollouts("made from a copy", "Deployment", "anew", 0)
}

func onlyTheOwnNamespaceCounts(t *testing.T, w workloads) {
	shared.Namespace(t, w.namespace+"-2")
	other := workloadsIn(t, w.namespace+"-2")
	w.configMap("app", map[string]string{"k": "1"})
	other.configMap("app", map[string]string{"k": "1"})
	w.create("Deployment", "mine", "true", envFrom("app"))
	other.create("Deployment", "theirs", "true", envFrom("app"))
	w.awaitRecord("Deployment", "mine")
	other.awaitRecord("Deployment", "theirs")
	other.configMap("app", map[string]string{"k": "2"})
	other.awaitRollouts("Deployment", "theirs", 1)
	w.barrier()
	w.expectRollouts("another namespace's ConfigMap changed", "Deployment", "mine", 0)
}

// TestConfigRolloutOverRestarts: a start rolls nothing, unless content has changed while
// nobody led.
func TestConfigRolloutOverRestarts(t *testing.T) {
	const namespace = "rollout-restarts"
	shared.Namespace(t, namespace)
	w := workloadsIn(t, namespace)
	w.configMap("app", map[string]string{"k": "1"})
	w.configMap("too", map[string]string{"k": "1"})
	w.secret("app", map[string]string{"k": "hunter1"})
	pod := waysToRefer("app")["s-env-key"]
	pod.Containers = append(pod.Containers, envFrom("app").Containers...)
	w.create("Deployment", "changed", "true", pod)
	w.create("Deployment", "same", "true", envFrom("too"))
	f := rolloutFleet(t, 2, namespace)
	both := func(when string, changed, same int) {
		t.Helper()
		w.awaitRollouts("Deployment", "changed", changed)
		w.barrier() // may come before what the start brings
		w.barrier()
		w.expectRollouts(when, "Deployment", "changed", changed)
		w.expectRollouts(when, "Deployment", "same", same)
	}
	w.awaitRecord("Deployment", "changed")
	w.awaitRecord("Deployment", "same")
	both("at the first start", 0, 0)
	before := w.get("Deployment", "changed").GetResourceVersion()
	f.restart(t, func() {})
	both("after a restart", 0, 0)
	if after := w.get("Deployment", "changed").GetResourceVersion(); after != before {
		t.Errorf("a restart wrote: resourceVersion %s became %s", before, after)
	}
	f.killLeader(t)
	both("after the leader was killed", 0, 0)
	f.restart(t, func() { w.configMap("app", map[string]string{"k": "2"}) })
	both("a ConfigMap changed while nobody led", 1, 0)
	f.restart(t, func() { w.secret("app", map[string]string{"k": "hunter2"}) })
	both("a Secret changed while nobody led", 2, 0)
	f.restart(t, func() {
		shared.Kubectl(t, "label", "configmap", "-n", namespace, "app", "too", "touched=yes")
	})
	both("metadata changed while nobody led", 2, 0)
}

// TestConfigRolloutOfTwoManagers: they must not go on for ever about what to record, and
// one says so. Nothing is rolled twice.
func TestConfigRolloutOfTwoManagers(t *testing.T) {
	const one, two = "rollout-one", "rollout-two"
	shared.Namespace(t, one)
	shared.Namespace(t, two)
	w := workloadsIn(t, one)
	w.configMap("app", map[string]string{"k": "1"})
	w.secret("app", map[string]string{"k": "hunter1"})
	pod := envFrom("app")
	pod.Containers = append(pod.Containers, waysToRefer("app")["s-env-key"].Containers...)
	w.create("Deployment", "contested", "true", pod)
	rolloutFleet(t, 1, one)
	rolloutFleet(t, 1, two)
	w.awaitEvent("contested", "RecordContested", "Another manager", "one manager of a cluster only")
	for i := range 3 {
		w.configMap("app", map[string]string{"k": fmt.Sprint("new", i)})
		w.awaitRollouts("Deployment", "contested", i+1)
		w.barrier()
		w.expectRollouts("a change of a ConfigMap", "Deployment", "contested", i+1)
	}
	w.secret("app", map[string]string{"k": "hunter2"})
	w.awaitRollouts("Deployment", "contested", 4)
	w.barrier()
	w.expectRollouts("a change of a Secret", "Deployment", "contested", 4)
	states := len(w.story.of(w.get("Deployment", "contested").GetUID()))
	w.barrier()
	if now := len(w.story.of(w.get("Deployment", "contested").GetUID())); now != states || now > 50 {
		t.Errorf("the workload had %d states, and then %d, want no more than 50 and no more of them", states, now)
	}
}

// TestConfigRolloutTellsNothingOfSecrets is about what others can learn of Secrets from
// what is written on workloads.
func TestConfigRolloutTellsNothingOfSecrets(t *testing.T) {
	const namespace = "rollout-secrets"
	shared.Namespace(t, namespace)
	w := workloadsIn(t, namespace)
	w.secret("one", map[string]string{"k": "hunter1"})
	w.secret("two", map[string]string{"k": "hunter1"})
	pod := waysToRefer("one")["s-env-key"]
	pod.Containers = append(pod.Containers, waysToRefer("two")["s-env-key"].Containers...)
	w.create("Deployment", "leaky", "true", pod)
	rolloutFleet(t, 1, namespace, "-v=10")
	w.awaitRecord("Deployment", "leaky")
	var record map[string]struct{ Parts map[string]string }
	if err := json.Unmarshal([]byte(w.get("Deployment", "leaky").GetAnnotations()[rolloutRecord]), &record); err != nil {
		t.Fatal(err)
	}
	one, two := record["secret/one"].Parts["k"], record["secret/two"].Parts["k"]
	if one == "" || one == two {
		t.Errorf("two Secrets with one password have the fingerprints %q and %q, want two different ones", one, two)
	}
	if diff := cmp.Diff(fingerprint(t, namespace, "secret", namespace, "one", "data", "k", "hunter1"), one); diff != "" {
		t.Errorf("the fingerprint is not made with the key of Secret incumbent-config-rollout (-want +got):\n%s", diff)
	}
}
