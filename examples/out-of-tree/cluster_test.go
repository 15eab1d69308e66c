// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/incumbent-io/incumbent/test/cluster"
)

const system = "workspace-system"

// deployed is the manager on a local cluster, as the manifests deploy it.
type deployed struct {
	t *testing.T
	*cluster.Cluster
	binary string
}

// start starts the cluster and builds the manager; it does not deploy it yet.
func start(t *testing.T) *deployed {
	t.Helper()
	c := cluster.Start(t, cluster.Config{})
	d := &deployed{t: t, Cluster: c, binary: filepath.Join(t.TempDir(), name)}
	build := exec.CommandContext(t.Context(), "go", "build", "-tags=grpcnotrace", "-trimpath", "-ldflags=-s -w", "-o", d.binary, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	c.AddImage(t, "example.com/"+name, d.binary)
	return d
}

func (d *deployed) kubectl(args ...string) string {
	d.t.Helper()
	return d.Kubectl(d.t, args...)
}

func (d *deployed) manifests(file string) string {
	return filepath.Join(d.Root, "examples/out-of-tree/manifests", file)
}

// apply writes a workspace with that spec.
func (d *deployed) apply(workspace, spec string) (string, error) {
	d.t.Helper()
	file := filepath.Join(d.t.TempDir(), workspace+".yaml")
	content := fmt.Sprintf("apiVersion: example.com/v1alpha1\nkind: Workspace\nmetadata: {name: %s}\nspec: %s\n", workspace, spec)
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		d.t.Fatal(err)
	}
	return d.Run(d.t.Context(), "kubectl", "apply", "-f", file)
}

func (d *deployed) create(workspace, spec string) {
	d.t.Helper()
	if out, err := d.apply(workspace, spec); err != nil {
		d.t.Fatalf("workspace %s: %v\n%s", workspace, err, out)
	}
}

// until waits until kubectl prints the text.
func (d *deployed) until(limit time.Duration, want string, args ...string) {
	d.t.Helper()
	cluster.Eventually(d.t, limit, "kubectl "+strings.Join(args, " "), func() error {
		out, err := d.Run(d.t.Context(), "kubectl", args...)
		if err == nil && !strings.Contains(out, want) {
			err = errors.New("it does not say so")
		}
		if err != nil {
			err = fmt.Errorf("want %q: %w:\n%s", want, err, out)
		}
		return err
	})
}

// untilGone waits until there is no such object.
func (d *deployed) untilGone(limit time.Duration, object ...string) {
	d.t.Helper()
	cluster.Eventually(d.t, limit, fmt.Sprintf("the end of %q", object), func() error {
		out, err := d.Run(d.t.Context(), "kubectl", append([]string{"get", "--ignore-not-found"}, object...)...)
		if err == nil && out != "" {
			err = errors.New(out)
		}
		return err
	})
}

// enable sets the list of controllers, as an operator would.
func (d *deployed) enable(list string) {
	d.t.Helper()
	config := `apiVersion: config.incumbent.io/v1alpha1
kind: ManagerConfiguration
controllers: ` + list + "\n"
	patch := fmt.Sprintf(`{"data":{"config.yaml":%q}}`, config)
	d.kubectl("-n", system, "patch", "configmap", "incumbent-config", "--type=merge", "--patch="+patch)
}

func (d *deployed) leader() string {
	d.t.Helper()
	holder := d.kubectl("-n", system, "get", "lease", name, "--output=jsonpath={.spec.holderIdentity}")
	pod, _, _ := strings.Cut(holder, "_")
	return pod
}

// TestWorkspacesOnACluster is the life of the manager and its workspaces.
func TestWorkspacesOnACluster(t *testing.T) {
	d := start(t)

	t.Log("without the definition, both controllers wait; with it, they run")
	early := d.Launch(t, d.binary, []string{"POD_NAMESPACE=default"}, "--kubeconfig="+d.Kubeconfig)
	early.AwaitController(t, 20*time.Second, "workspace", "blocked")
	early.AwaitController(t, 20*time.Second, "workspace-expiry", "blocked")
	d.kubectl("apply", "-f", d.manifests("crd.yaml"))
	early.AwaitController(t, 20*time.Second, "workspace", "running")
	early.Terminate(t)

	t.Log("three replicas, with the RBAC that the controllers declare")
	out := d.kubectl("apply", "-k", d.manifests(""), "--validate=strict")
	if strings.Contains(strings.ToLower(out), "warning") {
		t.Errorf("kubectl apply warns:\n%s", out)
	}
	d.kubectl("-n", system, "rollout", "status", "deployment/"+name, "--timeout=60s")
	if out, err := d.Run(t.Context(), d.binary, "preflight", "--config="+d.manifests("config.yaml"), "--kubeconfig="+d.Kubeconfig,
		"--namespace="+system, "--as=system:serviceaccount:"+system+":"+name); err != nil {
		t.Errorf("preflight: %v\n%s", err, out)
	}

	t.Log("a workspace gets its namespace, its quota, its status and an Event")
	d.create("team", "{maxPods: 7, expiresAfter: 24h}")
	d.kubectl("wait", "--for=condition=Ready", "workspace/team", "--timeout=30s")
	d.until(10*time.Second, "7", "-n", "ws-team", "get", "resourcequota", "workspace", "--output=jsonpath={.status.hard.pods}")
	d.until(10*time.Second, "Created", "get", "events", "--field-selector=involvedObject.kind=Workspace,involvedObject.name=team")
	d.until(10*time.Second, "ws-team", "get", "workspaces")
	if expires := d.kubectl("get", "workspace", "team", "--output=jsonpath={.status.expiresAt}"); expires == "" {
		t.Error("its status does not say when it expires")
	}

	t.Log("what cannot be is refused, or said")
	for workspace, spec := range map[string]string{"none": "{maxPods: 0}", "a.b": "{maxPods: 1}", "soon": "{maxPods: 1, expiresAfter: soon}"} {
		if out, err := d.apply(workspace, spec); err == nil || !strings.Contains(out, "is invalid") {
			t.Errorf("workspace %s with %s: got %v\n%s\nwant it refused", workspace, spec, err, out)
		}
	}
	d.kubectl("create", "namespace", "ws-taken")
	d.create("taken", "{maxPods: 1}")
	d.until(20*time.Second, "Conflict", "get", "workspace", "taken")
	d.kubectl("delete", "workspace", "taken", "--timeout=20s")
	d.kubectl("get", "namespace", "ws-taken") // It is still there.

	t.Log("many, while the leader goes")
	const many = 10
	leader := d.leader()
	for i := range many {
		d.create(fmt.Sprint("many-", i), "{maxPods: 1}")
		if i == many/2 {
			d.kubectl("-n", system, "delete", "pod", leader, "--wait=false")
		}
	}
	for i := range many {
		d.kubectl("wait", "--for=condition=Ready", fmt.Sprint("workspace/many-", i), "--timeout=30s")
	}
	if now := d.leader(); now == leader {
		t.Errorf("%s still leads", now)
	}

	t.Log("expiry is switched off, and on")
	d.enable(`["*", "-workspace-expiry"]`)
	d.until(20*time.Second, "Controller is disabled", "-n", system, "logs", d.leader())
	d.create("brief", "{maxPods: 1, expiresAfter: 1s}")
	d.kubectl("wait", "--for=condition=Ready", "workspace/brief", "--timeout=30s")
	time.Sleep(2 * time.Second) // in which a controller that still ran would have deleted it
	d.until(0, "brief", "get", "workspace", "brief")
	d.enable(`["*"]`)
	d.untilGone(40*time.Second, "workspace", "brief")
	d.untilGone(0, "namespace", "ws-brief")

	t.Log("a namespace goes before its workspace")
	d.kubectl("delete", "workspace", "team", "--timeout=60s")
	d.untilGone(0, "namespace", "ws-team")
}
