// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"

	"github.com/incumbent-io/incumbent/hack/localcluster/cluster"
	"github.com/incumbent-io/incumbent/hack/localcluster/process"
)

// The programs under test, built once.
var localcluster, app string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "localcluster-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	localcluster, app = filepath.Join(dir, "localcluster"), filepath.Join(dir, "app")
	code := 1
	build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", app, "./testdata/app")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	for _, command := range []*exec.Cmd{exec.Command("../build.sh", localcluster), build} {
		command.Stdout, command.Stderr = os.Stderr, os.Stderr
		if err = command.Run(); err != nil {
			fmt.Fprintln(os.Stderr, command.Args, err)
			break
		}
	}
	if err == nil {
		code = m.Run()
	}
	os.RemoveAll(dir)
	os.Exit(code)
}

// testCluster is a running `localcluster up`.
type testCluster struct {
	t      *testing.T
	data   string
	images string // the images file
	cmd    *exec.Cmd
	out    *lockedBuffer
	exited chan struct{}
	client kubernetes.Interface
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// startCluster returns when the cluster is ready, and stops it at the end of the test.
func startCluster(t *testing.T) *testCluster {
	t.Helper()
	dir := t.TempDir()
	c := &testCluster{
		t: t, data: filepath.Join(dir, "data"), images: filepath.Join(dir, "images"),
		out: &lockedBuffer{}, exited: make(chan struct{}),
	}
	if err := os.WriteFile(c.images, []byte("# images of the tests\nexample.com/app:dev="+app+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	c.cmd = exec.Command(localcluster, "up", "--data", c.data, "--images-file", c.images)
	c.cmd.Stdout, c.cmd.Stderr = c.out, c.out
	// A test that is killed takes its cluster with it.
	spawning, stopSpawning := context.WithCancel(context.Background())
	t.Cleanup(stopSpawning)
	if err := process.NewSpawner(spawning).Start(c.cmd); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = c.cmd.Wait() // The state tells.
		close(c.exited)
	}()
	t.Cleanup(func() {
		c.stop(syscall.SIGTERM)
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(c.data, "logs", "nodes.log"))
			t.Logf("output of up:\n%s\nlog of the nodes:\n%s", c.out, log)
		}
	})
	c.eventually(90*time.Second, "up says that it is ready", func() error {
		select {
		case <-c.exited:
			t.Fatalf("up ended:\n%s", c.out)
		default:
		}
		if !strings.Contains(c.out.String(), "ready: https://127.0.0.1:") {
			return errors.New("not yet")
		}
		return nil
	})
	config, err := clientcmd.BuildConfigFromFlags("", filepath.Join(c.data, cluster.KubeconfigName))
	if err != nil {
		t.Fatal(err)
	}
	config.QPS = -1
	if c.client, err = kubernetes.NewForConfig(config); err != nil {
		t.Fatal(err)
	}
	return c
}

// stop ends up with the signal and waits for it.
func (c *testCluster) stop(signal syscall.Signal) {
	c.t.Helper()
	_ = c.cmd.Process.Signal(signal) // It fails when up has ended.
	select {
	case <-c.exited:
	case <-time.After(20 * time.Second):
		_ = c.cmd.Process.Kill()
		c.t.Errorf("up did not end within 20 s of %s", signal)
	}
}

// eventually waits for an effect in other processes, which nothing tells us of.
func (c *testCluster) eventually(timeout time.Duration, what string, check func() error) {
	c.t.Helper()
	eventually(c.t, timeout, what, check)
}

func eventually(t *testing.T, timeout time.Duration, what string, check func() error) {
	t.Helper()
	deadline := time.Now().Add(timeout)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after %s, not true that %s: %v", timeout, what, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// command prepares a subcommand of the program for this cluster.
func (c *testCluster) command(args ...string) *exec.Cmd {
	cmd := exec.Command(localcluster, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+filepath.Join(c.data, cluster.KubeconfigName))
	return cmd
}

// run returns the output of a subcommand, which must succeed.
func (c *testCluster) run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := c.command(args...).CombinedOutput()
	if err != nil {
		t.Fatalf("localcluster %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func (c *testCluster) kubectl(t *testing.T, args ...string) string {
	t.Helper()
	return c.run(t, append([]string{"kubectl"}, args...)...)
}

func (c *testCluster) fault(t *testing.T, args ...string) string {
	t.Helper()
	return strings.TrimSpace(c.run(t, append([]string{"fault", "--data", c.data}, args...)...))
}

func (c *testCluster) status(t *testing.T) cluster.Status {
	t.Helper()
	var s cluster.Status
	if err := json.Unmarshal([]byte(c.fault(t, "status")), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// namespace makes a namespace for one test.
func (c *testCluster) namespace(t *testing.T) string {
	t.Helper()
	name := strings.ToLower(strings.NewReplacer("/", "-", "_", "-").Replace(strings.TrimPrefix(t.Name(), "TestCluster/")))
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if _, err := c.client.CoreV1().Namespaces().Create(t.Context(), ns, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "the namespace has its service account", func() error {
		_, err := c.client.CoreV1().ServiceAccounts(name).Get(t.Context(), "default", metav1.GetOptions{})
		return err
	})
	return name
}

// create makes a Pod from the YAML of its spec, to which what all tests share is added.
func (c *testCluster) create(t *testing.T, namespace, name, spec string) *corev1.Pod {
	t.Helper()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace, Labels: map[string]string{"tier": "one"}}}
	if err := yaml.UnmarshalStrict([]byte(spec), &pod.Spec); err != nil {
		t.Fatal(err)
	}
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			if list[i].Name == "" {
				list[i].Name = "app"
			}
			if list[i].Image == "" {
				list[i].Image = "example.com/app:dev"
			}
			list[i].Env = append(list[i].Env, corev1.EnvVar{Name: "POD_IP", ValueFrom: &corev1.EnvVarSource{
				FieldRef: &corev1.ObjectFieldSelector{FieldPath: "status.podIP"}}})
		}
	}
	pod, err := c.client.CoreV1().Pods(namespace).Create(t.Context(), pod, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return pod
}

// await waits until the Pod is as wanted and returns it.
func (c *testCluster) await(t *testing.T, namespace, name string, timeout time.Duration, what string, ok func(*corev1.Pod) bool) *corev1.Pod {
	t.Helper()
	var pod *corev1.Pod
	eventually(t, timeout, fmt.Sprintf("pod %s/%s %s", namespace, name, what), func() error {
		p, err := c.client.CoreV1().Pods(namespace).Get(context.WithoutCancel(t.Context()), name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		pod = p
		if !ok(p) {
			status, _ := json.Marshal(p.Status)
			return fmt.Errorf("its status is %s", status)
		}
		return nil
	})
	return pod
}

func (c *testCluster) awaitReady(t *testing.T, namespace, name string) *corev1.Pod {
	t.Helper()
	return c.await(t, namespace, name, 20*time.Second, "is Ready", isReady)
}

func isReady(p *corev1.Pod) bool { return condition(p, corev1.PodReady) == corev1.ConditionTrue }

func condition(p *corev1.Pod, kind corev1.PodConditionType) corev1.ConditionStatus {
	for _, c := range p.Status.Conditions {
		if c.Type == kind {
			return c.Status
		}
	}
	return ""
}

// awaitEvent waits for an Event about the Pod with the reason and a part of the message.
func (c *testCluster) awaitEvent(t *testing.T, namespace, pod, reason, part string) {
	t.Helper()
	eventually(t, 10*time.Second, fmt.Sprintf("pod %s has an Event %s with %q", pod, reason, part), func() error {
		events, err := c.client.CoreV1().Events(namespace).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			return err
		}
		var seen []string
		for _, e := range events.Items {
			if e.InvolvedObject.Name != pod {
				continue
			}
			if e.Reason == reason && strings.Contains(e.Message, part) {
				return nil
			}
			seen = append(seen, e.Reason+": "+e.Message)
		}
		return fmt.Errorf("there are %q", seen)
	})
}

// alive tells whether a process exists and is not just waiting to be reaped.
func alive(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(rest, "Z")
}

// processes lists all processes of the cluster, up included.
func (c *testCluster) processes(t *testing.T) []int {
	t.Helper()
	s := c.status(t)
	pids := []int{s.PID}
	for _, component := range s.Components {
		pids = append(pids, component.PID)
	}
	for _, pod := range s.Pods {
		for _, container := range pod.Containers {
			if container.PID != 0 {
				pids = append(pids, container.PID)
			}
		}
	}
	return pids
}

func awaitDead(t *testing.T, pids []int) {
	t.Helper()
	eventually(t, 10*time.Second, "no process of the cluster is left", func() error {
		var left []int
		for _, pid := range pids {
			if alive(pid) {
				left = append(left, pid)
			}
		}
		if len(left) > 0 {
			return fmt.Errorf("these are: %v", left)
		}
		return nil
	})
}
