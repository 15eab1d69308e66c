// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/incumbent-io/incumbent/test/cluster"

	"example.com/welcome-manager/welcome"
)

// launch starts the manager under test as the service account of that name, which may do
// what its rbac subcommand says and nothing else. The account tells the managers apart in
// the audit log.
func launch(t *testing.T, namespace, account string, args ...string) *cluster.Process {
	t.Helper()
	kubeconfig := shared.KubeconfigFor(t, namespace, account)
	rbac := exec.CommandContext(t.Context(), os.Args[0], "rbac", "--namespace="+namespace, "--role="+namespace+"-"+account, "--service-account="+account)
	rbac.Env = append(os.Environ(), asManager+"=1")
	roles, err := rbac.Output()
	if err != nil {
		t.Fatalf("rbac: %v\n%s", err, roles)
	}
	file := filepath.Join(t.TempDir(), "rbac.yaml")
	if err := os.WriteFile(file, roles, 0o600); err != nil {
		t.Fatal(err)
	}
	shared.Kubectl(t, "apply", "-f", file)
	return shared.Launch(t, os.Args[0], []string{asManager + "=1", "POD_NAMESPACE=" + namespace}, append([]string{
		"--kubeconfig=" + kubeconfig, "--kube-api-qps=0",
		"--leader-elect-lease-duration=5s", "--leader-elect-renew-deadline=3s", "--leader-elect-retry-period=1s",
	}, args...)...)
}

// ask creates a ConfigMap for the trial controller.
func ask(t *testing.T, namespace, name, do string) {
	t.Helper()
	object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"trial": do}}}
	if _, err := shared.Client.CoreV1().ConfigMaps(namespace).Create(t.Context(), object, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func awaitAnnotation(t *testing.T, namespace, name, key, want string) {
	t.Helper()
	cluster.Eventually(t, 20*time.Second, fmt.Sprintf("%s=%s on %s", key, want, name), func() error {
		object, err := shared.Client.CoreV1().ConfigMaps(namespace).Get(t.Context(), name, metav1.GetOptions{})
		if err == nil && object.Annotations[key] != want {
			err = fmt.Errorf("its annotations are %v", object.Annotations)
		}
		return err
	})
}

// invite asks for a welcome in the namespace.
func invite(t *testing.T, namespace, text string) {
	t.Helper()
	patch := fmt.Appendf(nil, `{"metadata":{"annotations":{%q:%q}}}`, welcome.Annotation, text)
	if _, err := shared.Client.CoreV1().Namespaces().Patch(t.Context(), namespace, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
}

// welcomed returns the text of the welcome.
func welcomed(t *testing.T, namespace string) (string, error) {
	t.Helper()
	object, err := shared.Client.CoreV1().ConfigMaps(namespace).Get(t.Context(), "welcome", metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	return object.Data["text"], nil
}

func awaitWelcome(t *testing.T, namespace, want string) {
	t.Helper()
	cluster.Eventually(t, 20*time.Second, "the welcome "+want, func() error {
		got, err := welcomed(t, namespace)
		if err == nil && got != want {
			err = fmt.Errorf("it says %q", got)
		}
		return err
	})
}

// writes reads from the audit log what the service accounts of the namespace tried to
// write to objects in it, in the order in which it arrived, whether it was accepted or not.
func writes(t *testing.T, namespace string) []cluster.Request {
	t.Helper()
	requests, err := shared.Audit(time.Time{}, "system:serviceaccount:"+namespace+":").Requests(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	requests = slices.DeleteFunc(requests, func(r cluster.Request) bool {
		return !r.IsWrite() || r.ObjectRef.Namespace != namespace || !strings.HasPrefix(r.User.Username, "system:serviceaccount:")
	})
	slices.SortFunc(requests, func(a, b cluster.Request) int {
		return a.RequestReceivedTimestamp.Compare(b.RequestReceivedTimestamp)
	})
	return requests
}

// holder returns the holder of the only Lease of the namespace, "" for nobody.
func holder(t *testing.T, namespace string) string {
	t.Helper()
	leases, err := shared.Client.CoordinationV1().Leases(namespace).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(leases.Items) != 1 {
		t.Fatalf("got %d leases, want one: controller-runtime's own election is off", len(leases.Items))
	}
	if leases.Items[0].Spec.HolderIdentity == nil {
		return ""
	}
	return *leases.Items[0].Spec.HolderIdentity
}

func TestItWorksAndNothingOfItsOwnIsServed(t *testing.T) {
	shared.Namespace(t, "works")
	p := launch(t, "works", "a")
	p.AwaitController(t, 20*time.Second, "welcome", "running")
	invite(t, "works", "hello")
	awaitWelcome(t, "works", "hello")
	// What it owns, it looks after.
	shared.Kubectl(t, "-n", "works", "patch", "configmap", "welcome", "--type=merge", `--patch={"data":{"text":"vandalism"}}`)
	awaitWelcome(t, "works", "hello")
	shared.Kubectl(t, "-n", "works", "delete", "configmap", "welcome")
	awaitWelcome(t, "works", "hello")

	holder(t, "works")
	listening, err := listeners(p.Process.Pid)
	if want := []string{strings.TrimPrefix(p.Address, "https://127.0.0.1:")}; err != nil || !slices.Equal(listening, want) {
		t.Errorf("it listens on ports %q (%v), want only the manager's %q", listening, err, want)
	}
	p.Terminate(t)
	if got := holder(t, "works"); got != "" {
		t.Errorf("the lease is held by %q after the end, want it released", got)
	}
}

// listeners returns the TCP ports on which a process listens.
func listeners(pid int) (ports []string, err error) {
	descriptors, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		return nil, err
	}
	sockets := map[string]bool{}
	for _, descriptor := range descriptors {
		if target, err := os.Readlink(descriptor); err == nil { // else it has just been closed
			sockets[strings.TrimSuffix(strings.TrimPrefix(target, "socket:["), "]")] = true
		}
	}
	for _, table := range []string{"tcp", "tcp6"} {
		content, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, table))
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(content)) {
			const listen = "0A"
			fields := strings.Fields(line)
			if len(fields) < 10 || fields[3] != listen || !sockets[fields[9]] {
				continue
			}
			var port int
			if _, err := fmt.Sscanf(fields[1][strings.LastIndex(fields[1], ":")+1:], "%X", &port); err != nil {
				return nil, err
			}
			ports = append(ports, fmt.Sprint(port))
		}
	}
	return ports, nil
}

// TestADeposedLeaderCannotWrite stops the process of a leader whose reconciler never
// stops writing, until another leads, and lets it go on.
func TestADeposedLeaderCannotWrite(t *testing.T) {
	shared.Namespace(t, "fenced")
	before := shared.Watches(t, "configmaps", "cluster")
	first := launch(t, "fenced", "first")
	first.AwaitController(t, 20*time.Second, "trial", "running")
	ask(t, "fenced", "nail", "hammer")
	second := launch(t, "fenced", "second")
	second.AwaitController(t, 20*time.Second, "welcome", "warm")
	cluster.Eventually(t, 10*time.Second, "the caches of a standby", func() error {
		// The leader's two controllers have a watch each, the standby's welcome has one,
		// and its trial, which names nothing to be warm, has none.
		if n := shared.Watches(t, "configmaps", "cluster") - before; n != 3 {
			return fmt.Errorf("there are %d watches on ConfigMaps, want 3", n)
		}
		return nil
	})
	leader := holder(t, "fenced")

	if err := first.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	stopped := time.Now()
	second.AwaitController(t, 20*time.Second, "trial", "running")
	if now := holder(t, "fenced"); now == leader || now == "" {
		t.Fatalf("the lease is held by %q, want another than %q", now, leader)
	}
	if err := first.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	first.AwaitLog(t, 20*time.Second, "A hundred writes were refused")
	// It is alive, and a standby again.
	first.AwaitController(t, 20*time.Second, "trial", "warm")
	shared.Kubectl(t, "-n", "fenced", "delete", "configmap", "nail")
	second.Terminate(t)
	first.AwaitController(t, 20*time.Second, "trial", "running")
	first.Terminate(t)

	var led time.Time // when the second began to write its lease
	early, late, standby := 0, 0, 0
	for _, w := range writes(t, "fenced") {
		account := w.User.Username[strings.LastIndex(w.User.Username, ":")+1:]
		switch at := w.RequestReceivedTimestamp; {
		case account == "second" && w.ObjectRef.Resource == "leases" && led.IsZero() && at.After(stopped):
			led = at
		case account == "second" && w.ObjectRef.Resource == "configmaps" && led.IsZero():
			standby++
		case account == "first" && w.ObjectRef.Resource == "configmaps" && led.IsZero():
			early++
		case account == "first" && w.ObjectRef.Resource == "configmaps":
			late++
		}
	}
	if early < 10 || led.IsZero() {
		t.Fatalf("the first wrote %d times before the second led (at %v); the test shows nothing", early, led)
	}
	if late > 0 || standby > 0 {
		t.Errorf("around %v, when the second led: the deposed leader wrote %d times after it, the standby %d times before", led, late, standby)
	}
	t.Logf("the first wrote %d times while it led, then %d times", early, late)
}

// TestADrainWaitsForTheReconcile asks the manager to stop in the middle of one.
func TestADrainWaitsForTheReconcile(t *testing.T) {
	shared.Namespace(t, "drained")
	p := launch(t, "drained", "a")
	p.AwaitController(t, 20*time.Second, "trial", "running")
	ask(t, "drained", "work", "slow")
	awaitAnnotation(t, "drained", "work", "began", "slow")
	p.Terminate(t)
	awaitAnnotation(t, "drained", "work", "ended", "slow")
	if got := holder(t, "drained"); got != "" {
		t.Errorf("the lease is held by %q after the end, want it released", got)
	}
	all := slices.DeleteFunc(writes(t, "drained"), func(r cluster.Request) bool { return r.ObjectRef.Resource == "events" })
	if last := all[len(all)-1]; last.ObjectRef.Resource != "leases" {
		t.Errorf("the last write was not the release of the lease: %v", all)
	}
}

// TestTroubleStaysWithTheController has its manager of controller-runtime fail, and one of
// its reconciles panic.
func TestTroubleStaysWithTheController(t *testing.T) {
	shared.Namespace(t, "troubled")
	p := launch(t, "troubled", "a")
	p.AwaitController(t, 20*time.Second, "trial", "running")
	p.AwaitController(t, 20*time.Second, "welcome", "running")
	leader := holder(t, "troubled")

	ask(t, "troubled", "one", "panic")
	p.AwaitLog(t, 10*time.Second, "panic: the trial asks for it")
	ask(t, "troubled", "two", "mark")
	awaitAnnotation(t, "troubled", "two", "ended", "mark") // the next one is reconciled

	ask(t, "troubled", "three", "fail")
	p.AwaitLog(t, 10*time.Second, "Controller failed")
	invite(t, "troubled", "still here")
	awaitWelcome(t, "troubled", "still here")
	ask(t, "troubled", "four", "mark")
	awaitAnnotation(t, "troubled", "four", "ended", "mark") // by the next run, under the same name
	p.AwaitController(t, 10*time.Second, "trial", "running")
	if now := holder(t, "troubled"); now != leader {
		t.Errorf("the lease is held by %q, want %q as before", now, leader)
	}
	p.Terminate(t)
}

// TestItIsSwitchedLikeAnyOther edits the list of controllers while the manager runs.
func TestItIsSwitchedLikeAnyOther(t *testing.T) {
	shared.Namespace(t, "gated")
	file := filepath.Join(t.TempDir(), "config.yaml")
	enable := func(list string) {
		t.Helper()
		content := "apiVersion: config.incumbent.io/v1alpha1\nkind: ManagerConfiguration\ncontrollers: " + list + "\n"
		if err := errors.Join(os.WriteFile(file+".new", []byte(content), 0o600), os.Rename(file+".new", file)); err != nil {
			t.Fatal(err)
		}
	}
	enable(`["*"]`)
	p := launch(t, "gated", "a", "--config="+file)
	p.AwaitController(t, 20*time.Second, "welcome", "running")
	invite(t, "gated", "one")
	awaitWelcome(t, "gated", "one")

	watches := shared.Watches(t, "namespaces", "cluster")
	enable(`["*", "-welcome"]`)
	cluster.Eventually(t, 10*time.Second, "the end of its watch", func() error {
		if n := shared.Watches(t, "namespaces", "cluster"); n != watches-1 {
			return fmt.Errorf("there are %d watches on namespaces, want %d", n, watches-1)
		}
		return nil
	})
	invite(t, "gated", "two")
	time.Sleep(time.Second) // in which a controller that still ran would have written
	if got, err := welcomed(t, "gated"); err != nil || got != "one" {
		t.Errorf("the disabled controller wrote %q (%v)", got, err)
	}
	enable(`["*"]`)
	awaitWelcome(t, "gated", "two")
	p.Terminate(t)

	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	wrong := exec.CommandContext(ctx, os.Args[0], "controllers", "--controllers=welcom")
	wrong.Env = append(os.Environ(), asManager+"=1")
	if out, err := wrong.CombinedOutput(); err == nil || !strings.Contains(string(out), `did you mean "welcome"`) {
		t.Errorf("a wrong name: got %v\n%s\nwant a hint", err, out)
	}
}
