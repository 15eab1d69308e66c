// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

// Package manifests applies everything below manifests/ to a real API server, which
// checks every field, and waits until the Pods are ready.
package manifests

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/incumbent-io/incumbent/pkg/leaderelection"
	"github.com/incumbent-io/incumbent/test/cluster"
)

// system is the namespace of the manifests.
const system = "incumbent-system"

// operator is the module that has the definitions of ServiceMonitor and PrometheusRule.
const operator = "github.com/prometheus-operator/prometheus-operator@v0.85.0"

var shared *cluster.Cluster

func TestMain(m *testing.M) {
	os.Exit(cluster.Main(cluster.Config{}, func(c *cluster.Cluster) int {
		shared = c
		return m.Run()
	}))
}

// overlays returns a folder for everything that a user may apply: those of the
// repository, and one for each component on the base.
func overlays(t *testing.T) map[string]string {
	t.Helper()
	folders := map[string]string{}
	for _, pattern := range []string{"manifests/base", "manifests/overlays/*"} {
		found, err := filepath.Glob(filepath.Join(shared.Root, pattern))
		if err != nil || len(found) == 0 {
			t.Fatalf("%s: found %q (%v)", pattern, found, err)
		}
		for _, folder := range found {
			folders[strings.TrimPrefix(folder, shared.Root+"/manifests/")] = folder
		}
	}
	components, err := filepath.Glob(filepath.Join(shared.Root, "manifests/components/*"))
	if err != nil || len(components) < 2 {
		t.Fatalf("components: found %q (%v)", components, err)
	}
	for _, component := range components {
		folder := t.TempDir()
		base, err := filepath.Rel(folder, filepath.Join(shared.Root, "manifests/base"))
		if err != nil {
			t.Fatal(err)
		}
		content := fmt.Sprintf("resources: [%s]\ncomponents: [%s]\n", base, filepath.Join(base, "../components", filepath.Base(component)))
		if err := os.WriteFile(filepath.Join(folder, "kustomization.yaml"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		folders["components/"+filepath.Base(component)] = folder
	}
	return folders
}

// installDefinitions serves the kinds of the Prometheus operator, which itself is not
// needed to check objects of them.
func installDefinitions(t *testing.T) {
	t.Helper()
	download := exec.CommandContext(t.Context(), "go", "mod", "download", "-json", operator)
	download.Dir = t.TempDir()
	out, err := download.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", operator, err, out)
	}
	var module struct{ Dir string }
	if err := json.Unmarshal(out, &module); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"servicemonitors", "prometheusrules"} {
		shared.Kubectl(t, "create", "-f", filepath.Join(module.Dir, "example/prometheus-operator-crd", "monitoring.coreos.com_"+name+".yaml"))
		shared.Kubectl(t, "wait", "--for=condition=Established", "--timeout=30s", "crd/"+name+".monitoring.coreos.com")
	}
}

// TestEverythingIsAcceptedAndRuns applies each overlay, as one after the other on the
// same cluster, with every field checked, and waits for its Pods.
func TestEverythingIsAcceptedAndRuns(t *testing.T) {
	installDefinitions(t)
	for name, folder := range overlays(t) {
		t.Run(name, func(t *testing.T) {
			out := shared.Kubectl(t, "apply", "-k", folder, "--validate=strict")
			if strings.Contains(strings.ToLower(out), "warning") {
				t.Errorf("kubectl apply warns:\n%s", out)
			}
			t.Cleanup(func() {
				// The managers first, while they still may release the lease.
				if out, err := shared.Run(context.Background(), "kubectl", "-n", system, "delete", "deployment/incumbent", "--cascade=foreground"); err != nil {
					t.Errorf("delete the Deployment: %v\n%s", err, out)
				}
				if out, err := shared.Run(context.Background(), "kubectl", "delete", "-k", folder, "--ignore-not-found", "--wait=false"); err != nil {
					t.Errorf("delete: %v\n%s", err, out)
				}
				if err := gone(); err != nil {
					t.Error(err)
				}
				// An API server may not follow the Lease of a fencing policy that was
				// deleted and created again (docs/safety.md); a new one does.
				if out, err := shared.Run(context.Background(), "localcluster", "fault", "--data", shared.Data, "component", "apiserver", "restart"); err != nil {
					t.Errorf("restart the API server: %v\n%s", err, out)
				}
				if err := shared.AwaitAPIServer(); err != nil {
					t.Errorf("the API server after its restart: %v", err)
				}
			})
			expectNamespace(t, folder)
			shared.Kubectl(t, "-n", system, "rollout", "status", "deployment/incumbent", "--timeout=2m")
			expectReady(t)
			expectRestricted(t)
		})
	}
	expectNothingForbidden(t)
}

// expectNamespace expects that whatever is in a namespace is in that of the manifests:
// a ServiceMonitor in another one finds no Service.
func expectNamespace(t *testing.T, folder string) {
	t.Helper()
	out := shared.Kubectl(t, "get", "-k", folder, "-o", `jsonpath={range .items[*]}{.metadata.namespace} {.kind}/{.metadata.name}{"\n"}{end}`)
	found := 0
	for line := range strings.Lines(out) {
		switch namespace, object, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " "); namespace {
		case "":
		case system:
			found++
		default:
			t.Errorf("%s is in the namespace %q, want %q", object, namespace, system)
		}
	}
	if found < 5 {
		t.Errorf("read %d objects in the namespace %s", found, system)
	}
}

// gone waits until the namespace is gone.
func gone() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return cluster.Poll(ctx, func() error {
		_, err := shared.Client.CoreV1().Namespaces().Get(ctx, system, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("the namespace is still there (%v)", err)
	})
}

// expectReady expects as many ready Pods as the Deployment wants, and one leader.
func expectReady(t *testing.T) {
	t.Helper()
	cluster.Eventually(t, time.Minute, "ready Pods and a leader", func() error {
		deployment, err := shared.Client.AppsV1().Deployments(system).Get(t.Context(), "incumbent", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if want := *deployment.Spec.Replicas; deployment.Status.ReadyReplicas != want || deployment.Status.Replicas != want {
			return fmt.Errorf("%d of %d replicas are ready, want %d", deployment.Status.ReadyReplicas, deployment.Status.Replicas, want)
		}
		lease, err := shared.Client.CoordinationV1().Leases(system).Get(t.Context(), "incumbent", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if lease.Spec.HolderIdentity == nil || *lease.Spec.HolderIdentity == "" {
			return errors.New("nobody leads")
		}
		return nil
	})
}

// expectRestricted expects that the namespace takes no Pod that is not restricted.
func expectRestricted(t *testing.T) {
	t.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "unrestricted"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "incumbent-io/manager"}}},
	}
	_, err := shared.Client.CoreV1().Pods(system).Create(t.Context(), pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "PodSecurity") {
		t.Errorf("an unrestricted Pod: got %v, want it refused by Pod Security", err)
	}
}

// expectNothingForbidden looks for requests of the manager that were refused, other
// than by a namespace that was being deleted.
func expectNothingForbidden(t *testing.T) {
	t.Helper()
	account := "system:serviceaccount:" + system + ":incumbent"
	requests, err := shared.Audit(time.Time{}, account).Requests(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	// A policy that was just created is enforced up to two seconds before the API server
	// follows the Lease that it looks at. The manager sends such a write again.
	refusedSince := map[string]time.Time{}
	for _, r := range requests {
		if r.User.Username != account || r.Stage != "ResponseComplete" {
			continue
		}
		seen++
		path, _, _ := strings.Cut(r.RequestURI, "?")
		request := r.Verb + " " + path
		switch began, refused := refusedSince[request]; {
		case r.ResponseStatus.Code < 300 && refused:
			delete(refusedSince, request)
			t.Logf("the fencing policy refused for %v: %s", r.StageTimestamp.Sub(began), request)
		case r.ResponseStatus.Code != 403, strings.Contains(r.ResponseStatus.Message, "being terminated"):
		case strings.Contains(r.ResponseStatus.Message, leaderelection.PolicyRefusal):
			if !refused {
				refusedSince[request], began = r.StageTimestamp, r.StageTimestamp
			}
			if r.StageTimestamp.Sub(began) > 3*time.Second {
				t.Errorf("the fencing policy refuses the leader for more than 3 s: %s", request)
			}
		default:
			t.Errorf("forbidden: %s: %s", request, r.ResponseStatus.Message)
		}
	}
	for request := range refusedSince {
		t.Errorf("the fencing policy refused, and it was not tried again: %s", request)
	}
	if seen == 0 {
		t.Errorf("the audit log has no request of %s", account)
	}
}
