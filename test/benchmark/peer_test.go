// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package benchmark

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/incumbent-io/incumbent/test/cluster"
)

// buildPeer builds controller-runtime's manager, in a module of its own.
func buildPeer(t *testing.T) {
	t.Helper()
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags=-s -w", "-o", shared.Program("peer"), ".")
	build.Dir = filepath.Join(shared.Root, "test/benchmark/peer")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// launchPeer starts controller-runtime's manager.
func launchPeer(t *testing.T, lease string, args ...string) *process {
	t.Helper()
	return &process{shared.Launch(t, "peer", nil, append([]string{
		"--kubeconfig=" + shared.Kubeconfig, "--leader-elect-resource-name=" + lease,
	}, args...)...)}
}

// TestNoOp measures how fast a warm standby that has taken over reconciles all objects
// with a function that does nothing, and its memory: Incumbent and controller-runtime in
// turn.
func TestNoOp(t *testing.T) {
	fill(t, 200)
	buildPeer(t)
	for _, workers := range []int{1, 10} {
		competitors := []*noOp{
			{name: "Incumbent", launch: func() *process {
				env := []string{"LOOKERS=1", fmt.Sprintf("WORKERS=%d", workers), fmt.Sprintf("EXPECTED=%d", objects())}
				return &process{shared.Launch(t, "host", env, "--kubeconfig="+shared.Kubeconfig, "--controllers=looker-0",
					"--leader-elect-resource-name=no-op", "--v=2")}
			}, elected: func(p *process) time.Time { return p.logged(t, "Starting to lead") }},
			{name: "controller-runtime", launch: func() *process {
				return launchPeer(t, "no-op-peer", "--warm", fmt.Sprintf("--workers=%d", workers), fmt.Sprintf("--expected=%d", objects()))
			}, elected: func(p *process) time.Time { return p.event(t, "elected") }},
		}
		for _, c := range competitors {
			c.leader = c.launch()
			c.leader.event(t, "all-reconciled")
		}
		for range number("TRIALS", 5) {
			for _, c := range competitors {
				c.takeOver(t)
			}
		}
		for _, c := range competitors {
			c.leader.Terminate(t)
		}
		t.Logf("%d workers, %d objects, median (max) of %d:", workers, objects(), len(competitors[0].took))
		t.Log("| | leading to the last | first to the last | CPU for that | peak RSS |\n|---|---|---|---|---|")
		for _, c := range competitors {
			t.Logf("| %s | %v (%v) | %v | %v | %.1f MiB (%.1f) |", c.name, median(c.took).Round(time.Millisecond), slices.Max(c.took).Round(time.Millisecond),
				median(c.rows).Round(time.Millisecond), median(c.cpu), median(c.peaks), slices.Max(c.peaks))
		}
		us, peer := competitors[0], competitors[1]
		duration, memory := float64(median(us.took))/float64(median(peer.took)), median(us.peaks)/median(peer.peaks)
		t.Logf("ratio of Incumbent to controller-runtime, %d workers: time %.2f, peak RSS %.2f", workers, duration, memory)
		if duration > 1 || memory > 0.7 {
			t.Errorf("%d workers: want ratios of at most 1 and 0.7", workers)
		}
	}
}

// noOp is a competitor in TestNoOp.
type noOp struct {
	name    string
	launch  func() *process
	elected func(*process) time.Time
	leader  *process
	took    []time.Duration // from leading to the last reconcile
	rows    []time.Duration // from the first reconcile to the last
	cpu     []time.Duration
	peaks   []float64 // MiB
}

func (c *noOp) takeOver(t *testing.T) {
	t.Helper()
	standby := c.launch()
	awaitQuiet(t, standby)
	before := cpu(t, standby.Cmd.Process.Pid)
	c.leader.Terminate(t)
	done := standby.event(t, "all-reconciled")
	c.cpu = append(c.cpu, cpu(t, standby.Cmd.Process.Pid)-before)
	c.took = append(c.took, done.Sub(c.elected(standby)))
	c.rows = append(c.rows, done.Sub(standby.event(t, "first-of-all")))
	peak, _ := standby.resident(t)
	c.peaks = append(c.peaks, peak)
	c.leader = standby
}

// awaitQuiet waits until a standby has filled its caches: it has used some CPU, and next
// to none of it for two seconds.
func awaitQuiet(t *testing.T, p *process) {
	t.Helper()
	began := time.Now()
	for last := time.Duration(-1); ; {
		time.Sleep(2 * time.Second) // what is measured is what happens meanwhile
		now := cpu(t, p.Cmd.Process.Pid)
		if now > 100*time.Millisecond && now-last <= 30*time.Millisecond {
			return
		}
		if last = now; time.Since(began) > time.Minute {
			t.Fatal("a standby does not come to rest")
		}
	}
}

func median[T interface{ time.Duration | float64 }](list []T) T {
	return slices.Sorted(slices.Values(list))[len(list)/2]
}

// TestConsolidation measures ten controllers on the same objects: as ten operators of
// controller-runtime, and in one Incumbent, one after the other.
func TestConsolidation(t *testing.T) {
	const n = 10
	fill(t, 200)
	buildPeer(t)
	type result struct {
		peak, resident, anonymous float64 // MiB
		watches, requests         int
		cpu                       time.Duration
	}
	measure := func(agent string, launch func() []*process) (r result) {
		others, asked := shared.Watches(t, "configmaps", "cluster"), requestsOf(t, agent)
		processes := launch()
		for _, p := range processes {
			awaitQuiet(t, p)
		}
		time.Sleep(time.Minute) // what is measured is a process that has nothing to do
		for _, p := range processes {
			peak, now, anonymous := residentOf(t, p.Cmd.Process.Pid)
			r.peak += peak
			r.resident += now
			r.anonymous += anonymous
			r.cpu += cpu(t, p.Cmd.Process.Pid)
		}
		r.watches = shared.Watches(t, "configmaps", "cluster") - others
		r.requests = requestsOf(t, agent) - asked
		for _, p := range processes {
			p.Terminate(t)
		}
		cluster.Eventually(t, 20*time.Second, "the end of their watches", func() error {
			if left := shared.Watches(t, "configmaps", "cluster") - others; left > 0 {
				return fmt.Errorf("%d are left", left)
			}
			return nil
		})
		return r
	}
	peers := measure("peer/", func() (list []*process) {
		for i := range n {
			list = append(list, launchPeer(t, fmt.Sprintf("consolidation-%d", i)))
		}
		return list
	})
	ours := measure("host/", func() []*process {
		return []*process{{shared.Launch(t, "host", []string{fmt.Sprintf("LOOKERS=%d", n)}, "--kubeconfig="+shared.Kubeconfig,
			"--controllers=*,-watcher", "--leader-elect-resource-name=consolidation", "--v=2")}}
	})
	t.Logf("%d controllers, %d ConfigMaps, a minute after the caches were filled:", n, objects())
	t.Log("| | ten controller-runtime operators | one Incumbent |\n|---|---|---|")
	t.Logf("| RSS | %.0f MiB | %.0f MiB |", peers.resident, ours.resident)
	t.Logf("| RssAnon | %.0f MiB | %.0f MiB |", peers.anonymous, ours.anonymous)
	t.Logf("| peak of RSS | %.0f MiB | %.0f MiB |", peers.peak, ours.peak)
	t.Logf("| watches on ConfigMaps | %d | %d |", peers.watches, ours.watches)
	t.Logf("| API requests, start included | %d | %d |", peers.requests, ours.requests)
	t.Logf("| CPU, start included | %v | %v |", peers.cpu, ours.cpu)
	if ratio := ours.anonymous / peers.anonymous; ratio > 0.1 || ours.watches != 1 {
		t.Errorf("%.2f of the anonymous memory and %d watches, want at most 0.1 and 1", ratio, ours.watches)
	}
}

// requestsOf counts the requests of a user agent.
func requestsOf(t *testing.T, agent string) (n int) {
	t.Helper()
	requests, err := shared.Audit(time.Time{}, agent).Requests(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range requests {
		// A watch has been counted when it began.
		if strings.HasPrefix(r.UserAgent, agent) && (r.Verb != "watch" || r.Stage == "ResponseStarted") {
			n++
		}
	}
	return n
}
