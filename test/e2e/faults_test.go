// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/incumbent-io/incumbent/test/cluster"
)

// stubbornManifests deploy the manager whose controller never stops: 2 replicas, and
// a liveness probe that needs one failure only.
const stubbornManifests = `
apiVersion: v1
kind: Namespace
metadata: {name: stubborn}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: stubborn, namespace: stubborn}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: stubborn, namespace: stubborn}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}
subjects: [{kind: ServiceAccount, name: stubborn, namespace: stubborn}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: stubborn, namespace: stubborn}
spec:
  replicas: 2
  selector: {matchLabels: {app: stubborn}}
  template:
    metadata: {labels: {app: stubborn}}
    spec:
      serviceAccountName: stubborn
      terminationGracePeriodSeconds: 1
      containers:
        - name: manager
          image: incumbent-io/stubborn
          args: ["--bind-address=$(POD_IP)"]
          env:
            - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
            - {name: POD_NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
            - {name: POD_UID, valueFrom: {fieldRef: {fieldPath: metadata.uid}}}
            - {name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
          livenessProbe: {httpGet: {scheme: HTTPS, port: 10257, path: /healthz}, periodSeconds: 1, failureThreshold: 1}
          readinessProbe: {httpGet: {scheme: HTTPS, port: 10257, path: /readyz}, periodSeconds: 1}
`

// TestWatchdogRestartsALeaderThatCannotStop cuts a leader off whose controller does
// not stop. Its /healthz must fail, and the liveness probe restart it.
func TestWatchdogRestartsALeaderThatCannotStop(t *testing.T) {
	manifest := filepath.Join(t.TempDir(), "stubborn.yaml")
	if err := os.WriteFile(manifest, []byte(stubbornManifests), 0o600); err != nil {
		t.Fatal(err)
	}
	shared.Kubectl(t, "apply", "-f", manifest)
	t.Cleanup(func() {
		if out, err := shared.Run(context.Background(), "kubectl", "delete", "namespace", "stubborn", "--wait=false"); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
	holder := func() (string, error) {
		object, err := shared.Client.CoordinationV1().Leases("stubborn").Get(t.Context(), "stubborn", metav1.GetOptions{})
		if err != nil {
			return "", err
		}
		if name := holderPod(object); name != "" {
			return name, nil
		}
		return "", errors.New("the lease has no holder")
	}
	var leader string
	cluster.Eventually(t, 30*time.Second, "a leader that runs its controller", func() (err error) {
		if leader, err = holder(); err != nil {
			return err
		}
		if logs := shared.Kubectl(t, "-n", "stubborn", "logs", leader); !strings.Contains(logs, "The stubborn controller runs") {
			return errors.New("it does not run it yet")
		}
		return nil
	})

	cut := time.Now()
	shared.Fault(t, "pod", "stubborn/"+leader, "net", "drop")
	cluster.Eventually(t, 40*time.Second, "an Event of a failed liveness probe", func() error {
		events, err := shared.Client.CoreV1().Events("stubborn").List(t.Context(), metav1.ListOptions{FieldSelector: "involvedObject.name=" + leader + ",reason=Unhealthy"})
		if err != nil {
			return err
		}
		for _, event := range events.Items {
			if strings.Contains(event.Message, "Liveness") && strings.Contains(event.Message, "500") {
				return nil
			}
		}
		return errors.New("there is none")
	})
	t.Logf("/healthz failed %v after the partition began", time.Since(cut).Round(100*time.Millisecond))
	cluster.Eventually(t, 30*time.Second, "a restarted container", func() error {
		pod, err := shared.Client.CoreV1().Pods("stubborn").Get(t.Context(), leader, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if pod.Status.ContainerStatuses[0].RestartCount == 0 {
			return errors.New("restart count is 0")
		}
		return nil
	})
	cluster.Eventually(t, 30*time.Second, "another leader", func() error {
		now, err := holder()
		if err == nil && now == leader {
			err = fmt.Errorf("the lease is still held by %s", now)
		}
		return err
	})
}

// TestUnreachableAPIServerIsNoReasonToRestart cuts a standby off for longer than a
// lease lasts. It must say so in /readyz, stay alive, and recover.
func TestUnreachableAPIServerIsNoReasonToRestart(t *testing.T) {
	d := deploy(t)
	standby := d.standby(t)
	restarts := d.pod(t, standby).Status.ContainerStatuses[0].RestartCount
	address := "https://" + d.pod(t, standby).Status.PodIP + ":10257"
	d.Fault(t, "pod", system+"/"+standby, "net", "refuse")
	healed := false
	heal := func() {
		if !healed {
			d.Fault(t, "pod", system+"/"+standby, "net", "heal")
			healed = true
		}
	}
	defer heal()
	cluster.Eventually(t, 30*time.Second, "a /readyz that says what is wrong", func() error {
		status, body, err := cluster.Get(t, address+"/readyz", "")
		if err != nil {
			return err
		}
		if status != 500 || !strings.Contains(body, "[-]leader-election failed") {
			return fmt.Errorf("got %d %q", status, body)
		}
		return nil
	})
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		if status, body, err := cluster.Get(t, address+"/livez?verbose", ""); err != nil || status != 200 {
			t.Fatalf("/livez without an API server: got %d %q (%v), want 200", status, body, err)
		}
	}
	heal()
	d.awaitSteady(t)
	if got := d.pod(t, standby).Status.ContainerStatuses[0].RestartCount; got != restarts {
		t.Errorf("restarts: got %d, want %d as before", got, restarts)
	}
}

// TestAPIServerRestartIsSurvived restarts the API server under the manager.
func TestAPIServerRestartIsSurvived(t *testing.T) {
	d := deploy(t)
	restarts := map[string]int32{}
	for _, pod := range d.pods(t) {
		restarts[pod.Name] = pod.Status.ContainerStatuses[0].RestartCount
	}
	leader := d.leader(t)
	d.Fault(t, "component", "apiserver", "restart")
	if err := d.AwaitAPIServer(); err != nil {
		t.Fatal(err)
	}
	d.awaitSteady(t)
	if now := d.leader(t); now != leader {
		t.Logf("leadership moved from %s to %s: the restart took longer than the lease lasts", leader, now)
	}
	for _, pod := range d.pods(t) {
		if before, known := restarts[pod.Name]; !known || pod.Status.ContainerStatuses[0].RestartCount != before {
			t.Errorf("Pod %s: got %d restarts, want %d (%v)", pod.Name, pod.Status.ContainerStatuses[0].RestartCount, before, lastEnd(&pod))
		}
	}
}

func lastEnd(pod *corev1.Pod) *corev1.ContainerStateTerminated {
	return pod.Status.ContainerStatuses[0].LastTerminationState.Terminated
}
