// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package leaderelection

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// fleet is several processes that compete for several leases, in a bubble.
type fleet struct {
	t         *testing.T
	servers   []*simServer
	processes map[string][]*running // by name; an elector for each lease
	links     map[string][]*simLink
	serial    int
}

func newFleet(t *testing.T, leases int) *fleet {
	f := &fleet{t: t, processes: map[string][]*running{}, links: map[string][]*simLink{}}
	for range leases {
		f.servers = append(f.servers, newSimServer())
	}
	return f
}

// start starts a process.
func (f *fleet) start(name string) {
	f.serial++
	identity := &Identity{name: name + "_uid_inc1-" + strings.Repeat("a", 20) + base32Digits(f.serial)}
	share := NewShare()
	for i, server := range f.servers {
		cfg := benchConfig(server, identity.name)
		cfg.LeaseName, cfg.Identity, cfg.Share = fmt.Sprintf("lease-%d", i), identity, share
		f.links[name] = append(f.links[name], cfg.api.(simAPI).link)
		f.processes[name] = append(f.processes[name], runElector(f.t, cfg))
	}
}

// kill ends a process without a word: nothing of it reaches the servers any more.
func (f *fleet) kill(name string) {
	for i, r := range f.processes[name] {
		f.links[name][i].set(func(l *simFaults) { l.dead = true })
		r.Abandon()
		<-r.done
	}
	delete(f.processes, name)
}

func (f *fleet) stop(name string) {
	for _, r := range f.processes[name] {
		r.stop()
	}
	for _, r := range f.processes[name] {
		if err := <-r.done; err != nil {
			f.t.Errorf("%s: Run: %v", name, err)
		}
	}
	delete(f.processes, name)
}

// led returns how many leases each process leads, as "a 1, b 2".
func (f *fleet) led() string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(f.processes)) {
		n := 0
		for _, r := range f.processes[name] {
			if r.Status().Leading() {
				n++
			}
		}
		parts = append(parts, fmt.Sprintf("%s %d", name, n))
	}
	return strings.Join(parts, ", ")
}

// expect waits until the leases are shared out in one of these ways, and then that they
// stay so.
func (f *fleet) expect(within time.Duration, oneOf ...string) {
	f.t.Helper()
	began := time.Now()
	for !slices.Contains(oneOf, f.led()) && time.Since(began) < within {
		time.Sleep(10 * time.Millisecond)
	}
	want := f.led()
	f.t.Logf("%s after %v", want, time.Since(began))
	if !slices.Contains(oneOf, want) {
		f.t.Errorf("after %v: got %s, want one of %q", within, want, oneOf)
	}
	versions := f.transitions()
	time.Sleep(5 * time.Minute)
	if diff := cmp.Diff(versions, f.transitions()); diff != "" || f.led() != want {
		f.t.Errorf("in five quiet minutes leases moved (-before +after), now %s:\n%s", f.led(), diff)
	}
	for i, server := range f.servers {
		if lease, err := server.get(); err != nil || lease.Annotations[claimAnnotation] != "" {
			f.t.Errorf("lease %d: got the annotations %v (%v), want no claim left", i, lease.Annotations, err)
		}
	}
}

func (f *fleet) transitions() (list []int32) {
	for _, server := range f.servers {
		lease, err := server.get()
		if err != nil {
			f.t.Fatal(err)
		}
		list = append(list, *lease.Spec.LeaseTransitions)
	}
	return list
}

func (f *fleet) end() {
	for name := range f.processes {
		f.stop(name)
	}
	time.Sleep(10 * time.Minute)
}

func TestOneProcessLeadsAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 3)
		f.start("a")
		f.expect(2*time.Second, "a 3")
		f.end()
	})
}

func TestLeasesAreSharedOut(t *testing.T) {
	for name, pause := range map[string]time.Duration{"together": 0, "one after another": 2 * time.Second, "later": time.Minute} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t, 3)
				for _, name := range []string{"a", "b", "c"} {
					f.start(name)
					time.Sleep(pause)
				}
				f.expect(10*time.Second, "a 1, b 1, c 1")
				f.kill("b")
				f.start("d")
				f.expect(DefaultLeaseDuration+10*time.Second, "a 1, c 1, d 1")
				f.stop("a")
				f.expect(5*time.Second, "c 2, d 1", "c 1, d 2")
				f.stop("c")
				f.expect(5*time.Second, "d 3")
				f.start("e")
				f.expect(10*time.Second, "d 2, e 1")
				f.end()
			})
		})
	}
}

func TestClaimsOfTheUndeservingAreIgnored(t *testing.T) {
	for name, claimant := range map[string]string{
		"not ours":       "somebody",
		"leads as much":  "b_uid_inc1-" + strings.Repeat("b", 26),
		"is the holder":  "",
		"another letter": strings.Repeat("x", 300),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t, 1)
				f.start("a")
				f.expect(2*time.Second, "a 1")
				lease, err := f.servers[0].get()
				if err != nil {
					t.Fatal(err)
				}
				if claimant == "" {
					claimant = *lease.Spec.HolderIdentity
				}
				lease.Annotations = map[string]string{claimAnnotation: claimant, "team": "x"}
				if _, err := f.servers[0].update("somebody", lease); err != nil {
					t.Fatal(err)
				}
				f.expect(time.Second, "a 1")
				if lease, err = f.servers[0].get(); err != nil || lease.Annotations["team"] != "x" {
					t.Errorf("got the annotations %v (%v), want those of others kept", lease.Annotations, err)
				}
				f.end()
			})
		})
	}
}
