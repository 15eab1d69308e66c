// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/incumbent-io/incumbent/test/cluster"
)

const (
	system    = "incumbent-system"
	lease     = "incumbent"
	roleLabel = "incumbent.io/role=leader"
)

// deployment gives access to the manager's Deployment, made from manifests/base.
type deployment struct{ *cluster.Cluster }

// deploy applies the manifests, the first time, and waits until three replicas are
// ready and one leads.
func deploy(t *testing.T) deployment {
	t.Helper()
	d := deployment{shared}
	t.Cleanup(func() {
		if t.Failed() {
			out, err := d.Run(context.Background(), "kubectl", "-n", system, "logs", "-l", "app.kubernetes.io/name=incumbent", "--tail=30", "--prefix")
			t.Logf("the manager's logs (%v):\n%s", err, out)
		}
	})
	d.Kubectl(t, "apply", "-k", "manifests/base")
	d.awaitSteady(t)
	return d
}

// awaitSteady waits until three replicas are ready, and the one that leads carries
// the label.
func (d deployment) awaitSteady(t *testing.T) {
	t.Helper()
	cluster.Eventually(t, time.Minute, "three ready replicas, one of them labelled as the leader", func() error {
		pods := d.pods(t)
		ready := 0
		for _, pod := range pods {
			if isReady(&pod) {
				ready++
			}
		}
		if len(pods) != 3 || ready != 3 {
			return fmt.Errorf("%d of %d Pods are ready", ready, len(pods))
		}
		leader, labelled := d.leader(t), d.labelled(t)
		if len(labelled) != 1 || labelled[0] != leader {
			return fmt.Errorf("the lease is held by %q, the label by %q", leader, labelled)
		}
		return nil
	})
}

func (d deployment) pods(t *testing.T) []corev1.Pod {
	t.Helper()
	list, err := d.Client.CoreV1().Pods(system).List(t.Context(), metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=incumbent"})
	if err != nil {
		t.Fatal(err)
	}
	return list.Items
}

func (d deployment) pod(t *testing.T, name string) *corev1.Pod {
	t.Helper()
	pod, err := d.Client.CoreV1().Pods(system).Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return pod
}

func isReady(pod *corev1.Pod) bool {
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodReady {
			return condition.Status == corev1.ConditionTrue && pod.DeletionTimestamp == nil
		}
	}
	return false
}

func (d deployment) lease(t *testing.T) *coordinationv1.Lease {
	t.Helper()
	object, err := d.Client.CoordinationV1().Leases(system).Get(t.Context(), lease, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return object
}

// leader returns the name of the Pod that holds the lease, "" without one.
func (d deployment) leader(t *testing.T) string {
	t.Helper()
	return holderPod(d.lease(t))
}

// holderPod returns the Pod in a holder identity, which begins with its name.
func holderPod(object *coordinationv1.Lease) string {
	if object.Spec.HolderIdentity == nil {
		return ""
	}
	name, _, _ := strings.Cut(*object.Spec.HolderIdentity, "_")
	return name
}

// labelled returns the Pods with the leader's label.
func (d deployment) labelled(t *testing.T) (names []string) {
	t.Helper()
	list, err := d.Client.CoreV1().Pods(system).List(t.Context(), metav1.ListOptions{LabelSelector: roleLabel})
	if err != nil {
		t.Fatal(err)
	}
	for _, pod := range list.Items {
		names = append(names, pod.Name)
	}
	return names
}

func (d deployment) standby(t *testing.T) string {
	t.Helper()
	leader := d.leader(t)
	for _, pod := range d.pods(t) {
		if pod.Name != leader && isReady(&pod) {
			return pod.Name
		}
	}
	t.Fatal("no standby is ready")
	return ""
}

func TestLeaseTellsWhoLeads(t *testing.T) {
	d := deploy(t)
	before := d.lease(t)
	if got := *before.Spec.LeaseDurationSeconds; got != 15 {
		t.Errorf("lease duration: got %d s, want 15", got)
	}
	cluster.Eventually(t, 10*time.Second, "a renewal", func() error {
		after := d.lease(t)
		if !after.Spec.RenewTime.After(before.Spec.RenewTime.Time) {
			return fmt.Errorf("renew time stays at %v", after.Spec.RenewTime)
		}
		if *after.Spec.LeaseTransitions != *before.Spec.LeaseTransitions {
			t.Errorf("transitions moved from %d to %d without a change of leader", *before.Spec.LeaseTransitions, *after.Spec.LeaseTransitions)
		}
		return nil
	})
	description := d.Kubectl(t, "-n", system, "describe", "lease", lease)
	for _, want := range []string{d.leader(t), "Lease Duration Seconds:  15", "Renew Time:", "Lease Transitions:"} {
		if !strings.Contains(description, want) {
			t.Errorf("kubectl describe lease does not show %q:\n%s", want, description)
		}
	}
}

func TestLogsTellWhoLeads(t *testing.T) {
	d := deploy(t)
	leader, standby := d.leader(t), d.standby(t)
	if logs := d.Kubectl(t, "-n", system, "logs", leader); !strings.Contains(logs, "Became leader") {
		t.Errorf("the leader's log does not say that it leads:\n%s", logs)
	}
	if logs := d.Kubectl(t, "-n", system, "logs", standby); !strings.Contains(logs, leader) {
		t.Errorf("the standby's log does not say that %s leads:\n%s", leader, logs)
	}
	status, body, err := cluster.Get(t, "https://"+d.pod(t, standby).Status.PodIP+":10257/readyz?verbose", "")
	if want := "standby, leader is " + leader; err != nil || status != 200 || !strings.Contains(body, want) {
		t.Errorf("/readyz of the standby: got %d %q (%v), want it to say %q", status, body, err, want)
	}
}

func TestExpiredConfigMapIsDeleted(t *testing.T) {
	deploy(t)
	shared.Namespace(t, "ttl")
	object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "brief", Annotations: map[string]string{"incumbent.io/ttl": "10s"}}}
	maps := shared.Client.CoreV1().ConfigMaps("ttl")
	watch, err := maps.Watch(t.Context(), metav1.ListOptions{FieldSelector: "metadata.name=brief"})
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Stop()
	created := time.Now()
	if _, err := maps.Create(t.Context(), object, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for deadline := time.After(20 * time.Second); ; {
		select {
		case event := <-watch.ResultChan():
			if event.Type != "DELETED" {
				continue
			}
			if lived := time.Since(created); lived < 10*time.Second || lived > 11500*time.Millisecond {
				t.Errorf("it lived %v, want 10 to 11 s", lived)
			}
		case <-deadline:
			t.Fatal("it is still there after 20 s")
		}
		break
	}
	awaitEvent(t, "ttl", "brief", "Expired")
}

func TestBadAnnotationIsReportedOnceAndLeftAlone(t *testing.T) {
	deploy(t)
	shared.Namespace(t, "bad-ttl")
	maps := shared.Client.CoreV1().ConfigMaps("bad-ttl")
	object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "bad", Annotations: map[string]string{"incumbent.io/ttl": "soon"}}}
	if _, err := maps.Create(t.Context(), object, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	awaitEvent(t, "bad-ttl", "bad", "InvalidTTL")
	for n := range 3 { // changes that are none of the controller's business
		patch := fmt.Sprintf(`{"data":{"n":"%d"}}`, n)
		if _, err := maps.Patch(t.Context(), "bad", types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	marker := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "marker", Annotations: map[string]string{"incumbent.io/ttl": "nonsense"}}}
	if _, err := maps.Create(t.Context(), marker, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	awaitEvent(t, "bad-ttl", "marker", "InvalidTTL") // by now the changes have been seen too
	if got := countEvents(t, "bad-ttl", "bad", "InvalidTTL"); got != 1 {
		t.Errorf("got %d warnings, want one", got)
	}
	if _, err := maps.Get(t.Context(), "bad", metav1.GetOptions{}); err != nil {
		t.Errorf("the object should have been left alone: %v", err)
	}
}

// countEvents returns how often an Event with the reason was recorded on the object.
func countEvents(t *testing.T, namespace, name, reason string) (count int32) {
	t.Helper()
	list, err := shared.Client.EventsV1().Events(namespace).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, event := range list.Items {
		if event.Regarding.Name == name && event.Reason == reason {
			count++
			if event.Series != nil {
				count += event.Series.Count - 1
			}
		}
	}
	return count
}

func awaitEvent(t *testing.T, namespace, name, reason string) {
	t.Helper()
	cluster.Eventually(t, 15*time.Second, fmt.Sprintf("an Event %s on %s", reason, name), func() error {
		if countEvents(t, namespace, name, reason) == 0 {
			return errors.New("there is none")
		}
		return nil
	})
}

// TestLeaseThatOthersEditIsKept has eight clients annotate the Lease for a second, as fast
// as they can, and again: renewals meet conflicts, and the leader stays what it is.
func TestLeaseThatOthersEditIsKept(t *testing.T) {
	d := deploy(t)
	before := d.lease(t)
	leases := d.Client.CoordinationV1().Leases(system)
	for range 5 {
		var editors sync.WaitGroup
		var edits atomic.Int64
		until := time.Now().Add(time.Second)
		for n := range 8 {
			editors.Go(func() {
				for time.Now().Before(until) {
					patch := fmt.Sprintf(`{"metadata":{"annotations":{"edited-by-%d":"%d"}}}`, n, edits.Add(1))
					if _, err := leases.Patch(t.Context(), lease, types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		editors.Wait()
		took := cluster.Eventually(t, 5*time.Second, "a renewal after the edits", func() error {
			if renewed := d.lease(t).Spec.RenewTime.Time; renewed.Before(until) {
				return fmt.Errorf("it was last renewed %v before their end", until.Sub(renewed))
			}
			return nil
		})
		t.Logf("renewed %v after %d edits in a second", took.Round(time.Millisecond), edits.Load())
	}
	after := d.lease(t)
	if got, want := holderPod(after), holderPod(before); got != want || *after.Spec.LeaseTransitions != *before.Spec.LeaseTransitions {
		t.Errorf("the lease went from %s (transition %d) to %s (transition %d)", want, *before.Spec.LeaseTransitions, got, *after.Spec.LeaseTransitions)
	}
	if logs := d.Kubectl(t, "-n", system, "logs", d.leader(t)); strings.Count(logs, "The lease was edited") > 20 {
		t.Errorf("the log tells of edits more often than every 2 s:\n%s", logs)
	}
}

// TestFrozenLeaderIsSucceeded stops the leader's process for longer than its lease lasts.
// The others read the Lease before they take it: a watch that has fallen silent might hide
// renewals.
func TestFrozenLeaderIsSucceeded(t *testing.T) {
	d := deploy(t)
	leader := d.leader(t)
	d.Fault(t, "pod", system+"/"+leader, "stop")
	took := cluster.Eventually(t, 30*time.Second, "another leader", func() error {
		if now := d.leader(t); now == leader || now == "" {
			return fmt.Errorf("the lease is held by %q", now)
		}
		return nil
	})
	t.Logf("another replica led %v after the leader was frozen", took)
	used, _, err := readAudit(t.Context(), d.Cluster)
	if err != nil || !used["get leases coordination.k8s.io"] {
		t.Errorf("nobody has read the lease before it was taken (%v)", err)
	}
	d.Fault(t, "pod", system+"/"+leader, "cont")
	d.awaitSteady(t)
	if now := d.leader(t); now == leader {
		t.Errorf("%s leads again after it was frozen", leader)
	}
}

func TestDeletedLeaderIsReplaced(t *testing.T) {
	d := deploy(t)
	before, leader := d.lease(t), d.leader(t)
	d.Kubectl(t, "-n", system, "delete", "pod", leader)
	took := cluster.Eventually(t, 30*time.Second, "another leader", func() error {
		if now := d.leader(t); now == leader || now == "" {
			return fmt.Errorf("the lease is held by %q", now)
		}
		return nil
	})
	t.Logf("another replica led %v after the end of kubectl delete", took)
	if got, want := *d.lease(t).Spec.LeaseTransitions, *before.Spec.LeaseTransitions+1; got != want {
		t.Errorf("transitions: got %d, want %d", got, want)
	}
	d.awaitSteady(t)
}

func TestKilledLeaderIsRestartedAndLeadershipTakenOver(t *testing.T) {
	d := deploy(t)
	before, leader := d.lease(t), d.leader(t)
	restarts := d.pod(t, leader).Status.ContainerStatuses[0].RestartCount
	d.Fault(t, "pod", system+"/"+leader, "kill")
	cluster.Eventually(t, 30*time.Second, "a restarted container", func() error {
		if got := d.pod(t, leader).Status.ContainerStatuses[0].RestartCount; got != restarts+1 {
			return fmt.Errorf("restart count is %d", got)
		}
		return nil
	})
	cluster.Eventually(t, 40*time.Second, "a later term", func() error {
		now := d.lease(t)
		if *now.Spec.LeaseTransitions <= *before.Spec.LeaseTransitions || *now.Spec.HolderIdentity == *before.Spec.HolderIdentity {
			return fmt.Errorf("transitions %d, held by %s", *now.Spec.LeaseTransitions, *now.Spec.HolderIdentity)
		}
		return nil
	})
	d.awaitSteady(t)
}

// TestRolloutNeverLacksAReadyReplicaNorHasTwoLeaders watches every state that the
// API server goes through during a rollout.
func TestRolloutNeverLacksAReadyReplicaNorHasTwoLeaders(t *testing.T) {
	d := deploy(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	pods, err := d.Client.CoreV1().Pods(system).List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	state := map[string]corev1.Pod{}
	for _, pod := range pods.Items {
		state[pod.Name] = pod
	}
	watch, err := d.Client.CoreV1().Pods(system).Watch(ctx, metav1.ListOptions{ResourceVersion: pods.ResourceVersion})
	if err != nil {
		t.Fatal(err)
	}
	checked := make(chan int)
	var stopping atomic.Bool
	go func() {
		events := 0
		defer func() { checked <- events }()
		for event := range watch.ResultChan() {
			pod, ok := event.Object.(*corev1.Pod)
			if !ok {
				if !stopping.Load() {
					t.Errorf("watch: %v", event.Object)
				}
				return
			}
			events++
			if state[pod.Name] = *pod; event.Type == "DELETED" {
				delete(state, pod.Name)
			}
			ready, leaders := 0, 0
			for _, pod := range state {
				if isReady(&pod) {
					ready++
				}
				if pod.Labels["incumbent.io/role"] == "leader" {
					leaders++
				}
			}
			if ready == 0 || leaders > 1 {
				t.Errorf("at a change of Pod %s: %d ready replicas, %d labelled as leaders", pod.Name, ready, leaders)
			}
		}
	}()
	d.Kubectl(t, "-n", system, "rollout", "restart", "deployment/incumbent")
	d.Kubectl(t, "-n", system, "rollout", "status", "deployment/incumbent", "--timeout=2m")
	d.awaitSteady(t)
	stopping.Store(true)
	watch.Stop()
	if events := <-checked; events < 6 {
		t.Errorf("saw only %d changes of Pods; a rollout of three has more", events)
	}
	for _, pod := range d.pods(t) {
		for _, old := range pods.Items {
			if pod.UID == old.UID {
				t.Errorf("Pod %s survived the rollout", pod.Name)
			}
		}
	}
}
