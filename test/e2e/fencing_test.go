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

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/incumbent-io/incumbent/pkg/leaderelection"

	"github.com/incumbent-io/incumbent/test/cluster"
)

// applyFencing applies manifests/base with the fencing component, and takes the
// component away after the test.
func (d deployment) applyFencing(t *testing.T) {
	t.Helper()
	overlay := t.TempDir()
	manifests, err := filepath.Rel(overlay, filepath.Join(d.Root, "manifests"))
	if err != nil {
		t.Fatal(err)
	}
	kustomization := fmt.Sprintf("resources: [%s/base]\ncomponents: [%[1]s/components/fencing]\n", manifests)
	if err := os.WriteFile(filepath.Join(overlay, "kustomization.yaml"), []byte(kustomization), 0o600); err != nil {
		t.Fatal(err)
	}
	d.Kubectl(t, "apply", "-k", overlay)
	t.Cleanup(func() {
		for _, kind := range []string{"validatingadmissionpolicybinding", "validatingadmissionpolicy"} {
			if out, err := d.Run(context.Background(), "kubectl", "delete", kind, "incumbent-fencing"); err != nil {
				t.Errorf("remove the policy: %v\n%s", err, out)
			}
		}
		if out, err := d.Run(context.Background(), "kubectl", "apply", "-k", "manifests/base"); err != nil {
			t.Errorf("apply the base again: %v\n%s", err, out)
		}
		// kube-apiserver does not follow the Lease for a policy that is created after
		// the last one was deleted (docs/safety.md), until it is started again.
		if out, err := d.Run(context.Background(), "localcluster", "fault", "--data", d.Data, "component", "apiserver", "restart"); err != nil {
			t.Errorf("restart the API server: %v\n%s", err, out)
		}
		if err := d.AwaitAPIServer(); err != nil {
			t.Errorf("the API server after its restart: %v", err)
		}
	})
	d.Kubectl(t, "-n", system, "rollout", "status", "deployment/incumbent", "--timeout=2m")
	d.awaitSteady(t)
}

// as returns a client with a token of the manager's service account, bound to the Pod
// unless pod is "".
func (d deployment) as(t *testing.T, pod string) kubernetes.Interface {
	t.Helper()
	request := &authenticationv1.TokenRequest{}
	if pod != "" {
		request.Spec.BoundObjectRef = &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: pod, UID: d.pod(t, pod).UID}
	}
	token, err := d.Client.CoreV1().ServiceAccounts(system).CreateToken(t.Context(), "incumbent", request, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	config := rest.AnonymousClientConfig(d.REST)
	config.BearerToken = token.Status.Token
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// write makes a change that the manager's rules allow.
func (d deployment) write(t *testing.T, client kubernetes.Interface, pod string) error {
	t.Helper()
	patch := fmt.Sprintf(`{"metadata":{"annotations":{"e2e":"%d"}}}`, time.Now().UnixNano())
	_, err := client.CoreV1().Pods(system).Patch(t.Context(), pod, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	return err
}

func TestFencingPolicyAdmitsOnlyTheLeader(t *testing.T) {
	d := deploy(t)
	d.applyFencing(t)
	leader, standby := d.leader(t), d.standby(t)
	asLeader, asStandby, asNobody := d.as(t, leader), d.as(t, standby), d.as(t, "")
	cluster.Eventually(t, 15*time.Second, "a refusal of what a standby writes", func() error {
		err := d.write(t, asStandby, standby)
		if err == nil {
			return errors.New("the write was accepted")
		}
		if !strings.Contains(err.Error(), leaderelection.PolicyRefusal) {
			return err
		}
		return nil
	})
	if err := d.write(t, asNobody, standby); err == nil || !strings.Contains(err.Error(), leaderelection.PolicyRefusal) {
		t.Errorf("a token that is bound to no Pod: got %v, want the policy's refusal", err)
	}
	if err := d.write(t, asLeader, standby); err != nil {
		t.Errorf("the leader: got %v, want its write accepted", err)
	}
	if err := d.write(t, d.Client, standby); err != nil {
		t.Errorf("the administrator: got %v, want the write accepted", err)
	}

	d.Kubectl(t, "-n", system, "delete", "pod", leader)
	d.awaitSteady(t)
	next := d.leader(t)
	if next == leader {
		t.Fatalf("%s leads still", next)
	}
	if logs := d.Kubectl(t, "-n", system, "logs", next); strings.Contains(logs, leaderelection.PolicyRefusal) {
		t.Errorf("the policy's lag shows in the new leader's log:\n%s", logs)
	}
	if err := d.write(t, asLeader, next); err == nil {
		t.Error("the deposed leader's write was accepted")
	}
}

// TestFencingWithoutALeaseStopsNobody removes every replica and the Lease. The policy
// must neither stop the rest of the cluster nor the manager's return.
func TestFencingWithoutALeaseStopsNobody(t *testing.T) {
	d := deploy(t)
	d.applyFencing(t)
	d.Kubectl(t, "-n", system, "scale", "deployment/incumbent", "--replicas=0")
	d.Kubectl(t, "-n", system, "wait", "--for=delete", "pod", "-l", "app.kubernetes.io/name=incumbent", "--timeout=60s")
	d.Kubectl(t, "-n", system, "delete", "lease", lease)
	for n := range 20 { // the policy's view of the Lease lags by milliseconds
		name := fmt.Sprintf("fencing-bystander-%d", n)
		d.Kubectl(t, "create", "namespace", name)
		d.Kubectl(t, "delete", "namespace", name, "--wait=false")
	}
	d.Kubectl(t, "-n", system, "scale", "deployment/incumbent", "--replicas=3")
	d.awaitSteady(t)
}

func TestFencingNeedsToKnowThePod(t *testing.T) {
	out, err := shared.Run(t.Context(), "manager", "--fencing", "--kubeconfig="+shared.Kubeconfig)
	if err == nil || !strings.Contains(out, "POD_NAME") || !strings.Contains(out, "downward API") {
		t.Errorf("got %v and %q, want a refusal that names the variables", err, out)
	}
}
