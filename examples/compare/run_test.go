// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package compare

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/incumbent-io/incumbent/test/cluster"
)

// namespace is where each program has its turn.
const namespace = "labeler-system"

// deployment runs the image labeler, with the arguments that are put in.
const deployment = `apiVersion: apps/v1
kind: Deployment
metadata: {name: labeler, namespace: labeler-system}
spec:
  replicas: 1
  selector: {matchLabels: {app: labeler}}
  template:
    metadata: {labels: {app: labeler}}
    spec:
      serviceAccountName: labeler
      containers:
        - name: labeler
          image: labeler-%s
          imagePullPolicy: Never
          args: [%s]
          env:
            - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
            - {name: POD_NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
            - {name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
`

// shared is the local cluster of the test that needs one.
var shared *cluster.Cluster

// TestEachLabels runs one program after the other in a Pod, with its own RBAC and no
// more. Each must label what is there and what comes, and release its lease in the end.
func TestEachLabels(t *testing.T) {
	shared = cluster.Start(t, cluster.Config{})
	shared.Namespace(t, namespace)
	shared.Kubectl(t, "-n", namespace, "create", "serviceaccount", "labeler")
	bin := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-tags=grpcnotrace", "-trimpath", "-ldflags=-s -w", "-o", bin+"/", "./...")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	for _, program := range programs {
		t.Run(program, func(t *testing.T) {
			binary := filepath.Join(bin, program)
			shared.AddImage(t, "labeler-"+program, binary)
			rbac := rbacOf(t, program, binary)
			shared.Kubectl(t, "apply", "-f", rbac)
			args := ""
			if program == "incumbent" {
				args = "--bind-address=$(POD_IP)" // the local cluster's Pods share a network
			}
			object(t, program+"-before")
			file := write(t, "deployment.yaml", fmt.Sprintf(deployment, program, args))
			shared.Kubectl(t, "apply", "-f", file)
			awaitLabel(t, program+"-before")
			object(t, program+"-after")
			awaitLabel(t, program+"-after")
			shared.Kubectl(t, "delete", "--wait", "--cascade=foreground", "-f", file)
			awaitRelease(t)
			shared.Kubectl(t, "-n", namespace, "delete", "lease", "labeler")
			shared.Kubectl(t, "delete", "-f", rbac)
		})
	}
}

// rbacOf returns a file with the RBAC of a program: that which it prints itself, or that
// which somebody has written.
func rbacOf(t *testing.T, program, binary string) string {
	t.Helper()
	if program != "incumbent" {
		return filepath.Join(shared.Root, "examples/compare", program, "rbac.yaml")
	}
	out, err := exec.CommandContext(t.Context(), binary, "rbac", "--namespace="+namespace).Output()
	if err != nil {
		t.Fatalf("rbac: %v\n%s", err, out)
	}
	return write(t, "rbac.yaml", string(out))
}

func write(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// object creates a ConfigMap.
func object(t *testing.T, name string) {
	t.Helper()
	configMap := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if _, err := shared.Client.CoreV1().ConfigMaps(namespace).Create(t.Context(), configMap, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func awaitLabel(t *testing.T, name string) {
	t.Helper()
	cluster.Eventually(t, 30*time.Second, "the label on "+name, func() error {
		configMap, err := shared.Client.CoreV1().ConfigMaps(namespace).Get(t.Context(), name, metav1.GetOptions{})
		if err == nil && configMap.Labels["example.com/seen"] != "true" {
			out, _ := shared.Run(t.Context(), "kubectl", "-n", namespace, "logs", "deployment/labeler", "--tail=20")
			err = fmt.Errorf("its labels are %v; the log:\n%s", configMap.Labels, out)
		}
		return err
	})
}

// awaitRelease waits until nobody holds the lease.
func awaitRelease(t *testing.T) {
	t.Helper()
	cluster.Eventually(t, 10*time.Second, "the release of the lease", func() error {
		lease, err := shared.Client.CoordinationV1().Leases(namespace).Get(t.Context(), "labeler", metav1.GetOptions{})
		if err == nil && lease.Spec.HolderIdentity != nil && *lease.Spec.HolderIdentity != "" {
			err = fmt.Errorf("it is held by %q", *lease.Spec.HolderIdentity)
		}
		return err
	})
}
