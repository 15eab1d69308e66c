// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package benchmark

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/incumbent-io/incumbent/test/cluster"
)

// candidate is a program that competes for a lease.
type candidate struct {
	name, binary string
	args         func(kubeconfig, port string) []string
}

// candidates are the shipped manager, and controller-runtime's with one controller.
func candidates(t *testing.T) []candidate {
	t.Helper()
	buildPeer(t)
	return []candidate{
		{"Incumbent", shared.Program("manager"), func(kubeconfig, port string) []string {
			return []string{"--kubeconfig=" + kubeconfig, "--bind-address=127.0.0.1", "--secure-port=" + port, "--leader-elect-resource-name=idle"}
		}},
		{"controller-runtime", shared.Program("peer"), func(kubeconfig, _ string) []string {
			return []string{"--kubeconfig=" + kubeconfig, "--leader-elect-resource-name=idle-peer"}
		}},
	}
}

// start starts a candidate and kills it after the test.
func (c candidate) start(t *testing.T, kubeconfig string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(c.binary, c.args(kubeconfig, cluster.FreePort(t))...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // an error means that it has ended
		_ = cmd.Wait()
	})
	return cmd
}

// cpu is the CPU time of a process so far, without that of threads that have ended: Go
// keeps its threads.
func cpu(t *testing.T, pid int) (total time.Duration) {
	t.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(threads) == 0 {
		t.Fatalf("process %d has no threads (%v)", pid, err)
	}
	for _, thread := range threads {
		content, err := os.ReadFile(thread) // nanoseconds on a CPU, and two more numbers
		if err != nil {
			continue // it has ended
		}
		used, _, _ := strings.Cut(string(content), " ")
		ns, err := strconv.ParseInt(used, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		total += time.Duration(ns)
	}
	return total
}

// TestIdle measures a leader and a standby that have nothing to do, of Incumbent and of
// controller-runtime side by side: for MINUTES, by default 3.
func TestIdle(t *testing.T) {
	empty(t)
	minutes := time.Duration(number("MINUTES", 3))
	type row struct {
		candidate
		role    string
		process *exec.Cmd
		before  time.Duration
	}
	var rows []*row
	for _, c := range candidates(t) {
		for _, role := range []string{"leader", "standby"} {
			rows = append(rows, &row{candidate: c, role: role, process: c.start(t, shared.Kubeconfig)})
			time.Sleep(3 * time.Second) // who is first leads
		}
	}
	time.Sleep(10 * time.Second)
	for _, r := range rows {
		r.before = cpu(t, r.process.Process.Pid)
	}
	time.Sleep(minutes * time.Minute)
	anonymous := map[string]float64{}
	t.Log("| | | RSS | RssAnon | CPU per minute | binary |\n|---|---|---|---|---|---|")
	for _, r := range rows {
		pid := r.process.Process.Pid
		size, err := os.Stat(r.binary)
		if err != nil {
			t.Fatal(err)
		}
		_, resident, private := residentOf(t, pid)
		anonymous[r.name+r.role] = private
		t.Logf("| %s | %s | %.1f MiB | %.1f MiB | %v | %.1f MiB |", r.name, r.role, resident, private, ((cpu(t, pid) - r.before) / minutes).Round(100*time.Microsecond), float64(size.Size())/(1<<20))
	}
	for _, role := range []string{"leader", "standby"} {
		if more := anonymous["Incumbent"+role] - anonymous["controller-runtime"+role]; more > 4 {
			t.Errorf("%s: %.1f MiB more of its own than controller-runtime's, want at most 4", role, more)
		}
	}
}

// TestFirstLeaseRequest measures from the start of a process to its first request for
// the lease, at a server that answers nothing else.
func TestFirstLeaseRequest(t *testing.T) {
	for _, c := range candidates(t) {
		var took []time.Duration
		for range number("TRIALS", 10) {
			asked := make(chan time.Time, 100)
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if strings.Contains(r.URL.Path, "/leases") {
					select {
					case asked <- time.Now():
					default:
					}
				}
				http.Error(w, "not now", http.StatusServiceUnavailable)
			}))
			config := clientcmdapi.NewConfig()
			config.Clusters["c"] = &clientcmdapi.Cluster{Server: server.URL}
			config.Contexts["c"] = &clientcmdapi.Context{Cluster: "c"}
			config.CurrentContext = "c"
			path := filepath.Join(t.TempDir(), "kubeconfig")
			if err := clientcmd.WriteToFile(*config, path); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			process := c.start(t, path)
			select {
			case at := <-asked:
				took = append(took, at.Sub(began))
			case <-time.After(30 * time.Second):
				t.Fatalf("%s asks for no lease", c.name)
			}
			_ = process.Process.Kill()
			server.CloseClientConnections()
			server.Close()
		}
		slices.Sort(took)
		t.Logf("%s: start to first lease request: median %v, max %v of %d", c.name, took[len(took)/2], took[len(took)-1], len(took))
	}
}
