// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package e2e

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
)

// TestCluster runs the scenarios on one cluster, side by side, each in a namespace of its own.
func TestCluster(t *testing.T) {
	c := startCluster(t)
	t.Run("group", func(t *testing.T) {
		for name, scenario := range map[string]func(*testing.T, *testCluster){
			"status and environment":  testStatusAndEnvironment,
			"service account token":   testToken,
			"restricted":              testRestricted,
			"restart with back-off":   testBackoff,
			"readiness and liveness":  testProbes,
			"startup and exec probes": testStartupAndExecProbes,
			"volumes follow changes":  testVolumes,
			"missing configuration":   testMissingConfiguration,
			"termination":             testTermination,
			"force deletion":          testForceDeletion,
			"logs":                    testLogs,
			"exec and port-forward":   testExecAndPortForward,
			"unknown image":           testUnknownImage,
			"init containers":         testInitContainers,
			"unsupported":             testUnsupported,
			"network faults":          testNetworkFaults,
			"signals":                 testSignals,
			"deployment":              testDeployment,
		} {
			t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
				t.Parallel()
				scenario(t, c)
			})
		}
	})
	if t.Failed() {
		return
	}
	// These concern the whole cluster, one after another.
	t.Run("audit", func(t *testing.T) { testAudit(t, c) })
	t.Run("node-endpoint", func(t *testing.T) { testNodeEndpoint(t, c) })
	t.Run("second-up", func(t *testing.T) { testSecondUp(t, c) })
	t.Run("components", func(t *testing.T) { testComponents(t, c) })
	t.Run("shutdown", func(t *testing.T) { testShutdown(t, c) })
}

// TestKilledClusterLeavesNoProcess kills up itself, which then cannot stop its children.
func TestKilledClusterLeavesNoProcess(t *testing.T) {
	c := startCluster(t)
	c.create(t, "default", "victim", `containers: [{}]`)
	c.awaitReady(t, "default", "victim")
	pids := c.processes(t)
	if len(pids) != 6 {
		t.Fatalf("got processes %v, want up, four components and a container", pids)
	}
	c.stop(syscall.SIGKILL)
	awaitDead(t, pids)
}

func get(url string) (string, error) {
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d: %s", response.StatusCode, body)
	}
	return string(body), err
}

func mustGet(t *testing.T, url string) string {
	t.Helper()
	body, err := get(url)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

func testStatusAndEnvironment(t *testing.T, c *testCluster) {
	ns := c.namespace(t)
	c.client.CoreV1().ConfigMaps(ns).Create(t.Context(), &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "settings"}, Data: map[string]string{"LEVEL": "debug", "COLOR": "green"}}, metav1.CreateOptions{})
	c.client.CoreV1().Secrets(ns).Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "keys"}, StringData: map[string]string{"key": "s3cret"}}, metav1.CreateOptions{})
	c.create(t, ns, "web", `
securityContext: {runAsUser: 4711, runAsGroup: 4712}
containers:
- command: [/usr/bin/manager]
  args: [serve, "$(NAME) in $(NAMESPACE)", "$$(NAME)", "$(UNKNOWN)"]
  envFrom:
  - {prefix: SET_, configMapRef: {name: settings}}
  env:
  - {name: NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
  - {name: NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
  - {name: UID, valueFrom: {fieldRef: {fieldPath: metadata.uid}}}
  - {name: TIER, valueFrom: {fieldRef: {fieldPath: "metadata.labels['tier']"}}}
  - {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
  - {name: ACCOUNT, valueFrom: {fieldRef: {fieldPath: spec.serviceAccountName}}}
  - {name: HOST, valueFrom: {fieldRef: {fieldPath: status.hostIP}}}
  - {name: LEVEL, valueFrom: {configMapKeyRef: {name: settings, key: LEVEL}}}
  - {name: KEY, valueFrom: {secretKeyRef: {name: keys, key: key}}}
  - {name: OPTIONAL, valueFrom: {secretKeyRef: {name: none, key: key, optional: true}}}
  - {name: BOTH, value: "$(LEVEL)-$(SET_COLOR)"}
  readinessProbe: {httpGet: {path: /readyz, port: 8080}, periodSeconds: 1}
`)
	pod := c.awaitReady(t, ns, "web")
	if pod.Status.Phase != corev1.PodRunning || pod.Status.StartTime == nil || !strings.HasPrefix(pod.Status.PodIP, "127.") {
		t.Errorf("unexpected status %+v", pod.Status)
	}
	for _, kind := range []corev1.PodConditionType{corev1.PodScheduled, corev1.PodInitialized, corev1.ContainersReady, corev1.PodReady} {
		if condition(pod, kind) != corev1.ConditionTrue {
			t.Errorf("condition %s is %q", kind, condition(pod, kind))
		}
	}
	if s := pod.Status.ContainerStatuses[0]; !s.Ready || !*s.Started || s.RestartCount != 0 || s.State.Running == nil {
		t.Errorf("unexpected container status %+v", s)
	}
	for _, reason := range []string{"Pulled", "Created", "Started"} {
		c.awaitEvent(t, ns, "web", reason, "")
	}
	var facts struct {
		Env, Args  []string
		Hostname   string
		UID, GID   int
		Proc, Null bool
	}
	if err := json.Unmarshal([]byte(mustGet(t, "http://"+pod.Status.PodIP+":8080/facts")), &facts); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"NAME=web", "NAMESPACE=" + ns, "UID=" + string(pod.UID), "TIER=one", "NODE=" + pod.Spec.NodeName, "ACCOUNT=default",
		"HOST=" + pod.Status.HostIP, "LEVEL=debug", "KEY=s3cret", "BOTH=debug-green", "SET_LEVEL=debug", "HOSTNAME=web",
		"KUBERNETES_SERVICE_HOST=127.0.0.1", "POD_IP=" + pod.Status.PodIP,
	} {
		if !slices.Contains(facts.Env, want) {
			t.Errorf("the environment has no %s: %q", want, facts.Env)
		}
	}
	if want := []string{"web in " + ns, "$(NAME)", "$(UNKNOWN)"}; !slices.Equal(facts.Args, want) {
		t.Errorf("got arguments %q, want %q", facts.Args, want)
	}
	if !facts.Null {
		t.Error("the container has no /dev/null")
	}
	if os.Geteuid() == 0 && (facts.UID != 4711 || facts.GID != 4712) {
		t.Errorf("runs as %d:%d, want 4711:4712", facts.UID, facts.GID)
	}
}

func testToken(t *testing.T, c *testCluster) {
	ns := c.namespace(t)
	c.create(t, ns, "web", `
containers:
- volumeMounts: [{name: other, mountPath: /other}]
volumes:
- name: other
  projected: {sources: [{serviceAccountToken: {path: token, audience: elsewhere, expirationSeconds: 600}}]}
`)
	pod := c.awaitReady(t, ns, "web")
	claims := func(file string) map[string]any {
		token := c.kubectl(t, "-n", ns, "exec", "web", "--", "/app", "cat", file)
		parts := strings.Split(token, ".")
		if len(parts) != 3 {
			t.Fatalf("no token: %q", token)
		}
		payload, err := base64.RawURLEncoding.DecodeString(parts[1])
		if err != nil {
			t.Fatal(err)
		}
		var claims map[string]any
		if err := json.Unmarshal(payload, &claims); err != nil {
			t.Fatal(err)
		}
		return claims
	}
	own := claims("/var/run/secrets/kubernetes.io/serviceaccount/token")
	bound, _ := own["kubernetes.io"].(map[string]any)["pod"].(map[string]any)
	if bound["name"] != "web" || bound["uid"] != string(pod.UID) {
		t.Errorf("the token is bound to %v, want the Pod", bound)
	}
	other := claims("/other/token")
	if fmt.Sprint(other["aud"]) != "[elsewhere]" {
		t.Errorf("got audience %v", other["aud"])
	}
	if life := other["exp"].(float64) - other["iat"].(float64); life != 600 {
		t.Errorf("the token lives for %v s, want 600", life)
	}
	// In-cluster configuration works, and RBAC knows the service account.
	body := mustGet(t, "http://"+pod.Status.PodIP+":8080/api/v1/namespaces/"+ns+"/pods")
	if want := `User \"system:serviceaccount:` + ns + `:default\" cannot list`; !strings.HasPrefix(body, "403") || !strings.Contains(body, want) {
		t.Errorf("got %s, want a refusal of the service account", body)
	}
}

func testRestricted(t *testing.T, c *testCluster) {
	ns := c.namespace(t)
	c.kubectl(t, "label", "namespace", ns, "pod-security.kubernetes.io/enforce=restricted")
	_, err := c.client.CoreV1().Pods(ns).Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "loose"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "example.com/app:dev"}}},
	}, metav1.CreateOptions{})
	if !apierrors.IsForbidden(err) {
		t.Errorf("a loose Pod: got %v, want Forbidden", err)
	}
	c.create(t, ns, "strict", `
securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
containers:
- securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
`)
	c.awaitReady(t, ns, "strict")
}

func testBackoff(t *testing.T, c *testCluster) {
	ns := c.namespace(t)
	c.create(t, ns, "crash", `containers: [{args: [exit, "3", some, words], terminationMessagePolicy: FallbackToLogsOnError}]`)
	first := c.await(t, ns, "crash", 20*time.Second, "backs off", func(p *corev1.Pod) bool {
		s := p.Status.ContainerStatuses
		return len(s) == 1 && s[0].State.Waiting != nil && s[0].State.Waiting.Reason == "CrashLoopBackOff"
	}).Status.ContainerStatuses[0]
	end := first.LastTerminationState.Terminated
	if first.RestartCount != 1 || end == nil || end.ExitCode != 3 || end.Reason != "Error" || end.Message != "some words\n" {
		t.Errorf("unexpected status %+v", first)
	}
	if !strings.HasPrefix(first.State.Waiting.Message, "back-off 10s restarting failed container=app pod=crash_") {
		t.Errorf("unexpected message %q", first.State.Waiting.Message)
	}
	c.awaitEvent(t, ns, "crash", "BackOff", "Back-off restarting failed container app")
	second := c.await(t, ns, "crash", 20*time.Second, "is started again", func(p *corev1.Pod) bool {
		return p.Status.ContainerStatuses[0].RestartCount == 2
	}).Status
	if second.Phase != corev1.PodRunning {
		t.Errorf("a crashing Pod is in phase %s", second.Phase)
	}
	// The time between the two ends is the back-off; the API's times are whole seconds.
	last := c.await(t, ns, "crash", 10*time.Second, "has ended again", func(p *corev1.Pod) bool {
		s := p.Status.ContainerStatuses[0]
		return s.RestartCount == 2 && s.LastTerminationState.Terminated != nil && s.LastTerminationState.Terminated.ContainerID != end.ContainerID
	}).Status.ContainerStatuses[0].LastTerminationState.Terminated
	if pause := last.StartedAt.Sub(end.FinishedAt.Time); pause < 9*time.Second || pause > 13*time.Second {
		t.Errorf("restarted after %s, want about 10 s", pause)
	}
}

func testProbes(t *testing.T, c *testCluster) {
	ns := c.namespace(t)
	c.create(t, ns, "web", `
terminationGracePeriodSeconds: 1
containers:
- ports: [{name: https, containerPort: 8443}]
  livenessProbe: {httpGet: {path: /healthz, port: https, scheme: HTTPS}, periodSeconds: 1, failureThreshold: 2}
  readinessProbe: {httpGet: {path: /readyz, port: 8080}, periodSeconds: 1, failureThreshold: 1}
`)
	pod := c.awaitReady(t, ns, "web")
	url := "http://" + pod.Status.PodIP + ":8080"
	mustGet(t, url+"/set/unready")
	c.await(t, ns, "web", 10*time.Second, "is not Ready", func(p *corev1.Pod) bool { return !isReady(p) })
	c.awaitEvent(t, ns, "web", "Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 500")
	mustGet(t, url+"/set/ready")
	c.awaitReady(t, ns, "web")
	mustGet(t, url+"/set/hang")
	restarted := c.await(t, ns, "web", 20*time.Second, "is restarted by its liveness probe", func(p *corev1.Pod) bool {
		return p.Status.ContainerStatuses[0].RestartCount == 1 && isReady(p)
	})
	if end := restarted.Status.ContainerStatuses[0].LastTerminationState.Terminated; end == nil || end.ExitCode != 0 {
		t.Errorf("the hanging container got no chance to end by itself: %+v", end)
	}
	c.awaitEvent(t, ns, "web", "Unhealthy", "Liveness probe failed: ")
	c.awaitEvent(t, ns, "web", "Killing", "Container app failed liveness probe, will be restarted")
	if restarted.Status.PodIP != pod.Status.PodIP {
		t.Errorf("a restart changed the address from %s to %s", pod.Status.PodIP, restarted.Status.PodIP)
	}
}

func testStartupAndExecProbes(t *testing.T, c *testCluster) {
	ns := c.namespace(t)
	c.create(t, ns, "slow", `
containers:
- startupProbe: {exec: {command: [/app, cat, /state/started]}, periodSeconds: 1, failureThreshold: 60}
  readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
  volumeMounts: [{name: state, mountPath: /state}]
volumes: [{name: state, emptyDir: {}}]
`)
	c.awaitEvent(t, ns, "slow", "Unhealthy", "Startup probe failed: open /state/started: no such file or directory")
	pod := c.await(t, ns, "slow", 10*time.Second, "runs", func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodRunning })
	if s := pod.Status.ContainerStatuses[0]; *s.Started || s.Ready {
		t.Errorf("started before its startup probe: %+v", s)
	}
	c.kubectl(t, "-n", ns, "exec", "slow", "--", "/app", "write", "/state/started", "yes")
	c.awaitReady(t, ns, "slow")
}

func testVolumes(t *testing.T, c *testCluster) {
	ns := c.namespace(t)
	maps := c.client.CoreV1().ConfigMaps(ns)
	maps.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "m"}, Data: map[string]string{"a": "one", "b": "two"}}, metav1.CreateOptions{})
	c.client.CoreV1().Secrets(ns).Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s"}, StringData: map[string]string{"k": "hush"}}, metav1.CreateOptions{})
	c.create(t, ns, "web", `
securityContext: {fsGroup: 3000}
containers:
- volumeMounts:
  - {name: config, mountPath: /etc/config}
  - {name: secret, mountPath: /etc/secret}
  - {name: all, mountPath: /all}
  - {name: scratch, mountPath: /scratch}
volumes:
- {name: config, configMap: {name: m}}
- {name: secret, secret: {secretName: s, defaultMode: 0400}}
- {name: scratch, emptyDir: {}}
- name: all
  projected:
    sources:
    - configMap: {name: m, items: [{key: a, path: deep/er/a}]}
    - downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}
`)
	c.awaitReady(t, ns, "web")
	read := func(file string) string { return c.kubectl(t, "-n", ns, "exec", "web", "--", "/app", "cat", file) }
	for file, want := range map[string]string{
		"/etc/config/a": "one", "/etc/config/b": "two", "/etc/secret/k": "hush", "/all/deep/er/a": "one", "/all/labels": `tier="one"`,
	} {
		if got := read(file); got != want {
			t.Errorf("%s holds %q, want %q", file, got, want)
		}
	}
	c.kubectl(t, "-n", ns, "exec", "web", "--", "/app", "write", "/scratch/x", "kept")
	changed := time.Now()
	c.kubectl(t, "-n", ns, "patch", "configmap", "m", "-p", `{"data":{"a":"uno","b":null}}`)
	c.kubectl(t, "-n", ns, "label", "pod", "web", "--overwrite", "tier=two")
	eventually(t, 5*time.Second, "the volumes have followed", func() error {
		if a, deep, labels := read("/etc/config/a"), read("/all/deep/er/a"), read("/all/labels"); a != "uno" || deep != "uno" || labels != `tier="two"` {
			return fmt.Errorf("they hold %q, %q, %q", a, deep, labels)
		}
		return nil
	})
	t.Logf("two changes were seen %s after the first", time.Since(changed))
	if out, err := c.command("kubectl", "-n", ns, "exec", "web", "--", "/app", "cat", "/etc/config/b").CombinedOutput(); err == nil {
		t.Errorf("a removed key is still there: %s", out)
	}
	// An emptyDir outlives its container.
	c.fault(t, "pod", ns+"/web", "kill")
	c.await(t, ns, "web", 10*time.Second, "is restarted", func(p *corev1.Pod) bool {
		return p.Status.ContainerStatuses[0].RestartCount == 1 && isReady(p)
	})
	if got := read("/scratch/x"); got != "kept" {
		t.Errorf("the emptyDir holds %q after a restart", got)
	}
}

func testMissingConfiguration(t *testing.T, c *testCluster) {
	ns := c.namespace(t)
	c.create(t, ns, "env", `containers: [{env: [{name: A, valueFrom: {configMapKeyRef: {name: late, key: a}}}]}]`)
	c.create(t, ns, "volume", `
containers: [{volumeMounts: [{name: v, mountPath: /v}]}]
volumes: [{name: v, configMap: {name: late}}]
`)
	c.await(t, ns, "env", 10*time.Second, "waits", func(p *corev1.Pod) bool {
		s := p.Status.ContainerStatuses
		return len(s) == 1 && s[0].State.Waiting != nil && s[0].State.Waiting.Reason == "CreateContainerConfigError" &&
			strings.Contains(s[0].State.Waiting.Message, `configmap "late" not found`) && p.Status.Phase == corev1.PodPending
	})
	c.awaitEvent(t, ns, "volume", "FailedMount", `configmap "late" not found`)
	c.kubectl(t, "-n", ns, "create", "configmap", "late", "--from-literal=a=b")
	c.awaitReady(t, ns, "env")
	c.awaitReady(t, ns, "volume")
}

func testTermination(t *testing.T, c *testCluster) {
	ns := c.namespace(t)
	// One ends within its grace period, one does not, one has a hook.
	c.create(t, ns, "polite", `{terminationGracePeriodSeconds: 20, containers: [{env: [{name: SHUTDOWN_DELAY, value: 1s}]}]}`)
	c.create(t, ns, "stubborn", `{terminationGracePeriodSeconds: 2, containers: [{env: [{name: SHUTDOWN_DELAY, value: 60s}]}]}`)
	c.create(t, ns, "hooked", `
terminationGracePeriodSeconds: 20
containers:
- lifecycle: {preStop: {httpGet: {path: /set/unready, port: 8080}}, postStart: {exec: {command: [/app, write, /tmp/post, x]}}}
`)
	for _, test := range []struct {
		name     string
		min, max time.Duration
		exit     int32
		log      string
	}{
		{"polite", time.Second, 4 * time.Second, 0, "SIGTERM\nbye\n"},
		{"stubborn", 2 * time.Second, 5 * time.Second, 137, "SIGTERM\n"},
		{"hooked", 0, 3 * time.Second, 0, "SIGTERM\nbye\n"},
	} {
		pod := c.awaitReady(t, ns, test.name)
		pods := c.client.CoreV1().Pods(ns)
		watch, err := pods.Watch(t.Context(), metav1.ListOptions{FieldSelector: "metadata.name=" + test.name})
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		if err := pods.Delete(t.Context(), test.name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		unreadyFirst := false
		var last *corev1.Pod
		for event := range watch.ResultChan() {
			p, ok := event.Object.(*corev1.Pod)
			if !ok {
				t.Fatalf("%s: watch: %+v", test.name, event.Object)
			}
			if p.DeletionTimestamp != nil && !isReady(p) && p.Status.ContainerStatuses[0].State.Running != nil {
				unreadyFirst = true
			}
			if event.Type == apiwatch.Deleted {
				last = p
				break
			}
		}
		watch.Stop()
		if last == nil {
			t.Fatalf("%s: the watch ended", test.name)
		}
		if took := time.Since(begin); took < test.min || took > test.max {
			t.Errorf("%s: vanished after %s, want %s to %s", test.name, took, test.min, test.max)
		}
		if test.min > 0 && !unreadyFirst {
			t.Errorf("%s: was Ready to its end", test.name)
		}
		phase := corev1.PodSucceeded
		if test.exit != 0 {
			phase = corev1.PodFailed
		}
		end := last.Status.ContainerStatuses[0].State.Terminated
		if end == nil || end.ExitCode != test.exit || last.Status.Phase != phase {
			t.Errorf("%s: the last status is %s with %+v, want %s with exit code %d", test.name, last.Status.Phase, end, phase, test.exit)
		}
		if log := podLog(t, c, pod); !strings.Contains(log, test.log) {
			t.Errorf("%s: logged %q, want %q in it", test.name, log, test.log)
		}
		c.awaitEvent(t, ns, test.name, "Killing", "Stopping container app")
	}
}

// podLog returns what the first process of a Pod's container wrote to stdout, also after the Pod.
func podLog(t *testing.T, c *testCluster, pod *corev1.Pod) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(c.data, "logs", "pods", fmt.Sprintf("%s_%s_%s", pod.Namespace, pod.Name, pod.UID), "app", "0.log"))
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for line := range strings.Lines(string(content)) {
		if fields := strings.SplitN(line, " ", 4); fields[1] == "stdout" {
			text.WriteString(fields[3])
		}
	}
	return text.String()
}

func testForceDeletion(t *testing.T, c *testCluster) {
	ns := c.namespace(t)
	c.create(t, ns, "web", `{terminationGracePeriodSeconds: 60, containers: [{env: [{name: SHUTDOWN_DELAY, value: 60s}]}]}`)
	pod := c.awaitReady(t, ns, "web")
	var pid int
	fmt.Sscan(c.fault(t, "pod", ns+"/web", "pid"), &pid)
	if !alive(pid) {
		t.Fatalf("process %d does not run", pid)
	}
	if err := c.client.CoreV1().Pods(ns).Delete(t.Context(), "web", metav1.DeleteOptions{GracePeriodSeconds: ptr.To(int64(0))}); err != nil {
		t.Fatal(err)
	}
	eventually(t, 2*time.Second, "the process has ended", func() error {
		if alive(pid) {
			return errors.New("it lives")
		}
		return nil
	})
	root := filepath.Join(c.data, "pods", string(pod.UID))
	eventually(t, 2*time.Second, "the Pod's folder is gone", func() error {
		if _, err := os.Stat(root); !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("stat: %v", err)
		}
		return nil
	})
}

func testLogs(t *testing.T, c *testCluster) {
	ns := c.namespace(t)
	c.create(t, ns, "web", `containers: [{}]`)
	pod := c.awaitReady(t, ns, "web")
	logs := func(args ...string) string {
		return c.kubectl(t, append([]string{"-n", ns, "logs", "web"}, args...)...)
	}
	eventually(t, 5*time.Second, "the log has both lines", func() error {
		got := logs()
		if !strings.Contains(got, "serving on "+pod.Status.PodIP+"\n") || !strings.Contains(got, "a line on stderr\n") {
			return fmt.Errorf("it is %q", got)
		}
		return nil
	})
	if got := logs("--tail=1"); strings.Count(got, "\n") != 1 {
		t.Errorf("--tail=1 gave %q", got)
	}
	if got := logs("--limit-bytes=5"); len(got) != 5 {
		t.Errorf("--limit-bytes=5 gave %q", got)
	}
	if got := logs("--timestamps"); !regexp.MustCompile(`(?m)^20\S+Z serving on`).MatchString(got) {
		t.Errorf("--timestamps gave %q", got)
	}
	if got := logs("--since=1h"); !strings.Contains(got, "serving on") {
		t.Errorf("--since=1h gave %q", got)
	}

	follow := c.command("kubectl", "-n", ns, "logs", "-f", "web")
	pipe, err := follow.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := follow.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(pipe)
	await := func(want string) {
		for lines.Scan() {
			if strings.Contains(lines.Text(), want) {
				return
			}
		}
		t.Errorf("kubectl logs -f ended without %q", want)
	}
	await("serving on")
	var pid int
	fmt.Sscan(c.fault(t, "pod", ns+"/web", "pid"), &pid)
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	await("bye")
	// The end of the process is the end of its log.
	if err := follow.Wait(); err != nil {
		t.Errorf("kubectl logs -f: %v", err)
	}
	c.await(t, ns, "web", 10*time.Second, "is restarted", func(p *corev1.Pod) bool { return p.Status.ContainerStatuses[0].RestartCount == 1 && isReady(p) })
	if got := logs("--previous"); !strings.Contains(got, "bye\n") {
		t.Errorf("--previous gave %q", got)
	}
	if got := logs(); strings.Contains(got, "bye") {
		t.Errorf("the log of the new process is %q", got)
	}
}

func testExecAndPortForward(t *testing.T, c *testCluster) {
	ns := c.namespace(t)
	c.create(t, ns, "web", `containers: [{}]`)
	c.awaitReady(t, ns, "web")
	echo := c.command("kubectl", "-n", ns, "exec", "-i", "web", "--", "/app", "echo")
	echo.Stdin = strings.NewReader("to and fro")
	if out, err := echo.CombinedOutput(); err != nil || string(out) != "to and fro" {
		t.Errorf("exec -i: %q, %v", out, err)
	}
	if out, err := c.command("kubectl", "-n", ns, "exec", "web", "--", "/app", "exit", "7").CombinedOutput(); !strings.Contains(fmt.Sprint(err), "exit status 7") {
		t.Errorf("exec of exit 7: %v, %s", err, out)
	}
	if out, _ := c.command("kubectl", "-n", ns, "exec", "web", "--", "/bin/sh").CombinedOutput(); !strings.Contains(string(out), `exec: "/bin/sh": stat /bin/sh: no such file or directory`) {
		t.Errorf("exec of what is not there: %s", out)
	}

	forward := c.command("kubectl", "-n", ns, "port-forward", "web", ":8080")
	var out lockedBuffer
	forward.Stdout, forward.Stderr = &out, &out
	if err := forward.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = forward.Process.Kill()
		_ = forward.Wait()
	}()
	address := regexp.MustCompile(`127\.0\.0\.1:\d+`)
	eventually(t, 10*time.Second, "the port is forwarded", func() error {
		if !address.MatchString(out.String()) {
			return fmt.Errorf("it says %q", out.String())
		}
		return nil
	})
	for range 3 {
		if got := mustGet(t, "http://"+address.FindString(out.String())+"/facts"); !strings.Contains(got, `"hostname"`) {
			t.Errorf("got %q through the forwarded port", got)
		}
	}
}

func testUnknownImage(t *testing.T, c *testCluster) {
	ns := c.namespace(t)
	image := "example.com/late:v1"
	c.create(t, ns, "late", `containers: [{image: "`+image+`"}]`)
	c.await(t, ns, "late", 10*time.Second, "waits for its image", func(p *corev1.Pod) bool {
		s := p.Status.ContainerStatuses
		return len(s) == 1 && s[0].State.Waiting != nil && s[0].State.Waiting.Reason == "ImagePullBackOff" &&
			strings.Contains(s[0].State.Waiting.Message, "add a line "+image+"=/path/to/program to "+c.images)
	})
	f, err := os.OpenFile(c.images, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(f, "example.com/late = %s\n", app)
	f.Close()
	c.awaitReady(t, ns, "late")
}

func testInitContainers(t *testing.T, c *testCluster) {
	ns := c.namespace(t)
	c.create(t, ns, "job", `
restartPolicy: Never
initContainers:
- {name: first, args: [write, /data/x, hello], volumeMounts: [{name: data, mountPath: /data}]}
- {name: second, args: [cat, /data/x], volumeMounts: [{name: data, mountPath: /data}]}
containers:
- {args: [cat, /data/x], volumeMounts: [{name: data, mountPath: /data}]}
volumes: [{name: data, emptyDir: {}}]
`)
	c.create(t, ns, "broken", `{restartPolicy: Never, initContainers: [{name: init, args: [exit, "1"]}], containers: [{}]}`)
	done := c.await(t, ns, "job", 20*time.Second, "has succeeded", func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodSucceeded })
	for _, s := range append(done.Status.InitContainerStatuses, done.Status.ContainerStatuses...) {
		if s.State.Terminated == nil || s.State.Terminated.Reason != "Completed" {
			t.Errorf("unexpected status %+v", s)
		}
	}
	if got := c.kubectl(t, "-n", ns, "logs", "job", "-c", "app"); got != "hello\n" {
		t.Errorf("the log is %q", got)
	}
	failed := c.await(t, ns, "broken", 20*time.Second, "has failed", func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodFailed })
	if s := failed.Status.ContainerStatuses[0]; s.State.Waiting == nil || s.State.Waiting.Reason != "PodInitializing" {
		t.Errorf("unexpected status %+v", s)
	}
	c.kubectl(t, "-n", ns, "delete", "pod", "job", "broken", "--timeout=10s")
}

func testUnsupported(t *testing.T, c *testCluster) {
	ns := c.namespace(t)
	c.create(t, ns, "odd", `
containers: [{livenessProbe: {grpc: {port: 1}}, volumeMounts: [{name: h, mountPath: /h, subPath: x}]}]
volumes: [{name: h, hostPath: {path: /tmp}}]
`)
	c.await(t, ns, "odd", 10*time.Second, "is refused", func(p *corev1.Pod) bool {
		s := p.Status.ContainerStatuses
		return len(s) == 1 && s[0].State.Waiting != nil && s[0].State.Waiting.Message ==
			`a process node does not support the gRPC liveness probe of container "app", the kind of volume "h", the subPath of volume "h" in container "app"`
	})
	c.kubectl(t, "-n", ns, "delete", "pod", "odd", "--timeout=10s")
}

func testNetworkFaults(t *testing.T, c *testCluster) {
	ns := c.namespace(t)
	c.create(t, ns, "web", `containers: [{}]`)
	pod := c.awaitReady(t, ns, "web")
	// The app gives its request 2 s.
	call := func() (string, time.Duration) {
		begin := time.Now()
		body, err := get("http://" + pod.Status.PodIP + ":8080/api/v1/namespaces/" + ns + "/pods")
		if err != nil {
			body = err.Error()
		}
		return body, time.Since(begin)
	}
	const answered, reset, timeout = "403 ", "connection reset|EOF|refused", "deadline exceeded|Timeout"
	for _, test := range []struct {
		fault    []string
		want     string
		min, max time.Duration
	}{
		{[]string{"heal"}, answered, 0, time.Second},
		{[]string{"refuse"}, reset, 0, time.Second},
		{[]string{"drop"}, timeout, 1900 * time.Millisecond, 4 * time.Second},
		{[]string{"heal"}, answered, 0, time.Second},
		{[]string{"drop-requests"}, timeout, 1900 * time.Millisecond, 4 * time.Second},
		{[]string{"drop-responses"}, timeout, 1900 * time.Millisecond, 4 * time.Second},
		// At least two flights in each direction: the handshake and the request.
		{[]string{"delay-responses", "300ms"}, answered, 600 * time.Millisecond, 1900 * time.Millisecond},
		{[]string{"delay-requests", "300ms"}, answered, 600 * time.Millisecond, 1900 * time.Millisecond},
		{[]string{"heal"}, answered, 0, time.Second},
	} {
		c.fault(t, append([]string{"pod", ns + "/web", "net"}, test.fault...)...)
		body, took := call()
		if !regexp.MustCompile(test.want).MatchString(body) || took < test.min || took > test.max {
			t.Errorf("%v: got %q after %s, want %q after %s to %s", test.fault, body, took, test.want, test.min, test.max)
		}
	}
	out, err := c.command("fault", "--data", c.data, "pod", ns+"/web", "net", "unplug").CombinedOutput()
	if err == nil || !strings.Contains(string(out), `unknown network fault "unplug"; there are heal, refuse, drop`) {
		t.Errorf("an unknown fault: %v, %s", err, out)
	}
}

func testSignals(t *testing.T, c *testCluster) {
	ns := c.namespace(t)
	c.create(t, ns, "web", `containers: [{readinessProbe: {httpGet: {path: /readyz, port: 8080}, periodSeconds: 1, failureThreshold: 1}}]`)
	c.awaitReady(t, ns, "web")
	c.fault(t, "pod", ns+"/web", "stop")
	c.await(t, ns, "web", 10*time.Second, "is not Ready while it is stopped", func(p *corev1.Pod) bool { return !isReady(p) })
	c.fault(t, "pod", ns+"/web", "cont")
	c.awaitReady(t, ns, "web")
	c.fault(t, "pod", ns+"/web", "kill", "-c", "app")
	killed := c.await(t, ns, "web", 10*time.Second, "is restarted at once", func(p *corev1.Pod) bool {
		return p.Status.ContainerStatuses[0].RestartCount == 1 && isReady(p)
	}).Status.ContainerStatuses[0].LastTerminationState.Terminated
	if killed.ExitCode != 137 || killed.Reason != "Error" {
		t.Errorf("unexpected end %+v", killed)
	}
}

func testDeployment(t *testing.T, c *testCluster) {
	ns := c.namespace(t)
	manifest := filepath.Join(t.TempDir(), "deployment.yaml")
	err := os.WriteFile(manifest, []byte(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      topologySpreadConstraints:
      - {maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: web}}}
      containers:
      - name: app
        image: example.com/app:dev
        env: [{name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}]
        readinessProbe: {httpGet: {path: /readyz, port: 8080}, periodSeconds: 1}
`), 0o644)
	if err != nil {
		t.Fatal(err)
	}
	c.kubectl(t, "-n", ns, "apply", "-f", manifest)
	c.kubectl(t, "-n", ns, "rollout", "status", "deployment/web", "--timeout=30s")
	pods, err := c.client.CoreV1().Pods(ns).List(t.Context(), metav1.ListOptions{LabelSelector: "app=web"})
	if err != nil {
		t.Fatal(err)
	}
	nodes, ips := map[string]bool{}, map[string]bool{}
	for _, p := range pods.Items {
		nodes[p.Spec.NodeName], ips[p.Status.PodIP] = true, true
	}
	if len(nodes) != 3 || len(ips) != 3 {
		t.Errorf("3 replicas are on nodes %v with addresses %v", nodes, ips)
	}
	c.kubectl(t, "-n", ns, "rollout", "restart", "deployment/web")
	c.kubectl(t, "-n", ns, "rollout", "status", "deployment/web", "--timeout=60s")
	c.kubectl(t, "-n", ns, "delete", "deployment", "web", "--cascade=foreground", "--timeout=30s")
}

func testAudit(t *testing.T, c *testCluster) {
	content, err := os.ReadFile(filepath.Join(c.data, "audit.log"))
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for line := range bytes.Lines(content) {
		var event struct {
			Level, Verb string
			User        struct{ Username string }
			ObjectRef   struct{ Resource string }
		}
		if line[len(line)-1] != '\n' {
			break // being written
		}
		if err := json.Unmarshal(line, &event); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		found = found || event.Level == "Metadata" && event.Verb == "list" && event.ObjectRef.Resource == "pods" &&
			strings.HasPrefix(event.User.Username, "system:serviceaccount:")
	}
	if !found {
		t.Error("the audit log does not have the request of the service account")
	}
}

// testNodeEndpoint checks that only the API server may read logs and run commands.
func testNodeEndpoint(t *testing.T, c *testCluster) {
	node, err := c.client.CoreV1().Nodes().Get(t.Context(), "localcluster-0", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	file := func(name string) string { return filepath.Join(c.data, "pki", name) }
	for _, test := range []struct {
		cert string
		ok   bool
	}{{"", false}, {"admin", false}, {"apiserver-kubelet-client", true}} {
		config := rest.TLSClientConfig{CAFile: file("ca.crt")}
		if test.cert != "" {
			config.CertFile, config.KeyFile = file(test.cert+".crt"), file(test.cert+".key")
		}
		transport, err := rest.TransportFor(&rest.Config{TLSClientConfig: config})
		if err != nil {
			t.Fatal(err)
		}
		client := http.Client{Transport: transport, Timeout: 5 * time.Second}
		response, err := client.Get(fmt.Sprintf("https://%s:%d/containerLogs/default/none/none",
			node.Status.Addresses[0].Address, node.Status.DaemonEndpoints.KubeletEndpoint.Port))
		if err == nil {
			response.Body.Close()
		}
		if got := err == nil && response.StatusCode == http.StatusNotFound; got != test.ok {
			t.Errorf("with certificate %q: got an answer %v (%v), want %v", test.cert, got, err, test.ok)
		}
	}
}

func testSecondUp(t *testing.T, c *testCluster) {
	out, err := c.command("up", "--data", c.data).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "the data folder is in use: a local cluster (process ") {
		t.Errorf("a second up in the same folder: %v\n%s", err, out)
	}
}

func testComponents(t *testing.T, c *testCluster) {
	ns := c.namespace(t)
	pod := c.create(t, ns, "witness", `containers: [{}]`)
	c.awaitReady(t, ns, "witness")
	works := func(what string) {
		t.Helper()
		eventually(t, 60*time.Second, "the cluster works after "+what, func() error {
			name := types.UID(fmt.Sprint(time.Now().UnixNano()))
			_, err := c.client.CoreV1().ConfigMaps(ns).Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: string(name)}}, metav1.CreateOptions{})
			return err
		})
	}
	state := func(component string) string {
		for _, s := range c.status(t).Components {
			if s.Name == component {
				return s.State
			}
		}
		return "unknown"
	}
	for _, step := range []struct{ component, action, state string }{
		{"apiserver", "restart", "running"},
		{"apiserver", "kill", "down"},
		{"apiserver", "start", "running"},
		{"apiserver", "stop", "stopped"},
		{"apiserver", "cont", "running"},
		{"etcd", "restart", "running"},
		{"kcm", "kill", "down"},
		{"kcm", "start", "running"},
		{"scheduler", "restart", "running"},
	} {
		begin := time.Now()
		c.fault(t, "component", step.component, step.action)
		if got := state(step.component); got != step.state {
			t.Errorf("after %s the %s is %s, want %s", step.action, step.component, got, step.state)
		}
		if step.state == "running" {
			works(step.component + " " + step.action)
			t.Logf("%s %s: the API works again after %s", step.component, step.action, time.Since(begin).Round(10*time.Millisecond))
		}
	}
	if strings.Contains(c.out.String(), "died") {
		t.Errorf("up reports faults that were asked for as deaths:\n%s", c.out)
	}
	// The Pods have not noticed, and new ones run.
	c.create(t, ns, "late", `containers: [{}]`)
	c.awaitReady(t, ns, "late")
	now := c.awaitReady(t, ns, "witness")
	if now.UID != pod.UID || now.Status.ContainerStatuses[0].RestartCount != 0 {
		t.Errorf("the faults of components concerned a Pod: %+v", now.Status)
	}
	// A death that nobody asked for is reported.
	for _, s := range c.status(t).Components {
		if s.Name == "scheduler" {
			if err := syscall.Kill(s.PID, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
	}
	eventually(t, 5*time.Second, "up reports the death", func() error {
		if !strings.Contains(c.out.String(), "scheduler died: signal: killed. The end of "+filepath.Join(c.data, "logs", "scheduler.log")) {
			return errors.New("it does not")
		}
		return nil
	})
	eventually(t, 10*time.Second, "up has started it again", func() error {
		if got := state("scheduler"); got != "running" {
			return fmt.Errorf("it is %s", got)
		}
		return nil
	})
}

func testShutdown(t *testing.T, c *testCluster) {
	pids := c.processes(t)
	begin := time.Now()
	c.stop(syscall.SIGTERM)
	t.Logf("stopped %d processes in %s", len(pids), time.Since(begin).Round(time.Millisecond))
	awaitDead(t, pids)
	if code := c.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("up ended with %d:\n%s", code, c.out)
	}
	if err := os.RemoveAll(c.data); err != nil {
		t.Error(err)
	}
	mounts, err := os.ReadFile("/proc/mounts")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), c.data) {
		t.Errorf("something is still mounted:\n%s", mounts)
	}
}
