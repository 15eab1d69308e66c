// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

// Package shipped tests the controllers that ship on a real control plane, in the
// shipped manager, as processes whose leader is killed. CHAOS, a duration such as 60s,
// sets how long the writers of each chaos test go on; the default is 15s. With it, tests
// of large numbers of object-ttl and leader-label have 10,000 objects instead of 2,000.
package shipped

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/incumbent-io/incumbent/test/cluster"
)

// shared is the local cluster of all tests of this package.
var shared *cluster.Cluster

func TestMain(m *testing.M) {
	os.Exit(cluster.Main(cluster.Config{}, func(c *cluster.Cluster) int {
		shared = c
		return m.Run()
	}))
}

// fleet is a number of shipped managers that compete for one lease, with one controller.
type fleet struct {
	start   func() *cluster.Process
	members []*cluster.Process
	account account // if it has one of its own
}

// newFleet starts n managers with the controller alone, and waits until one leads.
// namespace, which must exist, holds their lease.
func newFleet(t *testing.T, n int, namespace, controller string, args ...string) *fleet {
	t.Helper()
	f := &fleet{start: func() *cluster.Process {
		return shared.Launch(t, "manager", nil, append([]string{
			"--kubeconfig=" + shared.Kubeconfig, "--controllers=" + controller, "--kube-api-qps=0",
			"--leader-elect-resource-namespace=" + namespace, "--leader-elect-resource-name=" + controller,
			"--leader-elect-lease-duration=3s", "--leader-elect-renew-deadline=1s", "--leader-elect-retry-period=300ms",
		}, args...)...)
	}}
	for range n {
		f.members = append(f.members, f.start())
	}
	f.leader(t)
	return f
}

// leader waits until a member leads, and returns it.
func (f *fleet) leader(t *testing.T) (leader *cluster.Process) {
	t.Helper()
	cluster.Eventually(t, 30*time.Second, "a manager leads", func() error {
		for _, p := range f.members {
			_, body, err := cluster.Get(t, p.Address+"/readyz?verbose", "")
			if err == nil && strings.Contains(body, "leader, epoch") {
				leader = p
				return nil
			}
		}
		return fmt.Errorf("none of %d does", len(f.members))
	})
	return leader
}

// killLeader kills the leader as kill -9 does, and starts another member.
func (f *fleet) killLeader(t *testing.T) {
	t.Helper()
	leader := f.leader(t)
	if err := leader.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-leader.Ended
	f.members = slices.DeleteFunc(f.members, func(p *cluster.Process) bool { return p == leader })
	f.members = append(f.members, f.start())
}

// restart stops all members, and starts as many after meanwhile.
func (f *fleet) restart(t *testing.T, meanwhile func()) {
	t.Helper()
	for _, p := range f.members {
		p.Terminate(t)
	}
	meanwhile()
	for i := range f.members {
		f.members[i] = f.start()
	}
	f.leader(t)
}

// inParallel calls f for 0 to n-1, 20 at a time, and fails the test with its first error.
func inParallel(t *testing.T, n int, f func(i int) error) {
	t.Helper()
	var all sync.WaitGroup
	errs := make(chan error, 20)
	for worker := range 20 {
		all.Go(func() {
			for i := worker; i < n; i += 20 {
				if err := f(i); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	all.Wait()
	close(errs)
	if err := <-errs; err != nil {
		t.Fatal(err)
	}
}

// chaosWriters is how many write at the same time.
const chaosWriters = 20

// chaos has writers call write over and over, each with random numbers of its own, for
// as long as CHAOS says, and kills the leader three times meanwhile. A write that fails
// because others write, too, must return nil.
func chaos(t *testing.T, f *fleet, write func(ctx context.Context, writer int, random *rand.Rand) error) {
	t.Helper()
	last := 15 * time.Second
	if text := os.Getenv("CHAOS"); text != "" {
		var err error
		if last, err = time.ParseDuration(text); err != nil {
			t.Fatalf("CHAOS: %v", err)
		}
	}
	ctx, stop := context.WithTimeout(t.Context(), last)
	defer stop()
	var writers sync.WaitGroup
	var writes atomic.Int64
	for i := range chaosWriters {
		random := rand.New(rand.NewPCG(uint64(i), 0))
		writers.Go(func() {
			for ctx.Err() == nil {
				if err := write(ctx, i, random); err != nil && ctx.Err() == nil {
					t.Errorf("writer %d: %v", i, err)
					return
				}
				writes.Add(1)
			}
		})
	}
	for range 3 {
		select {
		case <-time.After(last / 4):
			f.killLeader(t)
		case <-ctx.Done():
			t.Error("the leader could not be killed three times in that time")
		}
	}
	writers.Wait()
	t.Logf("%d writes by %d writers in %v, the leader was killed three times", writes.Load(), chaosWriters, last)
}
