// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package shipped

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"

	"github.com/incumbent-io/incumbent/test/cluster"
)

// parts are the fingerprints in a record, by source and part.
type parts map[string]map[string]string

// recordedOn returns what the controller has recorded on a workload; nil without.
func recordedOn(object *unstructured.Unstructured) parts {
	var content map[string]struct{ Parts map[string]string }
	if json.Unmarshal([]byte(object.GetAnnotations()[rolloutRecord]), &content) != nil {
		return nil
	}
	recorded := parts{}
	for name, entry := range content {
		recorded[name] = entry.Parts
	}
	return recorded
}

func hashOn(object *unstructured.Unstructured) string {
	text, _, _ := unstructured.NestedString(object.Object, "spec", "template", "metadata", "annotations", rolloutHash)
	return text
}

// fingerprint is what docs/controllers/config-rollout.md says that a fingerprint is,
// written a second time: of the fields after the object's kind, namespace and name.
// The manager that has made it runs in the namespace home.
func fingerprint(t *testing.T, home, kind, namespace, name string, fields ...string) string {
	t.Helper()
	newHash, mark := sha256.New, ""
	if kind == "secret" {
		found, err := shared.Client.CoreV1().Secrets(home).Get(t.Context(), "incumbent-config-rollout", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		key := found.Data["key"]
		id := sha256.Sum256([]byte("incumbent.io config-rollout key " + string(key)))
		newHash, mark = func() hash.Hash { return hmac.New(sha256.New, key) }, hex.EncodeToString(id[:4])+":"
	}
	h := newHash()
	for _, field := range append([]string{kind, namespace, name}, fields...) {
		_ = binary.Write(h, binary.BigEndian, uint64(len(field)))
		h.Write([]byte(field))
	}
	return mark + hex.EncodeToString(h.Sum(nil)[:16])
}

// arena is a namespace in which content, references and workloads change at random.
type arena struct {
	workloads
	maps, secrets int
	names         []string // of workloads; the kind goes by the name
}

func kindOf(name string) string {
	for _, kind := range workloadKinds {
		if strings.HasPrefix(name, strings.ToLower(kind)) {
			return kind
		}
	}
	return ""
}

var contentKeys = []string{"a", "b"}

// content returns few different contents, so that some come back.
func content(random *rand.Rand) map[string]string {
	data := map[string]string{}
	for _, key := range contentKeys {
		data[key] = fmt.Sprint("value ", random.IntN(6))
	}
	if random.IntN(16) == 0 {
		delete(data, "b")
	}
	return data
}

// pod refers to two to four parts of sources.
func (a arena) pod(random *rand.Rand) corev1.PodSpec {
	c := corev1.Container{Name: "c0", Image: "incumbent-io/manager"}
	pod := corev1.PodSpec{}
	for i := range 2 + random.IntN(3) {
		m, s := fmt.Sprint("m", random.IntN(a.maps)), fmt.Sprint("s", random.IntN(a.secrets))
		key := contentKeys[random.IntN(2)]
		optional := new(random.IntN(3) == 0)
		switch random.IntN(5) {
		case 0:
			c.EnvFrom = append(c.EnvFrom, corev1.EnvFromSource{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: ref(m), Optional: optional}})
		case 1:
			c.Env = append(c.Env, corev1.EnvVar{Name: fmt.Sprint("E", i), ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: ref(m), Key: key, Optional: optional}}})
		case 2:
			c.Env = append(c.Env, corev1.EnvVar{Name: fmt.Sprint("E", i), ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: ref(s), Key: key, Optional: optional}}})
		case 3:
			pod.Volumes = append(pod.Volumes, corev1.Volume{Name: fmt.Sprint("v", i), VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: ref(m), Items: []corev1.KeyToPath{{Key: key, Path: key}}, Optional: optional}}})
		case 4:
			pod.Volumes = append(pod.Volumes, corev1.Volume{Name: fmt.Sprint("v", i), VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: s, Optional: optional}}})
		}
	}
	pod.Containers = []corev1.Container{c}
	return pod
}

// write does one thing at random.
func (a arena) write(ctx context.Context, random *rand.Rand) error {
	configMaps, secrets := shared.Client.CoreV1().ConfigMaps(a.namespace), shared.Client.CoreV1().Secrets(a.namespace)
	m, s, name := fmt.Sprint("m", random.IntN(a.maps)), fmt.Sprint("s", random.IntN(a.secrets)), a.names[random.IntN(len(a.names))]
	patch := func(object any) error {
		text, err := json.Marshal(object)
		if err != nil {
			return err
		}
		_, err = a.of(kindOf(name)).Patch(ctx, name, types.MergePatchType, text, metav1.PatchOptions{})
		return err
	}
	var err error
	switch dice := random.IntN(100); {
	case dice < 37:
		_, err = configMaps.Update(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: m}, Data: content(random)}, metav1.UpdateOptions{})
	case dice < 48:
		_, err = secrets.Update(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: s}, StringData: content(random)}, metav1.UpdateOptions{})
	case dice < 57:
		_, err = configMaps.Patch(ctx, m, types.MergePatchType, fmt.Appendf(nil, `{"metadata":{"annotations":{"example.com/touched":"%d"}}}`, random.Int()), metav1.PatchOptions{})
	case dice < 59:
		err = configMaps.Delete(ctx, m, metav1.DeleteOptions{})
	case dice < 73:
		_, err = configMaps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: m}, Data: content(random)}, metav1.CreateOptions{})
	case dice < 74:
		err = secrets.Delete(ctx, s, metav1.DeleteOptions{})
	case dice < 80:
		_, err = secrets.Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: s}, StringData: content(random)}, metav1.CreateOptions{})
	case dice < 84:
		err = patch(map[string]any{"metadata": map[string]any{"annotations": map[string]any{"example.com/mine": fmt.Sprint(random.Int())}}})
	case dice < 88:
		err = patch(map[string]any{"spec": map[string]any{"template": map[string]any{"metadata": map[string]any{"annotations": map[string]any{"example.com/mine": fmt.Sprint(random.Int())}}}}})
	case dice < 91:
		next := a.pod(random)
		err = patch(map[string]any{"spec": map[string]any{"template": map[string]any{"spec": map[string]any{"containers": next.Containers, "volumes": next.Volumes}}}})
	case dice < 94 && kindOf(name) == "Deployment":
		err = patch(map[string]any{"spec": map[string]any{"paused": random.IntN(3) == 0}})
	case dice < 97 && a.optsIn(name):
		err = patch(map[string]any{"metadata": map[string]any{"annotations": map[string]any{rolloutOptIn: []string{"true", "true", "true", "false", "maybe"}[random.IntN(5)]}}})
	case dice < 98:
		err = a.of(kindOf(name)).Delete(ctx, name, metav1.DeleteOptions{})
	default:
		_, err = a.of(kindOf(name)).Create(ctx, a.make(kindOf(name), name, a.optIn(name), a.pod(random)), metav1.CreateOptions{})
	}
	if apierrors.IsNotFound(err) || apierrors.IsAlreadyExists(err) || apierrors.IsConflict(err) {
		return nil
	}
	return err
}

// optsIn says whether the workload of that name is one of those to be rolled.
func (a arena) optsIn(name string) bool { return !strings.HasSuffix(name, "-not") }

func (a arena) optIn(name string) string {
	if a.optsIn(name) {
		return "true"
	}
	return ""
}

// settle makes everything be there: each source with each key, each workload, opted in
// and not paused.
func (a arena) settle() {
	a.t.Helper()
	random := rand.New(rand.NewPCG(1, 1))
	for i := range a.maps {
		a.configMap(fmt.Sprint("m", i), map[string]string{"a": fmt.Sprint(random.IntN(6)), "b": fmt.Sprint(random.IntN(6))})
	}
	for i := range a.secrets {
		a.secret(fmt.Sprint("s", i), map[string]string{"a": fmt.Sprint(random.IntN(6)), "b": fmt.Sprint(random.IntN(6))})
	}
	for _, name := range a.names {
		if _, err := a.of(kindOf(name)).Get(a.t.Context(), name, metav1.GetOptions{}); apierrors.IsNotFound(err) {
			a.create(kindOf(name), name, a.optIn(name), a.pod(random))
		}
		if a.optsIn(name) {
			a.patch(kindOf(name), name, `{"metadata":{"annotations":{"`+rolloutOptIn+`":"true"}}}`)
		}
		if kindOf(name) == "Deployment" {
			a.patch(kindOf(name), name, `{"spec":{"paused":false}}`)
		}
	}
}

// wanted computes what must be recorded on a workload: the fingerprints of all that its
// template refers to, as it is now.
func (a arena) wanted(object *unstructured.Unstructured) parts {
	a.t.Helper()
	text, err := json.Marshal(object.Object["spec"].(map[string]any)["template"])
	if err != nil {
		a.t.Fatal(err)
	}
	var template corev1.PodTemplateSpec
	if err := json.Unmarshal(text, &template); err != nil {
		a.t.Fatal(err)
	}
	want := parts{}
	add := func(kind, name, key string) {
		if want[kind+"/"+name] == nil {
			want[kind+"/"+name] = map[string]string{}
		}
		want[kind+"/"+name][cmpOr(key, "*")] = a.fingerprintNow(kind, name, key)
	}
	for _, c := range template.Spec.Containers {
		for _, from := range c.EnvFrom {
			add("configmap", from.ConfigMapRef.Name, "")
		}
		for _, env := range c.Env {
			if from := env.ValueFrom.ConfigMapKeyRef; from != nil {
				add("configmap", from.Name, from.Key)
			} else {
				add("secret", env.ValueFrom.SecretKeyRef.Name, env.ValueFrom.SecretKeyRef.Key)
			}
		}
	}
	for _, v := range template.Spec.Volumes {
		if v.ConfigMap != nil {
			add("configmap", v.ConfigMap.Name, v.ConfigMap.Items[0].Key)
		} else {
			add("secret", v.Secret.SecretName, "")
		}
	}
	return want
}

func cmpOr(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// fingerprintNow is of a key, or of the whole without one.
func (a arena) fingerprintNow(kind, name, key string) string {
	a.t.Helper()
	data := map[string]string{}
	if kind == "configmap" {
		object, err := shared.Client.CoreV1().ConfigMaps(a.namespace).Get(a.t.Context(), name, metav1.GetOptions{})
		if err != nil {
			a.t.Fatal(err)
		}
		data = object.Data
	} else {
		object, err := shared.Client.CoreV1().Secrets(a.namespace).Get(a.t.Context(), name, metav1.GetOptions{})
		if err != nil {
			a.t.Fatal(err)
		}
		for k, v := range object.Data {
			data[k] = string(v)
		}
	}
	if key != "" {
		return fingerprint(a.t, a.namespace, kind, a.namespace, name, "data", key, data[key])
	}
	var all []string
	for _, k := range slices.Sorted(maps.Keys(data)) {
		all = append(all, fingerprint(a.t, a.namespace, kind, a.namespace, name, "data", k, data[k]))
	}
	return fingerprint(a.t, a.namespace, kind, a.namespace, name, all...)
}

// chronicle is every state that each workload of a namespace has had, in order.
type chronicle struct {
	mu     sync.Mutex
	states map[types.UID][]*unstructured.Unstructured
}

func newChronicle() *chronicle {
	return &chronicle{states: map[types.UID][]*unstructured.Unstructured{}}
}

// of returns the states of one workload.
func (c *chronicle) of(uid types.UID) []*unstructured.Unstructured {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.states[uid])
}

// keepChronicle records from now until the end of the test.
func (w workloads) keepChronicle() {
	w.t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	var watches sync.WaitGroup
	w.t.Cleanup(func() {
		stop()
		watches.Wait()
	})
	for _, kind := range workloadKinds {
		list, err := w.of(kind).List(ctx, metav1.ListOptions{})
		if err != nil {
			w.t.Fatal(err)
		}
		watches.Go(func() {
			last := list.GetResourceVersion()
			for ctx.Err() == nil {
				var err error
				if last, err = w.story.follow(ctx, w.of(kind), last); err != nil {
					w.t.Errorf("the chronicle of %ss: %v", kind, err)
					return
				}
			}
		})
	}
}

// follow records what changes from a version on until the watch ends, which the API
// server does with one that does not keep up. It returns the version to go on with.
func (c *chronicle) follow(ctx context.Context, of dynamic.ResourceInterface, from string) (last string, err error) {
	events, err := of.Watch(ctx, metav1.ListOptions{ResourceVersion: from, TimeoutSeconds: new(int64(3600))})
	if err != nil {
		return from, ignoreEnd(ctx, err)
	}
	defer events.Stop()
	for event := range events.ResultChan() {
		object, ok := event.Object.(*unstructured.Unstructured)
		if !ok || event.Type == watch.Error {
			return from, ignoreEnd(ctx, fmt.Errorf("the watch from %s on: %v", from, event.Object))
		}
		c.add(object)
		from = object.GetResourceVersion()
	}
	return from, nil
}

// ignoreEnd returns no error if the context has ended, which is its cause.
func ignoreEnd(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (c *chronicle) add(object *unstructured.Unstructured) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.states[object.GetUID()] = append(c.states[object.GetUID()], object)
}

// judge checks each write of the controller, and returns how often it rolled.
func (c *chronicle) judge(t *testing.T) (rollouts int) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, states := range c.states {
		for i := 1; i < len(states); i++ {
			before, after := states[i-1], states[i]
			rolled := hashOn(before) != hashOn(after)
			if rolled {
				rollouts++
			}
			if problem := problemOf(before, after, rolled); problem != "" {
				t.Errorf("%s %s from %s to %s: %s\nbefore %v\nafter %v", after.GetKind(), after.GetName(), before.GetResourceVersion(), after.GetResourceVersion(),
					problem, recordedOn(before), recordedOn(after))
			}
		}
	}
	return rollouts
}

// problemOf says what is wrong with the step from one state to the next, or "".
func problemOf(before, after *unstructured.Unstructured, rolled bool) string {
	was, is := recordedOn(before), recordedOn(after)
	if !rolled && cmp.Equal(was, is) && before.GetLabels()[rolloutSeal] == after.GetLabels()[rolloutSeal] {
		return "" // not a write of the controller
	}
	if diff := cmp.Diff(foreign(before), foreign(after)); diff != "" {
		return "something foreign was touched (-before +after):\n" + diff
	}
	in := before.GetAnnotations()[rolloutOptIn]
	switch paused, _, _ := unstructured.NestedBool(before.Object, "spec", "paused"); {
	case in != "true" && (rolled || is != nil):
		return fmt.Sprintf("opted in with %q, and yet written", in)
	case in == "true" && is == nil:
		return "the record was taken away"
	case in == "true" && rolled && paused:
		return "rolled while paused"
	}
	changed := false
	for name, entry := range is {
		for part, now := range entry {
			if then, known := was[name][part]; known && then != now && now != "absent" {
				changed = true
			}
		}
	}
	switch {
	case rolled && !changed:
		return "rolled, and no content has changed"
	case !rolled && changed:
		return "content has changed, and it was not rolled"
	}
	return ""
}

// foreign is all of a workload that is not the controller's.
func foreign(object *unstructured.Unstructured) map[string]any {
	o := object.DeepCopy()
	for _, path := range [][]string{
		{"status"}, {"metadata", "annotations", "deprecated.daemonset.template.generation"}, {"metadata", "resourceVersion"}, {"metadata", "generation"}, {"metadata", "managedFields"},
		{"metadata", "annotations", rolloutRecord}, {"metadata", "labels", rolloutSeal}, {"spec", "template", "metadata", "annotations", rolloutHash},
	} {
		unstructured.RemoveNestedField(o.Object, path...)
	}
	for _, path := range [][]string{{"metadata", "labels"}, {"spec", "template", "metadata", "annotations"}} {
		if rest, _, _ := unstructured.NestedMap(o.Object, path...); len(rest) == 0 {
			unstructured.RemoveNestedField(o.Object, path...)
		}
	}
	return o.Object
}

// TestConfigRolloutChaos: whatever happens, each rollout has a reason, no change of
// content goes without one, and in the end what is recorded is what there is.
func TestConfigRolloutChaos(t *testing.T) {
	const namespace = "rollout-chaos"
	shared.Namespace(t, namespace)
	a := arena{workloads: workloadsIn(t, namespace), maps: 30, secrets: 10}
	for _, kind := range workloadKinds {
		for i := range 12 {
			a.names = append(a.names, fmt.Sprintf("%s-%d", strings.ToLower(kind), i))
		}
		a.names = append(a.names, strings.ToLower(kind)+"-0-not", strings.ToLower(kind)+"-1-not")
	}
	a.settle()
	f := rolloutFleet(t, 3, namespace, "--config-rollout-quiet-period=200ms", "--config-rollout-max-delay=1s")
	chaos(t, f, func(ctx context.Context, _ int, random *rand.Rand) error { return a.write(ctx, random) })
	a.settle()
	took := cluster.Eventually(t, time.Minute, "what is recorded is what there is", func() error {
		for _, name := range a.names {
			object := a.get(kindOf(name), name)
			if !a.optsIn(name) {
				continue
			}
			if diff := cmp.Diff(a.wanted(object), recordedOn(object)); diff != "" {
				return fmt.Errorf("%s (-want +got):\n%s", name, diff)
			}
		}
		return nil
	})
	for _, name := range a.names {
		a.rollouts(kindOf(name), name) // once the chronicle has its last state
	}
	rollouts := a.story.judge(t)
	if rollouts == 0 {
		t.Error("there was no rollout at all")
	}
	for _, name := range a.names {
		if object := a.get(kindOf(name), name); !a.optsIn(name) && (hashOn(object) != "" || object.GetLabels()[rolloutSeal] != "" || recordedOn(object) != nil) {
			t.Errorf("%s did not opt in and was written: %v", name, object)
		}
	}
	a.checkRequests(f.account)
	t.Logf("%d rollouts of %d workloads; as it should be %v after the last write", rollouts, len(a.names), took)
}

// checkRequests looks at what the managers asked of the API server: they may write to
// workloads that have opted in, and to nothing else that is not their own.
func (a arena) checkRequests(managers account) {
	a.t.Helper()
	for _, r := range managers.requests(a.t) {
		if r.Annotations["authorization.k8s.io/decision"] != "allow" {
			a.t.Errorf("not allowed: %v", r)
		}
		switch ref := r.ObjectRef; r.Verb {
		case "get", "list", "watch":
		case "patch":
			if ref.Resource != "events" && (ref.Namespace != a.namespace || kindOf(ref.Name) == "" && ref.Name != "barrier" || !a.optsIn(ref.Name)) {
				a.t.Errorf("a write to what is none of its business: %v", r)
			}
		default:
			own := ref.Namespace == a.namespace && (ref.Resource == "leases" || ref.Resource == "secrets" && ref.Name == "incumbent-config-rollout")
			if !own && ref.Resource != "events" && !strings.HasSuffix(ref.Resource, "reviews") {
				a.t.Errorf("a write to what is none of its business: %v", r)
			}
		}
	}
}

// TestConfigRolloutAmongManyObjects: 300 workloads and 10,000 ConfigMaps.
func TestConfigRolloutAmongManyObjects(t *testing.T) {
	const namespace, objects, users = "rollout-many", 10000, 300
	shared.Namespace(t, namespace)
	w := workloadsIn(t, namespace)
	inParallel(t, objects, func(i int) error {
		_, err := shared.Client.CoreV1().ConfigMaps(namespace).Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("m", i)}, Data: map[string]string{"k": strings.Repeat("x", 1000)}}, metav1.CreateOptions{})
		return err
	})
	inParallel(t, users, func(i int) error {
		pod := envFrom("m0")
		pod.Containers = append(pod.Containers, envFrom(fmt.Sprint("m", i+1)).Containers...)
		_, err := w.of("StatefulSet").Create(t.Context(), w.make("StatefulSet", fmt.Sprint("user-", i), "true", pod), metav1.CreateOptions{})
		return err
	})
	generations := func(want func(i int) int64) func() error {
		return func() error {
			list, err := w.of("StatefulSet").List(t.Context(), metav1.ListOptions{})
			if err != nil {
				return err
			}
			for _, object := range list.Items {
				var i int
				if _, err := fmt.Sscanf(object.GetName(), "user-%d", &i); err != nil {
					return err
				}
				if got := object.GetGeneration(); got != want(i) || object.GetLabels()[rolloutSeal] == "" {
					return fmt.Errorf("%s has generation %d, want %d, and the seal %q", object.GetName(), got, want(i), object.GetLabels()[rolloutSeal])
				}
			}
			return nil
		}
	}
	f := rolloutFleet(t, 1, namespace)
	recorded := cluster.Eventually(t, time.Minute, "everything recorded", generations(func(int) int64 { return 1 }))
	var reads, writes int
	requests := func() (reads, writes int) {
		t.Helper()
		// Only in its own namespace: other tests may leave something to be recorded.
		for _, r := range f.account.requests(t) {
			switch done := r.ObjectRef.Namespace == namespace && r.ResponseStatus.Code < 400; {
			case done && r.Verb == "get" && r.ObjectRef.Resource == "configmaps":
				reads++
			case done && r.Verb == "patch" && r.ObjectRef.Resource == "statefulsets":
				writes++
			}
		}
		return reads, writes
	}
	expect := func(moment string, wantReads, wantWrites int) {
		t.Helper()
		r, w := requests()
		if r-reads != wantReads || w-writes != wantWrites {
			t.Errorf("%s: %d ConfigMaps were read and %d workloads written, want %d and %d", moment, r-reads, w-writes, wantReads, wantWrites)
		}
		reads, writes = r, w
	}
	expect("the first start", users+1, users)
	w.configMap("m1", map[string]string{"k": "y"})
	one := cluster.Eventually(t, time.Minute, "one of them rolled", generations(func(i int) int64 {
		if i == 0 {
			return 2
		}
		return 1
	}))
	expect("one ConfigMap of one workload has changed", 1, 1)
	w.configMap("m0", map[string]string{"k": "y"})
	once := func(i int) int64 {
		if i == 0 {
			return 3
		}
		return 2
	}
	all := cluster.Eventually(t, time.Minute, "all of them rolled", generations(once))
	expect("one ConfigMap of all workloads has changed", 1, users)
	w.barrier()
	expect("quiet", 2, 0) // as the barrier has needed
	f.restart(t, func() {})
	w.barrier()
	expect("at the second start", 1, 0)
	if err := generations(once)(); err != nil {
		t.Errorf("later: %v", err)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", f.members[0].Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if strings.HasPrefix(line, "Rss") || strings.HasPrefix(line, "VmRSS") {
			t.Log(strings.TrimSpace(line))
		}
	}
	t.Logf("%d ConfigMaps, %d workloads: recorded %v after the leader was ready; after a change (%v quiet) one was rolled in %v, and all in %v", objects, users, recorded, rolloutQuiet, one, all)
}
