// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

// Package benchmark measures what the documentation claims, on a local cluster:
// hand-overs and memory with 20,000 ConfigMaps, and a thousand controllers in one
// process. `make benchmark` runs it; OBJECTS and TRIALS change its size.
package benchmark

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

var (
	folder, kubeconfig, host string
	client                   kubernetes.Interface
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	cluster, err := start()
	if err != nil {
		fmt.Fprintln(os.Stderr, "the local cluster does not start:", err)
		return 1
	}
	code := m.Run()
	_ = cluster.Process.Signal(syscall.SIGTERM) // an error means that it has ended
	if err := cluster.Wait(); err != nil {
		fmt.Fprintln(os.Stderr, "the local cluster does not stop cleanly:", err)
		return 1
	}
	_ = os.RemoveAll(folder)
	return code
}

func start() (*exec.Cmd, error) {
	root, err := filepath.Abs("../..")
	if err != nil {
		return nil, err
	}
	if folder, err = os.MkdirTemp("", "incumbent-benchmark-"); err != nil {
		return nil, err
	}
	kubeconfig, host = filepath.Join(folder, "kubeconfig"), filepath.Join(folder, "host")
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", host, "./test/benchmark/host")
	build.Dir, build.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, out)
	}
	cluster := exec.Command(filepath.Join(root, "bin/localcluster"), "up", "--data", filepath.Join(folder, "cluster"), "--kubeconfig", kubeconfig)
	if err := cluster.Start(); err != nil {
		return nil, err
	}
	return cluster, within(time.Minute, func() error {
		config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
		if err != nil {
			return err
		}
		config.QPS = -1
		if client, err = kubernetes.NewForConfig(config); err == nil {
			_, err = client.CoreV1().ServiceAccounts("default").Get(context.Background(), "default", metav1.GetOptions{})
		}
		return err
	})
}

// within calls f until it returns nil.
func within(limit time.Duration, f func() error) error {
	for deadline := time.Now().Add(limit); ; time.Sleep(20 * time.Millisecond) {
		if err := f(); err == nil || time.Now().After(deadline) {
			return err
		}
	}
}

func number(name string, otherwise int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return otherwise
}

// fill makes the ConfigMaps that the benchmarks watch, of about 1 KB each.
var fill = sync.OnceValue(func() error {
	names := make(chan int)
	go func() {
		defer close(names)
		for i := range number("OBJECTS", 20000) {
			names <- i
		}
	}()
	errs := make(chan error, 16)
	for range cap(errs) {
		go func() {
			var failed error
			for i := range names {
				_, err := client.CoreV1().ConfigMaps("default").Create(context.Background(), &corev1.ConfigMap{
					ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("object-%d", i)},
					Data:       map[string]string{"data": strings.Repeat("x", 900)},
				}, metav1.CreateOptions{})
				if err != nil && !apierrors.IsAlreadyExists(err) {
					failed = err
				}
			}
			errs <- failed
		}()
	}
	var all error
	for range cap(errs) {
		all = errors.Join(all, <-errs)
	}
	return all
})

// process is a manager and what it has printed.
type process struct {
	*exec.Cmd
	mu     sync.Mutex
	output bytes.Buffer
}

func (p *process) Write(data []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.output.Write(data)
}

func (p *process) log() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.output.String()
}

func launch(t *testing.T, env string, args ...string) *process {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := listener.Addr().(*net.TCPAddr).Port
	_ = listener.Close()
	p := &process{}
	p.Cmd = exec.Command(host, append([]string{
		"--kubeconfig=" + kubeconfig, "--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", port),
		"--leader-elect-resource-name=" + strings.ToLower(t.Name()), "--v=2",
	}, args...)...)
	p.Env = append(os.Environ(), env)
	p.Stdout, p.Stderr = p, p
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.Process.Kill() // an error means that it has ended
		if t.Failed() {
			t.Logf("the end of a log:\n%s", p.log()[max(0, len(p.log())-3000):])
		}
	})
	return p
}

// find waits until the log has a match, and returns the last.
func (p *process) find(t *testing.T, pattern string) []string {
	t.Helper()
	expression := regexp.MustCompile(pattern)
	var match []string
	if err := within(time.Minute, func() error {
		all := expression.FindAllStringSubmatch(p.log(), -1)
		if len(all) == 0 {
			return fmt.Errorf("no %q in the log", pattern)
		}
		match = all[len(all)-1]
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return match
}

// event returns when the manager told of something.
func (p *process) event(t *testing.T, what string) time.Time {
	t.Helper()
	nanos, err := strconv.ParseInt(p.find(t, "EVENT "+what+" ([0-9]+)")[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return time.Unix(0, nanos)
}

// logged returns when a line was logged.
func (p *process) logged(t *testing.T, message string) time.Time {
	t.Helper()
	at, err := time.ParseInLocation("0102 15:04:05.000000", p.find(t, `[IE](\d{4} \S+) .*"`+message+`"`)[1], time.Local)
	if err != nil {
		t.Fatal(err)
	}
	return at.AddDate(time.Now().Year(), 0, 0)
}

// terminate asks the manager to stop and returns how long that took.
func (p *process) terminate(t *testing.T) time.Duration {
	t.Helper()
	began := time.Now()
	_ = p.Process.Signal(syscall.SIGTERM)
	if err := p.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
	return time.Since(began)
}

// memory is what is in use, in bytes, after the garbage was collected twice.
type memory struct{ heap, stack, goroutines int }

func (p *process) memory(t *testing.T) (m memory) {
	t.Helper()
	before := strings.Count(p.log(), "MEMORY")
	_ = p.Process.Signal(syscall.SIGUSR1)
	if err := within(20*time.Second, func() error {
		if strings.Count(p.log(), "MEMORY") == before {
			return errors.New("it does not say what is in use")
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	match := p.find(t, `MEMORY heap=(\d+) stack=(\d+) goroutines=(\d+)`)
	m.heap, _ = strconv.Atoi(match[1])
	m.stack, _ = strconv.Atoi(match[2])
	m.goroutines, _ = strconv.Atoi(match[3])
	return m
}

// resident returns the peak and the anonymous part of what is resident, in MiB.
func (p *process) resident(t *testing.T) (peak, anonymous float64) {
	t.Helper()
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	field := func(name string) float64 {
		match := regexp.MustCompile(name + `:\s+(\d+) kB`).FindSubmatch(content)
		if match == nil {
			t.Fatalf("no %s in the status of the process", name)
		}
		kilobytes, _ := strconv.ParseFloat(string(match[1]), 64)
		return kilobytes / 1024
	}
	return field("VmHWM"), field("RssAnon")
}

// TestHandOver measures from the release of the lease to the first reconcile on the
// standby.
func TestHandOver(t *testing.T) {
	if err := fill(); err != nil {
		t.Fatal(err)
	}
	for _, standby := range []string{"warm", "cold"} {
		var took []time.Duration
		leader := launch(t, "", "--standby="+standby)
		leader.event(t, "first-reconcile")
		for range number("TRIALS", 10) {
			next := launch(t, "", "--standby="+standby)
			next.find(t, `New leader observed`)
			if standby == "warm" {
				// A request for readiness tells when the caches are synced.
				time.Sleep(4 * time.Second)
			}
			peak, anonymous := next.resident(t)
			t.Logf("%s standby: peak RSS %.0f MiB, RssAnon %.0f MiB", standby, peak, anonymous)
			leader.terminate(t)
			took = append(took, next.event(t, "first-reconcile").Sub(leader.logged(t, "Released the lease")))
			leader = next
		}
		peak, anonymous := leader.resident(t)
		slices.Sort(took)
		median, most := took[len(took)/2], took[len(took)-1]
		t.Logf("%s: release to first reconcile: median %v, max %v of %d; leader: peak RSS %.0f MiB, RssAnon %.0f MiB", standby, median, most, len(took), peak, anonymous)
		if standby == "warm" && median > 50*time.Millisecond {
			t.Errorf("warm: median %v, want at most 50ms", median)
		}
		leader.terminate(t)
	}
}

// TestMemoryOfADisabledController measures what a cache of all ConfigMaps takes, and
// what is left of that once its only user is disabled.
func TestMemoryOfADisabledController(t *testing.T) {
	if err := fill(); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(t.TempDir(), "config.yaml")
	write := func(controllers string) {
		content := "apiVersion: config.incumbent.io/v1alpha1\nkind: ManagerConfiguration\ncontrollers: [" + controllers + "]\n"
		if err := os.WriteFile(config+".new", []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(config+".new", config); err != nil {
			t.Fatal(err)
		}
	}
	write("trivial-0")
	others, err := watches()
	if err != nil {
		t.Fatal(err)
	}
	p := launch(t, "TRIVIAL=1", "--config="+config)
	p.event(t, "all-running")
	before := p.memory(t).heap
	write("trivial-0, watcher")
	p.event(t, "first-reconcile")
	time.Sleep(2 * time.Second) // the rest of the replay
	with := p.memory(t).heap
	if n, err := watches(); err != nil || n != others+1 {
		t.Errorf("watches on ConfigMaps: got %d (%v), want %d", n, err, others+1)
	}
	write("trivial-0")
	p.find(t, "Controller is disabled")
	if err := within(10*time.Second, func() error {
		if n, err := watches(); err != nil || n != others {
			return fmt.Errorf("watches on ConfigMaps: got %d (%v), want %d", n, err, others)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	after := p.memory(t).heap
	freed := 100 * float64(with-after) / float64(with-before)
	t.Logf("heap in use: %d KiB without the cache, %d KiB with it, %d KiB after its user was disabled: %.0f %% freed", before>>10, with>>10, after>>10, freed)
	if freed < 80 {
		t.Errorf("%.0f %% of the cache was freed, want at least 80 %%", freed)
	}
	p.terminate(t)
}

// watches returns how many watches the API server has on ConfigMaps of all namespaces.
// Kubernetes itself has some, too.
func watches() (int, error) {
	body, err := client.CoreV1().RESTClient().Get().AbsPath("/metrics").DoRaw(context.Background())
	if err != nil {
		return 0, err
	}
	n := 0
	for _, match := range regexp.MustCompile(`apiserver_longrunning_requests\{[^}]*resource="configmaps",scope="cluster"[^}]*verb="WATCH"[^}]*\} (\d+)`).FindAllStringSubmatch(string(body), -1) {
		value, _ := strconv.Atoi(match[1])
		n += value
	}
	return n, nil
}

// TestThousandControllers measures a process with very many controllers beside one
// with a single one.
func TestThousandControllers(t *testing.T) {
	const n = 1000
	one := launch(t, "TRIVIAL=1", "--controllers=*,-watcher")
	one.event(t, "all-running")
	time.Sleep(time.Second)
	base := one.memory(t)
	one.terminate(t)

	many := launch(t, fmt.Sprintf("TRIVIAL=%d", n), "--controllers=*,-watcher")
	started := many.event(t, "all-running").Sub(many.logged(t, "Starting to lead"))
	time.Sleep(time.Second)
	m := many.memory(t)
	each := float64(m.heap+m.stack-base.heap-base.stack) / n / 1024
	stopped := many.terminate(t)
	t.Logf("%d controllers: running %v after OnStartedLeading, stopped %v after SIGTERM; %.1f KiB and %.2f goroutines each", n, started, stopped, each, float64(m.goroutines-base.goroutines)/n)
	if started > 2*time.Second || stopped > 2*time.Second || each > 50 {
		t.Errorf("want at most 2s, 2s and 50 KiB")
	}
}
