// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/incumbent-io/incumbent/test/cluster"
)

// progress watches the counters of the healthy controllers.
type progress struct {
	mu      sync.Mutex
	at      map[string]time.Time // of the last count
	longest map[string]time.Duration
	by      map[string][]string // who counted, each change of it once
	paused  map[string]time.Duration
}

func watchProgress(t *testing.T, namespace string) *progress {
	t.Helper()
	p := &progress{at: map[string]time.Time{}, longest: map[string]time.Duration{}, by: map[string][]string{}, paused: map[string]time.Duration{}}
	watcher, err := shared.Client.CoreV1().ConfigMaps(namespace).Watch(t.Context(), metav1.ListOptions{LabelSelector: "progress=true"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(watcher.Stop)
	go func() {
		for event := range watcher.ResultChan() {
			if object, ok := event.Object.(*corev1.ConfigMap); ok && object.Data["n"] != "" {
				p.count(object)
			}
		}
	}()
	return p
}

func (p *progress) count(object *corev1.ConfigMap) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now, name, by := time.Now(), object.Name, object.Data["by"]
	var pause time.Duration
	if last := p.at[name]; !last.IsZero() {
		pause = now.Sub(last)
		p.longest[name] = max(p.longest[name], pause)
	}
	p.at[name] = now
	if known := p.by[name]; len(known) == 0 || known[len(known)-1] != by {
		p.by[name] = append(known, by)
		p.paused[name] = pause // at the change
	}
}

// restart forgets the pauses so far.
func (p *progress) restart() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.longest = map[string]time.Duration{}
}

// pauses returns the longest pause of each counter, one that still lasts included.
func (p *progress) pauses() map[string]time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	pauses := map[string]time.Duration{}
	for name, at := range p.at {
		pauses[name] = max(p.longest[name], time.Since(at)).Round(time.Millisecond)
	}
	return pauses
}

// expectUninterrupted fails the test if a counter paused for longer than a busy machine
// explains.
func (p *progress) expectUninterrupted(t *testing.T, when string, names ...string) {
	t.Helper()
	pauses := p.pauses()
	for _, name := range names {
		if pause, counted := pauses[name]; !counted || pause > 1500*time.Millisecond {
			t.Errorf("%s: %s paused for %v (counted: %v)", when, name, pause, counted)
		}
	}
	t.Logf("%s: longest pauses %v", when, pauses)
}

// launchFaulty starts the faulty manager in a namespace of its own, as an account that
// may do what all but one of its controllers need.
func launchFaulty(t *testing.T, namespace string, args ...string) *cluster.Process {
	t.Helper()
	kubeconfig := shared.KubeconfigFor(t, namespace, "faulty")
	rbac := exec.CommandContext(t.Context(), shared.Program("faulty"), "rbac", "--controllers=*,-lacks-permission", "--namespace="+namespace, "--role="+namespace)
	rbac.Env = append(os.Environ(), "FAULTY_NAMESPACE="+namespace)
	roles, err := rbac.Output()
	if err != nil {
		t.Fatalf("rbac: %v", err)
	}
	apply := exec.CommandContext(t.Context(), filepath.Join(shared.Root, "bin/kubectl"), "apply", "-f", "-")
	apply.Env, apply.Stdin = append(os.Environ(), "KUBECONFIG="+shared.Kubeconfig), bytes.NewReader(roles)
	if out, err := apply.CombinedOutput(); err != nil {
		t.Fatalf("kubectl apply: %v\n%s", err, out)
	}
	pod, err := shared.Client.CoreV1().Pods(namespace).Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "faulty"},
		Spec:       corev1.PodSpec{SchedulerName: "nobody", Containers: []corev1.Container{{Name: "manager", Image: "none"}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return shared.Launch(t, "faulty", []string{"FAULTY_NAMESPACE=" + namespace, "POD_NAME=faulty", "POD_NAMESPACE=" + namespace, "POD_UID=" + string(pod.UID)},
		append([]string{"--kubeconfig=" + kubeconfig, "--kube-api-qps=0"}, args...)...)
}

func writeFile(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

const fileHeader = "apiVersion: config.incumbent.io/v1alpha1\nkind: ManagerConfiguration\n"

var healthyNames = []string{"healthy-1", "healthy-2", "healthy-3", "healthy-4"}

// TestFaultyControllersHarmNoOther runs twelve controllers in one process, of which
// eight go wrong, each in its own way.
func TestFaultyControllersHarmNoOther(t *testing.T) {
	const namespace = "faulty"
	shared.Namespace(t, namespace)
	config := filepath.Join(t.TempDir(), "config.yaml")
	writeFile(t, config, fileHeader)
	p := launchFaulty(t, namespace, "--config="+config, "--drain-timeout=3s")
	counters := watchProgress(t, namespace)

	for controller, want := range map[string]string{
		"healthy-1": "running", "error": "backoff: out of luck", "panics": "backoff: panic: out of my mind",
		"returns-early": "completed", "hangs-on-stop": "running", "handler-panics": "running", "index-fails": "running",
		"needs-crd":        "blocked: widgets.faulty.example.com is not served in version v1",
		"lacks-permission": "blocked: not granted: list, watch on secrets",
	} {
		p.AwaitController(t, 15*time.Second, controller, want)
	}
	counters.restart()
	maps := shared.Client.CoreV1().ConfigMaps(namespace)
	if _, err := maps.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "poison"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	p.AwaitController(t, 10*time.Second, "handler-panics", "panicked: cannot stomach this")
	p.AwaitController(t, 10*time.Second, "index-fails", "no index for this")
	if err := maps.Delete(t.Context(), "poison", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	p.AwaitController(t, 40*time.Second, "handler-panics", "running")
	p.AwaitController(t, 40*time.Second, "index-fails", "running")
	counters.expectUninterrupted(t, "while eight others go wrong", healthyNames...)

	t.Run("each fault is logged once, with backoff", func(t *testing.T) {
		for _, controller := range []string{"error", "panics"} {
			failure := regexp.MustCompile(`Controller failed; it is restarted alone.* controller="` + controller + `" failures=\d+ pause="([^"]+)"`)
			var pauses [][]string
			cluster.Eventually(t, 10*time.Second, "more than one failure of "+controller, func() error {
				if pauses = failure.FindAllStringSubmatch(p.Log(), -1); len(pauses) < 2 {
					return fmt.Errorf("the log has %d", len(pauses))
				}
				return nil
			})
			for i, match := range pauses {
				pause, err := time.ParseDuration(match[1])
				if most := min(time.Second<<i, 2*time.Minute); err != nil || pause > most || pause < most*7/10 {
					t.Errorf("%s: pause %d is %q, want about %v", controller, i+1, match[1], most)
				}
			}
		}
		if log := p.Log(); !strings.Contains(log, "faulty/main.go") {
			t.Error("the stack of a panic does not name the controller's code")
		}
		if n := strings.Count(p.Log(), `"Controller is blocked; it starts by itself once this is there"`); n != 2 {
			t.Errorf("got %d lines of blocked controllers, want one for each of two", n)
		}
	})
	t.Run("events tell of each fault", func(t *testing.T) {
		cluster.Eventually(t, 10*time.Second, "events", func() error {
			list, err := shared.Client.EventsV1().Events(namespace).List(t.Context(), metav1.ListOptions{})
			if err != nil {
				return err
			}
			var notes []string
			for _, event := range list.Items {
				notes = append(notes, event.Regarding.Kind+" "+event.Reason+" "+event.Note)
			}
			for _, want := range []string{
				"Pod ControllerFailed Controller error failed", "Pod ControllerFailed Controller panics failed",
				"Pod ControllerBlocked Controller needs-crd is blocked", "Pod ControllerBlocked Controller lacks-permission is blocked",
			} {
				if !slices.ContainsFunc(notes, func(note string) bool { return strings.HasPrefix(note, want) }) {
					return fmt.Errorf("no event %q in:\n%s", want, strings.Join(notes, "\n"))
				}
			}
			return nil
		})
	})
	t.Run("an API that appears starts its controller", func(t *testing.T) {
		shared.Kubectl(t, "apply", "-f", "test/e2e/testdata/widgets.yaml")
		shared.Kubectl(t, "wait", "--for=condition=established", "--timeout=20s", "crd/widgets.faulty.example.com")
		took := p.AwaitController(t, 8*time.Second, "needs-crd", "running")
		t.Logf("running %v after the CRD was established", took)
		if took > 5*time.Second {
			t.Errorf("it took %v, want at most 5s", took)
		}
		if n := shared.Watches(t, "widgets", ""); n == 0 {
			t.Error("the API server has no watch on widgets")
		}
		shared.Kubectl(t, "delete", "-f", "test/e2e/testdata/widgets.yaml")
		p.AwaitController(t, 15*time.Second, "needs-crd", "blocked")
		cluster.Eventually(t, 10*time.Second, "the end of the watch on widgets", func() error {
			if n := shared.Watches(t, "widgets", ""); n != 0 {
				return fmt.Errorf("the API server has %d", n)
			}
			return nil
		})
	})
	t.Run("a permission that appears starts its controller", func(t *testing.T) {
		others := shared.Watches(t, "secrets", "")
		shared.Kubectl(t, "-n", namespace, "create", "role", "secrets", "--verb=list,watch", "--resource=secrets")
		shared.Kubectl(t, "-n", namespace, "create", "rolebinding", "secrets", "--role=secrets", "--serviceaccount="+namespace+":faulty")
		took := p.AwaitController(t, 8*time.Second, "lacks-permission", "running")
		t.Logf("running %v after the RoleBinding was created", took)
		if took > 5*time.Second {
			t.Errorf("it took %v, want at most 5s", took)
		}
		cluster.Eventually(t, 10*time.Second, "one more watch on Secrets", func() error { // others may just begin theirs anew
			if n := shared.Watches(t, "secrets", ""); n != others+1 {
				return fmt.Errorf("got %d, want %d", n, others+1)
			}
			return nil
		})
		shared.Kubectl(t, "-n", namespace, "delete", "rolebinding", "secrets")
		// The API server looks at permissions when a watch begins, and begins one anew
		// for ours every 30 to 60 s.
		took = p.AwaitController(t, 75*time.Second, "lacks-permission", "blocked")
		t.Logf("blocked %v after the RoleBinding was deleted", took)
	})
	counters.expectUninterrupted(t, "while an API and a permission came", healthyNames...)
	counters.restart()
	t.Run("one that hangs is stuck alone", func(t *testing.T) {
		writeFile(t, config, fileHeader+`controllers: ["*", "-hangs-on-stop"]`)
		p.AwaitLog(t, 10*time.Second, "Controller does not stop")
		p.AwaitController(t, 5*time.Second, "hangs-on-stop", "stuck")
		if status, body, err := cluster.Get(t, p.Address+"/livez", ""); err != nil || status != 200 {
			t.Errorf("/livez within the tolerance: got %d %q (%v), want 200", status, body, err)
		}
	})
	counters.expectUninterrupted(t, "while one is stuck", healthyNames...)
}

// TestPanicInAForeignGoroutineEndsTheProcess has a controller panic where nobody can
// recover: the process dies, and the next one takes the lease over at once.
func TestPanicInAForeignGoroutineEndsTheProcess(t *testing.T) {
	const namespace = "goroutine"
	shared.Namespace(t, namespace)
	dir := t.TempDir()
	arguments := func(controllers string) []string {
		return []string{"--kubeconfig=" + shared.Kubeconfig, "--leader-elect-resource-namespace=" + namespace, "--controllers=" + controllers, "--leader-elect-identity-dir=" + dir,
			"--leader-elect-lease-duration=5s", "--leader-elect-renew-deadline=3s", "--leader-elect-retry-period=1s"}
	}
	env := []string{"FAULTY_NAMESPACE=" + namespace}
	// Its term lasts longer than the lease does: after a short one the restarted process
	// would leave the lease to others.
	p := shared.Launch(t, "faulty", env, arguments("healthy-1,goroutine-panics")...)
	select {
	case err := <-p.Ended:
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() == 0 {
			t.Errorf("got %v, want a crash", err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("it still runs")
	}
	if log := p.Log(); !strings.Contains(log, "panic: out of reach") || !strings.Contains(log, "main.goroutinePanics") {
		t.Errorf("the log does not name the code that panicked:\n%s", log)
	}
	began := time.Now()
	next := shared.Launch(t, "faulty", env, arguments("healthy-1")...)
	next.AwaitLog(t, 10*time.Second, "Became leader")
	took := time.Since(began)
	t.Logf("leads %v after its start", took)
	if took > 3*time.Second {
		t.Errorf("it led after %v, want at once", took)
	}
	if log := next.Log(); !strings.Contains(log, "holder proven dead") && !strings.Contains(log, "reclaim=true") {
		t.Errorf("it did not take the lease over from its dead self:\n%s", log)
	}
	next.Terminate(t)
}

// TestLeaseGroupsAreSharedOut runs three managers with three lease groups, kills one,
// and replaces it.
func TestLeaseGroupsAreSharedOut(t *testing.T) {
	const namespace = "groups"
	shared.Namespace(t, namespace)
	config := filepath.Join(t.TempDir(), "config.yaml")
	writeFile(t, config, fileHeader+`
controllers: [healthy-1, healthy-2, healthy-3]
leaseGroups:
  - {name: one, controllers: [healthy-1]}
  - {name: two, controllers: [healthy-2]}
  - {name: three, controllers: [healthy-3]}
leaderElection: {leaseDuration: 4s, renewDeadline: 2s, retryPeriod: 500ms}
`)
	start := func() *cluster.Process {
		return shared.Launch(t, "faulty", []string{"FAULTY_NAMESPACE=" + namespace},
			"--kubeconfig="+shared.Kubeconfig, "--leader-elect-resource-namespace="+namespace, "--config="+config, "--kube-api-qps=0")
	}
	holders := func() (list []string) {
		leases, err := shared.Client.CoordinationV1().Leases(namespace).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, lease := range leases.Items {
			if holder := lease.Spec.HolderIdentity; holder != nil && *holder != "" {
				list = append(list, *holder)
			}
		}
		return list
	}
	dead := ""
	led := func(limit time.Duration, processes int) time.Duration {
		t.Helper()
		return cluster.Eventually(t, limit, fmt.Sprintf("three leases led by %d", processes), func() error {
			list := holders()
			slices.Sort(list)
			if slices.Contains(list, dead) || len(list) != 3 || len(slices.Compact(slices.Clone(list))) != processes {
				return fmt.Errorf("held by %q", list)
			}
			return nil
		})
	}
	first := start()
	t.Logf("one replica leads all after %v", led(10*time.Second, 1))
	counters := watchProgress(t, namespace)
	second, third := start(), start()
	t.Logf("three replicas lead one each after %v", led(10*time.Second, 3))
	counters.restart()
	dead = regexp.MustCompile(`identity="([^"]+)"`).FindStringSubmatch(second.Log())[1]
	_ = second.Process.Kill()
	fourth := start()
	t.Logf("after a kill, with a replacement: one each after %v", led(14*time.Second, 3))
	calm := 0
	for _, pause := range counters.pauses() {
		if pause < 1500*time.Millisecond {
			calm++
		}
	}
	if calm < 2 {
		t.Errorf("the controllers of the other groups were interrupted: %v", counters.pauses())
	}
	third.Terminate(t)
	fourth.Terminate(t)
	t.Logf("the last one leads all after %v", led(14*time.Second, 1))
	first.Terminate(t)
}

// TestControllerMovesBetweenManagers moves a controller from one manager to another by
// a lease group that both have, as docs/configuration.md says.
func TestControllerMovesBetweenManagers(t *testing.T) {
	const namespace = "moving"
	shared.Namespace(t, namespace)
	file := func(manager, controllers string) string {
		return fileHeader + "controllers: [" + controllers + `]
leaseGroups: [{name: moving, leaseName: moving, controllers: [healthy-2]}]
leaderElection: {resourceName: ` + manager + `, resourceNamespace: ` + namespace + "}\n"
	}
	dir := t.TempDir()
	start := func(manager, controllers string) (*cluster.Process, string) {
		path := filepath.Join(dir, manager+".yaml")
		writeFile(t, path, file(manager, controllers))
		return shared.Launch(t, "faulty", []string{"FAULTY_NAMESPACE=" + namespace}, "--kubeconfig="+shared.Kubeconfig, "--config="+path), path
	}
	from, fromFile := start("from", "healthy-1, healthy-2")
	from.AwaitController(t, 15*time.Second, "healthy-2", "running")
	to, toFile := start("to", "healthy-3")
	to.AwaitController(t, 15*time.Second, "healthy-3", "running")
	counters := watchProgress(t, namespace)

	writeFile(t, toFile, file("to", "healthy-3, healthy-2")) // it is a candidate now
	to.AwaitController(t, 5*time.Second, "healthy-2", "warm")
	counters.restart()
	writeFile(t, fromFile, file("from", "healthy-1"))
	to.AwaitController(t, 5*time.Second, "healthy-2", "running")
	cluster.Eventually(t, 5*time.Second, "counts by the other manager", func() error {
		counters.mu.Lock()
		defer counters.mu.Unlock()
		if len(counters.by["healthy-2"]) != 2 {
			return fmt.Errorf("counted by %q", counters.by["healthy-2"])
		}
		return nil
	})
	time.Sleep(500 * time.Millisecond) // time for a count by both, were there one
	counters.mu.Lock()
	by, gap := counters.by["healthy-2"], counters.paused["healthy-2"]
	counters.mu.Unlock()
	t.Logf("pause of the counter at the move: %v", gap)
	if len(by) != 2 || gap > time.Second {
		t.Errorf("counted by %q with a pause of %v, want one after the other within a second", by, gap)
	}
	counters.expectUninterrupted(t, "while another moved", "healthy-1", "healthy-2", "healthy-3")
	if strings.Contains(from.Log(), `"Lost the lease"`) || strings.Contains(to.Log(), `"Lost the lease"`) {
		t.Error("a lease was lost")
	}
	from.Terminate(t)
	to.Terminate(t)
}

// TestBadConfigurationFilesChangeNothing feeds a running manager files of every bad
// kind.
func TestBadConfigurationFilesChangeNothing(t *testing.T) {
	const namespace = "badfiles"
	shared.Namespace(t, namespace)
	config := filepath.Join(t.TempDir(), "config.yaml")
	good := fileHeader + "controllers: [healthy-1, healthy-2]\n"
	writeFile(t, config, good)
	p := shared.Launch(t, "faulty", []string{"FAULTY_NAMESPACE=" + namespace},
		"--kubeconfig="+shared.Kubeconfig, "--leader-elect-resource-namespace="+namespace, "--config="+config)
	p.AwaitController(t, 15*time.Second, "healthy-2", "running")
	counters := watchProgress(t, namespace)
	for _, bad := range []struct{ name, content, want string }{
		{"unknown field", good + "contrallers: []\n", `did you mean \"controllers\"`},
		{"wrong type", fileHeader + "controllers: 7\n", "controllers"},
		{"unknown controller", fileHeader + "controllers: [healthy-9]\n", `unknown controller \"healthy-9\"`},
		{"bad duration", good + "drainTimeout: 5 minutes\n", "5 minutes"},
		{"empty", "", "is empty"},
		{"half-written", good + "leaseGroups:\n  - {name: x, contro", "neither YAML nor JSON"},
		{"too large", good + "# " + strings.Repeat("x", 10<<20), "larger than 1 MiB"},
	} {
		t.Run(bad.name, func(t *testing.T) {
			seen := len(p.Log())
			writeFile(t, config, bad.content)
			cluster.Eventually(t, 5*time.Second, "a line that says why", func() error {
				if log := p.Log()[seen:]; !strings.Contains(log, "New configuration is not used") || !strings.Contains(log, bad.want) || strings.Contains(log, "goroutine ") {
					return fmt.Errorf("got %q, want %q", log[:min(len(log), 2000)], bad.want)
				}
				return nil
			})
		})
	}
	t.Run("deleted", func(t *testing.T) {
		if err := os.Remove(config); err != nil {
			t.Fatal(err)
		}
		p.AwaitLog(t, 5*time.Second, "was deleted; the running configuration stays")
	})
	counters.expectUninterrupted(t, "with bad files", "healthy-1", "healthy-2")
	writeFile(t, config, fileHeader+"controllers: [healthy-1]\n")
	began := time.Now()
	p.AwaitLog(t, 5*time.Second, `"Controller is disabled"`)
	t.Logf("a good file took effect within %v", time.Since(began))
	if strings.Contains(p.Log(), `"Renewed the lease"`) {
		t.Error("it is verbose already")
	}
	writeFile(t, config, fileHeader+"controllers: [healthy-1]\nlogging: {verbosity: 5}\nstandby: cold\n")
	p.AwaitLog(t, 10*time.Second, `"Renewed the lease"`)
	p.AwaitLog(t, 5*time.Second, "takes effect at a restart only")
	if log := p.Log(); strings.Count(log, `"Became leader"`) != 1 || !strings.Contains(log, `standby: \"warm\" -> \"cold\"`) {
		t.Errorf("leadership was touched, or the need of a restart is not named:\n%s", log)
	}
	p.Terminate(t)
}

// TestTogglingByTheConfigMap edits the ConfigMap of the Deployment, also by mistake.
func TestTogglingByTheConfigMap(t *testing.T) {
	d := deploy(t)
	leader, epoch := d.leader(t), *d.lease(t).Spec.LeaseTransitions
	edit := func(controllers string) {
		t.Helper()
		maps := d.Client.CoreV1().ConfigMaps(system)
		object, err := maps.Get(t.Context(), "incumbent-config", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		object.Data["config.yaml"] = fileHeader + "controllers: " + controllers + "\n"
		if _, err := maps.Update(t.Context(), object, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _, _ = shared.Run(context.Background(), "kubectl", "apply", "-k", "manifests/base") })
	logs := func() string { return d.Kubectl(t, "-n", system, "logs", leader) }
	await := func(text string, n int) {
		t.Helper()
		took := cluster.Eventually(t, 10*time.Second, text, func() error {
			if got := strings.Count(logs(), text); got < n {
				return fmt.Errorf("%d times in the log", got)
			}
			return nil
		})
		t.Logf("%s %v after the ConfigMap was edited", text, took)
	}
	edit(`["*", "-object-ttl"]`)
	await(`"Controller is disabled"`, 1)
	maps := d.Client.CoreV1().ConfigMaps("default")
	object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "toggled", Annotations: map[string]string{"incumbent.io/expires-at": "2020-01-01T00:00:00Z"}}}
	if _, err := maps.Create(t.Context(), object, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = maps.Delete(context.Background(), "toggled", metav1.DeleteOptions{}) })
	time.Sleep(time.Second) // what is disabled has this long to do wrong
	if _, err := maps.Get(t.Context(), "toggled", metav1.GetOptions{}); err != nil {
		t.Errorf("a disabled controller has worked: %v", err)
	}
	for n, mistaken := range []string{`["*", "-objectttl"]`, `["everything"]`} {
		edit(mistaken)
		cluster.Eventually(t, 15*time.Second, "an Event that counts the mistakes", func() error {
			if got := countEvents(t, system, leader, "ConfigurationRejected"); got != int32(n+1) {
				return fmt.Errorf("it counts %d, want %d", got, n+1)
			}
			return nil
		})
	}
	edit(`["*"]`)
	await(`"Controller is enabled"`, 1)
	cluster.Eventually(t, 5*time.Second, "the end of an expired ConfigMap", func() error {
		if _, err := maps.Get(t.Context(), "toggled", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			return fmt.Errorf("it is still there (%v)", err)
		}
		return nil
	})
	if now := *d.lease(t).Spec.LeaseTransitions; now != epoch || d.leader(t) != leader {
		t.Errorf("leadership was touched: transitions %d, were %d", now, epoch)
	}
}

// TestMetricsAndStatusNeedPermission asks a replica of the Deployment for what it is,
// without credentials, with them, and with the permission.
func TestMetricsAndStatusNeedPermission(t *testing.T) {
	d := deploy(t)
	const namespace = "scraper"
	shared.Namespace(t, namespace)
	address := "https://" + d.pod(t, d.leader(t)).Status.PodIP + ":10257"
	token, err := shared.Client.CoreV1().ServiceAccounts(namespace).CreateToken(t.Context(), "default", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	expect := func(path, token string, code int, content string) {
		t.Helper()
		cluster.Eventually(t, 15*time.Second, path, func() error { // what was refused is remembered for 10 s
			status, body, err := cluster.Get(t, address+path, token)
			if err == nil && (status != code || !strings.Contains(body, content)) {
				err = fmt.Errorf("got %d %.300q, want %d and %q", status, body, code, content)
			}
			return err
		})
	}
	for _, path := range []string{"/metrics", "/controllers", "/debug/controllers/object-ttl/", "/nosuch"} {
		expect(path, "", 401, "Unauthorized")
		expect(path, "wrong", 401, "Unauthorized")
		expect(path, token.Status.Token, 403, "forbidden")
	}
	expect("/readyz/leader-election", "", 200, "leader, epoch")
	shared.Kubectl(t, "create", "clusterrole", "scraper", "--verb=get", "--non-resource-url=/metrics,/controllers")
	shared.Kubectl(t, "create", "clusterrolebinding", "scraper", "--clusterrole=scraper", "--serviceaccount="+namespace+":default")
	t.Cleanup(func() {
		_, _ = shared.Run(context.Background(), "kubectl", "delete", "clusterrole,clusterrolebinding", "scraper")
	})
	expect("/metrics", token.Status.Token, 200, `incumbent_controller_state{controller="object-ttl",state="running"} 1`)
	expect("/metrics", token.Status.Token, 200, `leader_election_master_status{name="incumbent"} 1`)
	expect("/controllers", token.Status.Token, 200, "CONTROLLER ")
}
