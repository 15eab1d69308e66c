// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package shipped

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"github.com/incumbent-io/incumbent/test/cluster"
)

// bazaar is the place of the chaos: namespaces, and objects of both kinds in them. Its
// writers stamp all that they write, so whatever has no new stamp was written by the
// controller.
type bazaar struct {
	t          *testing.T
	group      string
	client     dynamic.Interface
	namespaces []string
	names      []string

	stamps atomic.Int64
	// mayGo has the UIDs that the writers have asked to be deleted, and deleted the
	// namespaces, before they did.
	mayGo, deleted sync.Map
	mu             sync.Mutex
	problems       []string // what the watch has seen that must not happen
}

const stamp = "example.com/stamp"

var bazaarKinds = []schema.GroupVersionResource{corev1.SchemeGroupVersion.WithResource("configmaps"), corev1.SchemeGroupVersion.WithResource("secrets")}

// selectors are what sources ask for, with what that means. nil: malformed.
func (b *bazaar) selectors() map[string]func(labels map[string]string) bool {
	here := func(f func(team, env string) bool) func(map[string]string) bool {
		return func(labels map[string]string) bool {
			return labels["group"] == b.group && f(labels["team"], labels["env"])
		}
	}
	g := "group=" + b.group + ","
	return map[string]func(map[string]string) bool{
		g + "team=a":         here(func(team, _ string) bool { return team == "a" }),
		g + "team in (a,b)":  here(func(team, _ string) bool { return team == "a" || team == "b" }),
		g + "env!=prod":      here(func(_, env string) bool { return env != "prod" }),
		g + "!team,env=prod": here(func(team, env string) bool { return team == "" && env == "prod" }),
		"group=" + b.group:   here(func(_, _ string) bool { return true }),
		g + "team in a":      nil,
		"":                   nil,
	}
}

func (b *bazaar) of(kind schema.GroupVersionResource, namespace string) dynamic.ResourceInterface {
	return b.client.Resource(kind).Namespace(namespace)
}

// isCopy tells, by the words of the documentation, whether an object is a copy.
func isCopy(o *unstructured.Unstructured) bool {
	place, _, marked := strings.Cut(o.GetAnnotations()[propagationCopy], " of ")
	return marked && place == o.GetNamespace()+"/"+o.GetName() && o.GetLabels()[propagationFrom] != ""
}

// write does one random thing.
func (b *bazaar) write(ctx context.Context, random *rand.Rand) error {
	pick := func(list []string) string { return list[random.IntN(len(list))] }
	namespace, name := pick(b.namespaces), pick(b.names)
	if random.IntN(12) == 0 {
		return tolerate(b.writeNamespace(ctx, random, namespace))
	}
	objects := b.of(bazaarKinds[random.IntN(2)], namespace)
	found, err := objects.Get(ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		if random.IntN(4) == 0 { // Leave room for copies.
			_, err = objects.Create(ctx, b.fresh(random, namespace, name), metav1.CreateOptions{})
		} else {
			err = nil
		}
	case err != nil:
	case random.IntN(4) == 0:
		uid := found.GetUID()
		b.mayGo.Store(uid, true)
		err = objects.Delete(ctx, name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
	default:
		b.edit(random, found)
		_, err = objects.Update(ctx, found, metav1.UpdateOptions{})
	}
	return tolerate(err)
}

// tolerate drops the errors that come of others' writing, too.
func tolerate(err error) error {
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) || apierrors.IsAlreadyExists(err) || apierrors.IsInvalid(err) || apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return nil
	}
	return err
}

func (b *bazaar) nextStamp() string { return fmt.Sprint(b.stamps.Add(1)) }

// fresh returns a new object: a source, or a foreign one.
func (b *bazaar) fresh(random *rand.Rand, namespace, name string) *unstructured.Unstructured {
	o := &unstructured.Unstructured{Object: map[string]any{"data": map[string]any{"k": "AAAA"}}}
	o.SetNamespace(namespace)
	o.SetName(name)
	annotations := map[string]string{stamp: b.nextStamp()}
	if random.IntN(2) == 0 {
		annotations[propagationTo] = b.anySelector(random)
	}
	if random.IntN(10) == 0 {
		o.Object["immutable"] = true
	}
	o.SetAnnotations(annotations)
	return o
}

func (b *bazaar) anySelector(random *rand.Rand) string {
	all := slices.Sorted(maps.Keys(b.selectors()))
	return all[random.IntN(len(all))]
}

// edit changes what is there, whoever made it.
func (b *bazaar) edit(random *rand.Rand, o *unstructured.Unstructured) {
	annotations, labels := o.GetAnnotations(), o.GetLabels()
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[stamp] = b.nextStamp()
	data, _, _ := unstructured.NestedStringMap(o.Object, "data")
	if data == nil {
		data = map[string]string{}
	}
	switch n := random.IntN(10); {
	case n < 4:
		data["k"] = fmt.Sprintf("%04d", random.IntN(10000)) // also valid in base64
	case n < 5:
		data["more"] = "BBBB"
	case n < 6:
		delete(data, "k")
	case n < 7:
		delete(labels, propagationFrom)
	case n < 8:
		annotations[propagationTo] = b.anySelector(random)
	case n < 9:
		delete(annotations, propagationTo)
	default:
		o.Object["immutable"] = true
	}
	o.SetAnnotations(annotations)
	o.SetLabels(labels)
	values := map[string]any{}
	for key, value := range data {
		values[key] = value
	}
	o.Object["data"] = values
}

// writeNamespace changes what decides about a namespace; some of them are deleted.
func (b *bazaar) writeNamespace(ctx context.Context, random *rand.Rand, name string) error {
	namespaces := shared.Client.CoreV1().Namespaces()
	found, err := namespaces.Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		_, err = namespaces.Create(ctx, b.namespace(name), metav1.CreateOptions{})
		return err
	}
	if err != nil {
		return err
	}
	switch n := random.IntN(8); {
	case n < 3:
		found.Labels["team"] = []string{"a", "b", "c"}[random.IntN(3)]
	case n < 4:
		delete(found.Labels, "team")
	case n < 6:
		found.Labels["env"] = []string{"prod", "dev"}[random.IntN(2)]
	case n < 7:
		found.Annotations = map[string]string{propagationRefuse: []string{"true", "false", "false", "maybe"}[random.IntN(4)]}
	case strings.HasSuffix(name, "-leaves"):
		b.deleted.Store(name, true)
		return namespaces.Delete(ctx, name, metav1.DeleteOptions{})
	default:
		found.Annotations = nil
	}
	_, err = namespaces.Update(ctx, found, metav1.UpdateOptions{})
	return err
}

func (b *bazaar) namespace(name string) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"group": b.group, "team": "a"}}}
}

// keepWatch looks at every change of every object until the test ends.
func (b *bazaar) keepWatch() {
	b.t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	var watches sync.WaitGroup
	b.t.Cleanup(func() {
		stop()
		watches.Wait()
	})
	for _, kind := range bazaarKinds {
		list, err := b.of(kind, "").List(ctx, metav1.ListOptions{})
		if err != nil {
			b.t.Fatal(err)
		}
		last := map[types.UID]*unstructured.Unstructured{}
		for i := range list.Items {
			last[list.Items[i].GetUID()] = &list.Items[i]
		}
		events, err := b.of(kind, "").Watch(ctx, metav1.ListOptions{ResourceVersion: list.GetResourceVersion(), TimeoutSeconds: new(int64(3600))})
		if err != nil {
			b.t.Fatal(err)
		}
		watches.Go(func() {
			for event := range events.ResultChan() {
				o, ok := event.Object.(*unstructured.Unstructured)
				if !ok || !strings.HasPrefix(o.GetNamespace(), b.group+"-") {
					continue
				}
				if problem := b.problemOf(last[o.GetUID()], o, string(event.Type)); problem != "" {
					b.mu.Lock()
					b.problems = append(b.problems, fmt.Sprintf("%s %s %s/%s version %s: %s", event.Type, o.GetKind(), o.GetNamespace(), o.GetName(), o.GetResourceVersion(), problem))
					b.mu.Unlock()
				}
				last[o.GetUID()] = o
			}
			if ctx.Err() == nil {
				b.t.Errorf("the watch of %s has ended", kind.Resource)
			}
		})
	}
}

// problemOf says what is wrong with a change, if the controller made it; "" is nothing.
func (b *bazaar) problemOf(before, after *unstructured.Unstructured, event string) string {
	switch {
	case after.GetName() == "kube-root-ca.crt":
		return ""
	case before == nil:
		if after.GetAnnotations()[stamp] == "" && !isCopy(after) {
			return "it was created without marks"
		}
		return ""
	case event == "DELETED":
		_, asked := b.mayGo.Load(after.GetUID())
		_, leaves := b.deleted.Load(after.GetNamespace())
		if !isCopy(before) && !asked && !leaves {
			return "it was no copy and was deleted"
		}
		return ""
	case before.GetAnnotations()[stamp] != after.GetAnnotations()[stamp] || isCopy(before):
		return ""
	}
	if diff := gocmp.Diff(withoutStatus(before), withoutStatus(after)); diff != "" {
		return "it was no copy and was written (-before +after):\n" + diff
	}
	return ""
}

func withoutStatus(o *unstructured.Unstructured) map[string]any {
	c := o.DeepCopy()
	for _, path := range [][]string{{"metadata", "resourceVersion"}, {"metadata", "managedFields"}, {"metadata", "annotations", propagationStatus}} {
		unstructured.RemoveNestedField(c.Object, path...)
	}
	return c.Object
}

// check compares all that there is with the words of the documentation.
func (b *bazaar) check(ctx context.Context) error {
	list, err := shared.Client.CoreV1().Namespaces().List(ctx, metav1.ListOptions{LabelSelector: "group=" + b.group})
	if err != nil {
		return err
	}
	for _, namespace := range list.Items {
		if namespace.DeletionTimestamp != nil { // The sources in it are about to go, and what they claim with them.
			return fmt.Errorf("namespace %s is still being deleted", namespace.Name)
		}
	}
	var errs []error
	for _, kind := range bazaarKinds {
		all, err := b.of(kind, "").List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		objects := map[string]*unstructured.Unstructured{}
		for i := range all.Items {
			if o := &all.Items[i]; strings.HasPrefix(o.GetNamespace(), b.group+"-") {
				objects[o.GetNamespace()+"/"+o.GetName()] = o
			}
		}
		missing := map[*unstructured.Unstructured][]string{} // namespaces, by source
		for _, namespace := range list.Items {
			for _, name := range b.names {
				if err := b.checkTarget(namespace, name, objects, missing); err != nil {
					errs = append(errs, fmt.Errorf("%s %s/%s: %w", kind.Resource, namespace.Name, name, err))
				}
			}
		}
		for _, o := range objects {
			if err := b.checkStatus(o, missing[o]); err != nil {
				errs = append(errs, fmt.Errorf("%s %s/%s: %w", kind.Resource, o.GetNamespace(), o.GetName(), err))
			}
		}
	}
	return errors.Join(errs...)
}

func (b *bazaar) checkTarget(namespace corev1.Namespace, name string, objects map[string]*unstructured.Unstructured, missing map[*unstructured.Unstructured][]string) error {
	there := objects[namespace.Name+"/"+name]
	var claimants []*unstructured.Unstructured
	for _, o := range objects {
		if o.GetName() == name && b.claims(o, namespace, there) {
			claimants = append(claimants, o)
		}
	}
	slices.SortFunc(claimants, func(x, y *unstructured.Unstructured) int {
		if a, b := x.GetCreationTimestamp().Unix(), y.GetCreationTimestamp().Unix(); a != b {
			return int(a - b)
		}
		return strings.Compare(x.GetNamespace(), y.GetNamespace())
	})
	for i, o := range claimants {
		if i > 0 || there != nil && !isCopy(there) {
			missing[o] = append(missing[o], namespace.Name)
		}
	}
	switch {
	case there != nil && !isCopy(there):
		return nil
	case len(claimants) == 0 && there != nil:
		return fmt.Errorf("there is a copy of %s, and there should be none", there.GetLabels()[propagationFrom])
	case len(claimants) == 0:
		return nil
	case there == nil:
		return fmt.Errorf("there is no copy of %s", claimants[0].GetNamespace())
	}
	source := claimants[0]
	if b.selectors()[source.GetAnnotations()[propagationTo]] == nil {
		return nil // stays as it is
	}
	want := []any{source.GetNamespace(), namespace.Name + "/" + name + " of " + string(source.GetUID()), source.Object["data"], source.Object["immutable"] == true, source.Object["type"]}
	got := []any{there.GetLabels()[propagationFrom], there.GetAnnotations()[propagationCopy], there.Object["data"], there.Object["immutable"] == true, there.Object["type"]}
	if diff := gocmp.Diff(want, got); diff != "" {
		return fmt.Errorf("the copy differs (-source +copy):\n%s", diff)
	}
	return nil
}

// claims tells whether an object is a source that is to be copied to the namespace.
func (b *bazaar) claims(o *unstructured.Unstructured, namespace corev1.Namespace, there *unstructured.Unstructured) bool {
	to, asks := o.GetAnnotations()[propagationTo]
	refusal, refuses := namespace.Annotations[propagationRefuse]
	if !asks || isCopy(o) || o.GetNamespace() == namespace.Name || refuses && refusal != "false" {
		return false
	}
	selects := b.selectors()[to]
	if selects == nil { // It keeps the copies that it has.
		return there != nil && isCopy(there) && there.GetLabels()[propagationFrom] == o.GetNamespace() && strings.HasSuffix(there.GetAnnotations()[propagationCopy], " of "+string(o.GetUID()))
	}
	return selects(namespace.Labels)
}

func (b *bazaar) checkStatus(o *unstructured.Unstructured, missing []string) error {
	status := o.GetAnnotations()[propagationStatus]
	to, asks := o.GetAnnotations()[propagationTo]
	want := ""
	switch {
	case asks && isCopy(o):
		want = "not copied: it is itself a copy"
	case asks && b.selectors()[to] == nil:
		want = fmt.Sprintf("its copies stay as they are: annotation %s is %q", propagationTo, to)
	case asks && len(missing) > 0:
		slices.Sort(missing)
		want = fmt.Sprintf("not copied to %d of the selected namespaces: %s: ", len(missing), missing[0])
	}
	if !strings.HasPrefix(status, want) || want == "" && status != "" {
		return fmt.Errorf("the status is %q, want %q", status, want)
	}
	for _, namespace := range missing[:min(len(missing), 10)] {
		if strings.HasPrefix(want, "not copied to") && !strings.Contains(status, namespace+": ") {
			return fmt.Errorf("the status lacks %s: %s", namespace, status)
		}
	}
	return nil
}

// TestConfigPropagationChaos: whatever happens, nothing foreign is touched, and in the
// end there is what should be.
func TestConfigPropagationChaos(t *testing.T) {
	const namespace = "propagation-chaos"
	shared.Namespace(t, namespace)
	client, err := dynamic.NewForConfig(shared.REST)
	if err != nil {
		t.Fatal(err)
	}
	b := &bazaar{t: t, group: "bazaar", client: client, names: []string{"m0", "m1", "m2", "m3", "m4", "m5"}}
	for i := range 12 {
		b.namespaces = append(b.namespaces, fmt.Sprintf("%s-%d", b.group, i))
	}
	b.namespaces = append(b.namespaces, b.group+"-0-leaves", b.group+"-1-leaves")
	for _, name := range b.namespaces {
		if _, err := shared.Client.CoreV1().Namespaces().Create(t.Context(), b.namespace(name), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	b.keepWatch()
	f := newFleet(t, 3, namespace, propagation, "--config-propagation-secrets")
	chaos(t, f, func(ctx context.Context, _ int, random *rand.Rand) error { return b.write(ctx, random) })
	took := cluster.Eventually(t, time.Minute, "there is what should be", func() error { return b.check(t.Context()) })
	audit := propagationRequests()
	time.Sleep(3 * time.Second) // Nothing is to happen in this time, so nothing can be waited for.
	if writes := writesIn(t, audit); len(writes) > 0 {
		requests, _ := audit.Requests(t.Context())
		t.Errorf("writes after that: %v: %v", writes, requests)
	}
	if err := b.check(t.Context()); err != nil {
		t.Errorf("after that: %v", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, problem := range b.problems[:min(len(b.problems), 10)] {
		t.Error(problem)
	}
	t.Logf("as it should be %v after the last write", took)
}

// TestConfigPropagationToManyNamespaces: each copy takes one write. NAMESPACES, 50 by
// default, is how many namespaces 20 sources are copied to, and STEADY, 3s by default, for
// how long nothing more may be written.
func TestConfigPropagationToManyNamespaces(t *testing.T) {
	const namespace, sources = "propagation-many", 20
	count, err := strconv.Atoi(cmp.Or(os.Getenv("NAMESPACES"), "50"))
	if err != nil {
		t.Fatalf("NAMESPACES: %v", err)
	}
	still, err := time.ParseDuration(cmp.Or(os.Getenv("STEADY"), "3s"))
	if err != nil {
		t.Fatalf("STEADY: %v", err)
	}
	shared.Namespace(t, namespace)
	s := spread{t, "pmany"}
	s.namespaces("platform")
	var names []string
	for i := range count {
		names = append(names, fmt.Sprint("t", i))
	}
	inParallel(t, count, func(i int) error {
		s.namespaces(names[i])
		return nil
	})
	for i := range sources {
		s.make("platform", fmt.Sprint("m", i), config{to: s.everywhere(), data: map[string]string{"k": strings.Repeat("x", 1000)}})
	}
	// awaitWrites counts in the audit log: to list all copies costs what is measured.
	awaitWrites := func(moment string, audit *cluster.AuditLog, write string, n int) time.Duration {
		t.Helper()
		return cluster.Eventually(t, 5*time.Minute, moment, func() error {
			if got := writesIn(t, audit)[write]; got < n {
				return fmt.Errorf("%d of %d copies", got, n)
			}
			return nil
		})
	}
	expect := func(moment string, audit *cluster.AuditLog, want map[string]int) {
		t.Helper()
		if diff := gocmp.Diff(want, writesIn(t, audit)); diff != "" {
			t.Errorf("%s: writes (-want +got):\n%s", moment, diff)
		}
		t.Logf("%s: writes %v, reads %v", moment, writesIn(t, audit), readsIn(t, audit))
	}
	start := func() *fleet { // with a lease that outlives a busy API server
		return newFleet(t, 1, namespace, propagation, "--leader-elect-lease-duration=15s", "--leader-elect-renew-deadline=10s", "--leader-elect-retry-period=2s")
	}
	audit := propagationRequests()
	f := start()
	t.Logf("%d copies made in %v", count*sources, awaitWrites("all copies", audit, "patch 201", count*sources))
	time.Sleep(still)
	expect("all copies", audit, map[string]int{"patch 201": count * sources})

	f.members[0].Terminate(t)
	audit = propagationRequests()
	f = start()
	time.Sleep(still)
	expect("a restart", audit, map[string]int{})

	audit = propagationRequests()
	s.patch("platform", "m7", `{"data":{"k":"new"}}`)
	t.Logf("%d copies changed in %v", count, awaitWrites("one source has changed", audit, "patch 200", count))
	s.namespaces("more")
	t.Logf("%d copies in a new namespace in %v", sources, awaitWrites("a new namespace", audit, "patch 201", sources))
	expect("one source has changed, a new namespace", audit, map[string]int{"patch 200": count, "patch 201": sources})
	logMemory(t, f.members[0])
	list, err := shared.Client.CoreV1().ConfigMaps("").List(t.Context(), metav1.ListOptions{LabelSelector: propagationFrom + "=" + s.of("platform")})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := len(list.Items), (count+1)*sources; got != want {
		t.Errorf("there are %d copies, want %d", got, want)
	}
	for _, o := range list.Items {
		want := strings.Repeat("x", 1000)
		if o.Name == "m7" {
			want = "new"
		}
		if o.Data["k"] != want {
			t.Errorf("the copy %s/%s is %q", o.Namespace, o.Name, o.Data["k"])
		}
	}
}

func logMemory(t *testing.T, p *cluster.Process) {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if strings.HasPrefix(line, "RssAnon") || strings.HasPrefix(line, "VmRSS") || strings.HasPrefix(line, "VmHWM") {
			t.Log(strings.TrimSpace(line))
		}
	}
}
