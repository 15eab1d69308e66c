// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

// Package benchmark measures what the documentation claims, on a local cluster:
// hand-overs and memory with 20,000 ConfigMaps, and a thousand controllers in one
// process. `make benchmark` runs it; OBJECTS, DATA (bytes in each) and TRIALS change its
// size.
package benchmark

import (
	"context"
	"errors"
	"fmt"
	"os"
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
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/incumbent-io/incumbent/test/cluster"
)

// shared is the local cluster of all benchmarks.
var shared *cluster.Cluster

func TestMain(m *testing.M) {
	os.Exit(cluster.Main(cluster.Config{Programs: []string{"./test/benchmark/host", "./test/benchmark/storm"}}, func(c *cluster.Cluster) int {
		shared = c
		return m.Run()
	}))
}

func number(name string, otherwise int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return otherwise
}

// objects is how many ConfigMaps there are.
func objects() int { return number("OBJECTS", 20000) }

// filled is how many bytes of data the ConfigMaps have, or 0 while there are none.
var filled int

// fill makes the ConfigMaps that the benchmarks watch, or changes them, so that each has
// so many bytes of data.
func fill(t *testing.T, bytes int) {
	t.Helper()
	if bytes = number("DATA", bytes); bytes == filled {
		return
	}
	names := make(chan int)
	go func() {
		defer close(names)
		for i := range objects() {
			names <- i
		}
	}()
	write := shared.Client.CoreV1().ConfigMaps("default").Create
	if filled > 0 {
		write = func(ctx context.Context, object *corev1.ConfigMap, _ metav1.CreateOptions) (*corev1.ConfigMap, error) {
			return shared.Client.CoreV1().ConfigMaps("default").Update(ctx, object, metav1.UpdateOptions{})
		}
	}
	var writers sync.WaitGroup
	for range 16 {
		writers.Go(func() {
			for i := range names {
				_, err := write(context.Background(), &corev1.ConfigMap{
					ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("object-%d", i)},
					Data:       map[string]string{"data": strings.Repeat("x", bytes)},
				}, metav1.CreateOptions{})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	if t.Failed() {
		t.FailNow()
	}
	filled = bytes
}

// empty deletes what fill has made.
func empty(t *testing.T) {
	t.Helper()
	if filled == 0 {
		return
	}
	if err := shared.Client.CoreV1().ConfigMaps("default").DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
		t.Fatal(err)
	}
	filled = 0
}

// process is a host whose log tells of events.
type process struct{ *cluster.Process }

func launch(t *testing.T, env string, args ...string) *process {
	t.Helper()
	return &process{shared.Launch(t, "host", []string{env}, append([]string{
		"--kubeconfig=" + shared.Kubeconfig, "--leader-elect-resource-name=" + strings.ToLower(t.Name()), "--v=2",
	}, args...)...)}
}

// find waits until the log has a match, and returns the last.
func (p *process) find(t *testing.T, pattern string) []string {
	t.Helper()
	expression := regexp.MustCompile(pattern)
	var match []string
	cluster.Eventually(t, time.Minute, "a line like "+pattern, func() error {
		all := expression.FindAllStringSubmatch(p.Log(), -1)
		if len(all) == 0 {
			return fmt.Errorf("no %q in the log", pattern)
		}
		match = all[len(all)-1]
		return nil
	})
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

// memory is what is in use, in bytes, after the garbage was collected twice.
type memory struct{ heap, stack, goroutines int }

func (p *process) memory(t *testing.T) (m memory) {
	t.Helper()
	before := strings.Count(p.Log(), "MEMORY")
	_ = p.Cmd.Process.Signal(syscall.SIGUSR1)
	cluster.Eventually(t, 20*time.Second, "what is in use", func() error {
		if strings.Count(p.Log(), "MEMORY") == before {
			return errors.New("it does not say what is in use")
		}
		return nil
	})
	match := p.find(t, `MEMORY heap=(\d+) stack=(\d+) goroutines=(\d+)`)
	m.heap, _ = strconv.Atoi(match[1])
	m.stack, _ = strconv.Atoi(match[2])
	m.goroutines, _ = strconv.Atoi(match[3])
	return m
}

// resident returns the peak and the anonymous part of what is resident, in MiB.
func (p *process) resident(t *testing.T) (peak, anonymous float64) {
	t.Helper()
	peak, _, anonymous = residentOf(t, p.Cmd.Process.Pid)
	return peak, anonymous
}

// residentOf returns what is resident of a process, in MiB: its peak, now, and the
// anonymous part of that.
func residentOf(t *testing.T, pid int) (peak, now, anonymous float64) {
	t.Helper()
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
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
	return field("VmHWM"), field("VmRSS"), field("RssAnon")
}

// TestHandOver measures from the release of the lease to the first reconcile on the
// standby.
func TestHandOver(t *testing.T) {
	fill(t, 900)
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
			leader.Terminate(t)
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
		leader.Terminate(t)
	}
}

// TestMemoryOfADisabledController measures what a cache of all ConfigMaps takes, and
// what is left of that once its only user is disabled.
func TestMemoryOfADisabledController(t *testing.T) {
	fill(t, 900)
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
	others := shared.Watches(t, "configmaps", "cluster")
	p := launch(t, "TRIVIAL=1", "--config="+config)
	p.event(t, "all-running")
	before := p.memory(t).heap
	write("trivial-0, watcher")
	p.event(t, "first-reconcile")
	time.Sleep(2 * time.Second) // the rest of the replay
	with := p.memory(t).heap
	if n := shared.Watches(t, "configmaps", "cluster"); n != others+1 {
		t.Errorf("watches on ConfigMaps: got %d, want %d", n, others+1)
	}
	write("trivial-0")
	p.find(t, "Controller is disabled")
	cluster.Eventually(t, 10*time.Second, "the end of its watch", func() error {
		if n := shared.Watches(t, "configmaps", "cluster"); n != others {
			return fmt.Errorf("watches on ConfigMaps: got %d, want %d", n, others)
		}
		return nil
	})
	after := p.memory(t).heap
	freed := 100 * float64(with-after) / float64(with-before)
	t.Logf("heap in use: %d KiB without the cache, %d KiB with it, %d KiB after its user was disabled: %.0f %% freed", before>>10, with>>10, after>>10, freed)
	if freed < 80 {
		t.Errorf("%.0f %% of the cache was freed, want at least 80 %%", freed)
	}
	p.Terminate(t)
}

// TestThousandControllers measures a process with very many controllers beside one
// with a single one.
func TestThousandControllers(t *testing.T) {
	const n = 1000
	one := launch(t, "TRIVIAL=1", "--controllers=*,-watcher")
	one.event(t, "all-running")
	time.Sleep(time.Second)
	base := one.memory(t)
	one.Terminate(t)

	many := launch(t, fmt.Sprintf("TRIVIAL=%d", n), "--controllers=*,-watcher")
	started := many.event(t, "all-running").Sub(many.logged(t, "Starting to lead"))
	time.Sleep(time.Second)
	m := many.memory(t)
	each := float64(m.heap+m.stack-base.heap-base.stack) / n / 1024
	stopped := many.Terminate(t)
	t.Logf("%d controllers: running %v after OnStartedLeading, stopped %v after SIGTERM; %.1f KiB and %.2f goroutines each", n, started, stopped, each, float64(m.goroutines-base.goroutines)/n)
	if started > 2*time.Second || stopped > 2*time.Second || each > 50 {
		t.Errorf("want at most 2s, 2s and 50 KiB")
	}
}
