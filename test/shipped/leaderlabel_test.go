// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package shipped

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/incumbent-io/incumbent/test/cluster"
)

const (
	role  = "incumbent.io/role"
	lease = "incumbent.io/lease"
	// mark is what the leader of a labelled fleet has as its lease.
	mark = "leader-label"
)

// labelled is a fleet whose members have Pods. They are Pods for the API alone: nothing
// runs them.
type labelled struct {
	*fleet
	t      *testing.T
	pods   corev1client.PodInterface
	owner  metav1.OwnerReference // controller of the members' Pods
	podsOf map[*cluster.Process]*corev1.Pod
}

func newLabelled(t *testing.T, n int, namespace string) *labelled {
	t.Helper()
	l := &labelled{t: t, pods: shared.Client.CoreV1().Pods(namespace), podsOf: map[*cluster.Process]*corev1.Pod{}}
	// The garbage collector wants to see the owner.
	set, err := shared.Client.CoreV1().ConfigMaps(namespace).Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "set"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	l.owner = metav1.OwnerReference{APIVersion: "v1", Kind: "ConfigMap", Name: set.Name, UID: set.UID, Controller: new(true)}
	l.fleet = &fleet{start: func() *cluster.Process {
		pod, err := l.create(t.Context(), fmt.Sprintf("member-%d", len(l.podsOf)), nil, true)
		if err != nil {
			t.Fatal(err)
		}
		process := shared.Launch(t, "manager", []string{"POD_NAME=" + pod.Name, "POD_NAMESPACE=" + namespace, "POD_UID=" + string(pod.UID)},
			"--kubeconfig="+shared.Kubeconfig, "--controllers=leader-label", "--kube-api-qps=0",
			"--leader-elect-resource-namespace="+namespace, "--leader-elect-resource-name="+mark,
			"--leader-elect-lease-duration=3s", "--leader-elect-renew-deadline=1s", "--leader-elect-retry-period=300ms")
		l.podsOf[process] = pod
		return process
	}}
	for range n {
		l.members = append(l.members, l.start())
	}
	l.leader(t)
	return l
}

func (l *labelled) create(ctx context.Context, name string, labels map[string]string, sibling bool) (*corev1.Pod, error) {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels},
		Spec:       corev1.PodSpec{SchedulerName: "nobody", Containers: []corev1.Container{{Name: "c", Image: "none"}}},
	}
	if sibling {
		pod.OwnerReferences = []metav1.OwnerReference{l.owner}
	}
	return l.pods.Create(ctx, pod, metav1.CreateOptions{})
}

// right says how the labels of the Pods differ from what they should be. wanted are
// those of Pods that are no members', as they were last written.
func (l *labelled) right(wanted map[string]podLabels) error {
	l.t.Helper()
	list, err := l.pods.List(l.t.Context(), metav1.ListOptions{})
	if err != nil {
		return err
	}
	own := l.podsOf[l.leader(l.t)]
	var errs []error
	missing := maps.Clone(wanted)
	for i := range list.Items {
		pod := &list.Items[i]
		last, others := wanted[pod.Name]
		switch {
		case others:
			delete(missing, pod.Name)
			if want := last.settled(); !maps.Equal(want, pod.Labels) {
				errs = append(errs, fmt.Errorf("%s has the labels %v, want %v", pod.Name, pod.Labels, want))
			}
		case pod.UID == own.UID && (pod.Labels[role] != "leader" || pod.Labels[lease] != mark):
			errs = append(errs, fmt.Errorf("the leader's Pod %s has the labels %v", pod.Name, pod.Labels))
		case pod.UID != own.UID && (podLabels{pod.Labels, true}).lose():
			errs = append(errs, fmt.Errorf("the Pod %s, which does not lead, has the labels %v", pod.Name, pod.Labels))
		}
	}
	if len(missing) > 0 {
		errs = append(errs, fmt.Errorf("Pods that nobody deleted are gone: %v", missing))
	}
	return errors.Join(errs...)
}

// podLabels are a Pod's labels as its writer has left them.
type podLabels struct {
	labels  map[string]string
	sibling bool
}

// lose says, by docs/controllers/leader-label.md, whether a Pod that is not the leader's
// loses both labels.
func (l podLabels) lose() bool {
	value, marked := l.labels[lease]
	return l.labels[role] == "leader" && (marked && value == mark || !marked && l.sibling)
}

// settled are the labels once the controller has done what it should.
func (l podLabels) settled() map[string]string {
	labels := maps.Clone(l.labels)
	if l.lose() {
		delete(labels, role)
		delete(labels, lease)
	}
	return labels
}

// labellings are labels that a Pod can have.
func labellings() []map[string]string {
	return []map[string]string{
		nil,
		{"app": "x"},
		{role: "leader"},
		{role: "leader", lease: mark, "app": "x"},
		{role: "leader", lease: "another"},
		{role: "leader", lease: ""},
		{role: "standby", lease: mark},
		{lease: mark},
	}
}

func TestLeaderLabelChaos(t *testing.T) {
	const namespace = "label-chaos"
	shared.Namespace(t, namespace)
	l := newLabelled(t, 3, namespace)
	var owned [chaosWriters]map[string]podLabels
	for i := range owned {
		owned[i] = map[string]podLabels{}
	}
	chaos(t, l.fleet, func(ctx context.Context, writer int, random *rand.Rand) error {
		ctx = context.WithoutCancel(ctx)
		if random.IntN(10) == 0 {
			return l.interfere(ctx, random)
		}
		return l.write(ctx, owned[writer], fmt.Sprintf("w%d-%d", writer, random.IntN(5)), random)
	})
	wanted := map[string]podLabels{}
	for _, pods := range owned {
		maps.Copy(wanted, pods)
	}
	took := cluster.Eventually(t, 30*time.Second, "the labels are right", func() error { return l.right(wanted) })
	time.Sleep(2 * time.Second)
	if err := l.right(wanted); err != nil {
		t.Errorf("two seconds later: %v", err)
	}
	t.Logf("right %v after the last write", took.Round(time.Millisecond))
}

// write does something to one of the writer's own Pods.
func (l *labelled) write(ctx context.Context, own map[string]podLabels, name string, random *rand.Rand) error {
	all := labellings()
	had, exists := own[name]
	want := podLabels{labels: all[random.IntN(len(all))], sibling: had.sibling}
	switch {
	case !exists:
		want.sibling = random.IntN(2) == 0
		if _, err := l.create(ctx, name, want.labels, want.sibling); err != nil {
			return err
		}
	case random.IntN(5) == 0:
		delete(own, name)
		return l.pods.Delete(ctx, name, metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))})
	default:
		if err := l.relabel(ctx, name, want.labels); err != nil {
			return err
		}
	}
	own[name] = want
	return nil
}

// relabel sets all labels of labellings.
func (l *labelled) relabel(ctx context.Context, name string, labels map[string]string) error {
	all := map[string]any{role: nil, lease: nil, "app": nil}
	for key, value := range labels {
		all[key] = value
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"labels": all}})
	if err != nil {
		return err
	}
	_, err = l.pods.Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{})
	return err
}

// interfere changes the labels of a member's Pod, if it is there.
func (l *labelled) interfere(ctx context.Context, random *rand.Rand) error {
	all := []map[string]string{nil, {role: "leader"}, {role: "leader", lease: mark}, {lease: mark}}
	return ignore(l.relabel(ctx, fmt.Sprintf("member-%d", random.IntN(6)), all[random.IntN(len(all))]), apierrors.IsNotFound)
}

// TestLeaderLabelAmongManyPods has every fifth of many Pods labelled as the leader's by
// their template, and the leader killed.
func TestLeaderLabelAmongManyPods(t *testing.T) {
	const namespace = "label-many"
	all := many()
	shared.Namespace(t, namespace)
	l := newLabelled(t, 2, namespace)
	began := time.Now()
	wanted := map[string]podLabels{}
	for i := range all {
		wanted[fmt.Sprint("pod-", i)] = podLabels{labels: labellings()[[]int{0, 1, 2, 4, 1}[i%5]], sibling: true}
	}
	inParallel(t, all, func(i int) error {
		name := fmt.Sprint("pod-", i)
		_, err := l.create(t.Context(), name, wanted[name].labels, true)
		return err
	})
	filled := time.Since(began)
	cluster.Eventually(t, 30*time.Second, "one of them is labelled", func() error { return l.right(wanted) })
	l.killLeader(t)
	began = time.Now()
	cluster.Eventually(t, 30*time.Second, "the next leader is labelled, too, and alone", func() error { return l.right(wanted) })
	t.Logf("%d Pods made in %v; the next leader labelled %v after the last was killed", all, filled.Round(time.Millisecond), time.Since(began).Round(10*time.Millisecond))
}

// TestLeaderLabelOnTheAPIServer has what the fake API server does not do.
func TestLeaderLabelOnTheAPIServer(t *testing.T) {
	const namespace = "label"
	shared.Namespace(t, namespace)
	l := newLabelled(t, 2, namespace)
	right := func(when string) {
		t.Helper()
		cluster.Eventually(t, 20*time.Second, when, func() error { return l.right(nil) })
	}
	right("at the start")
	for _, labels := range labellings() {
		if err := l.relabel(t.Context(), l.podsOf[l.leader(t)].Name, labels); err != nil {
			t.Fatal(err)
		}
		right(fmt.Sprintf("the leader's Pod was given %v", labels))
	}
	l.killLeader(t)
	right("the leader was killed")

	// Its Pod is replaced by another of its name while it leads.
	leader := l.leader(t)
	own := l.podsOf[leader]
	if err := l.pods.Delete(t.Context(), own.Name, metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))}); err != nil {
		t.Fatal(err)
	}
	replacement, err := l.create(t.Context(), own.Name, map[string]string{"app": "other"}, true)
	if err != nil {
		t.Fatal(err)
	}
	leader.AwaitLog(t, 10*time.Second, "this process's Pod is gone: the API has no Pod "+namespace+"/"+own.Name+" with the UID "+string(own.UID))
	leader.AwaitController(t, 10*time.Second, "leader-label", "backoff")
	found, err := l.pods.Get(t.Context(), replacement.Name, metav1.GetOptions{})
	if err != nil || found.ResourceVersion != replacement.ResourceVersion {
		t.Errorf("the Pod that took over the name: %v, version %s; want it untouched, %s", err, found.ResourceVersion, replacement.ResourceVersion)
	}
	if strings.Contains(leader.Log(), "panic") {
		t.Error("a panic is in the log")
	}
	delete(l.podsOf, leader)
	l.podsOf[leader] = found
	// The next leader's Pod is there.
	l.killLeader(t)
	cluster.Eventually(t, 20*time.Second, "the next leader is labelled", func() error {
		return l.right(map[string]podLabels{replacement.Name: {labels: replacement.Labels, sibling: true}})
	})
}
