// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package benchmark

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/incumbent-io/incumbent/test/cluster"
)

// stormState is what the storm's manager prints of itself.
type stormState struct {
	Heap, Goroutines, Events, Reconciles, Depth, Longest int
	Seen                                                 map[string]string
}

func stormStateOf(t *testing.T, p *cluster.Process) (state stormState) {
	t.Helper()
	before := strings.Count(p.Log(), "STORM {")
	if err := p.Process.Signal(syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	cluster.Eventually(t, 20*time.Second, "the state of the manager", func() error {
		log := p.Log()
		if strings.Count(log, "STORM {") == before {
			return errors.New("it says nothing")
		}
		line, _, whole := strings.Cut(log[strings.LastIndex(log, "STORM {")+len("STORM "):], "\n")
		if !whole {
			return errors.New("the line is not whole")
		}
		return json.Unmarshal([]byte(line), &state)
	})
	return state
}

// TestEventStorm has 100,000 updates of 1,000 ConfigMaps, as fast as 60 s ask for or as
// the API server takes them, on a controller that reconciles 800 a second. STORM changes
// the number of updates.
func TestEventStorm(t *testing.T) {
	const namespace, objects, last, takes = "storm", 1000, time.Minute, 5 * time.Millisecond
	updates := number("STORM", 100000)
	shared.Namespace(t, namespace)
	config := rest.CopyConfig(shared.REST)
	config.QPS, config.ContentType = -1, runtime.ContentTypeProtobuf
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string, n int) error {
		object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"n": strconv.Itoa(n)}}
		if n == 0 {
			_, err := client.CoreV1().ConfigMaps(namespace).Create(t.Context(), object, metav1.CreateOptions{})
			return err
		}
		_, err := client.CoreV1().ConfigMaps(namespace).Update(t.Context(), object, metav1.UpdateOptions{})
		return err
	}
	// Each writer has objects of its own, so that it knows what was written last.
	const writers = 20
	var written [writers]map[string]int
	each := func(do func(w int, own map[string]int) error) {
		t.Helper()
		var all sync.WaitGroup
		for w := range written {
			all.Go(func() {
				if err := do(w, written[w]); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
	}
	each(func(w int, _ map[string]int) error {
		written[w] = map[string]int{}
		for i := w; i < objects; i += writers {
			written[w][fmt.Sprint("o-", i)] = 0
			if err := write(fmt.Sprint("o-", i), 0); err != nil {
				return err
			}
		}
		return nil
	})
	p := shared.Launch(t, "storm", []string{"STORM_NAMESPACE=" + namespace, "STORM_TAKES=" + takes.String()},
		"--kubeconfig="+shared.Kubeconfig, "--leader-elect-resource-name=storm")
	p.AwaitController(t, 20*time.Second, "seer", "running")
	// settled waits until the last state of every object was reconciled.
	settled := func() (state stormState, took time.Duration) {
		t.Helper()
		want := map[string]string{"kube-root-ca.crt": ""}
		for _, own := range written {
			for name, n := range own {
				want[name] = strconv.Itoa(n)
			}
		}
		took = cluster.Eventually(t, 30*time.Second, "no key was lost", func() error {
			state = stormStateOf(t, p)
			if diff := cmp.Diff(want, state.Seen); diff != "" || state.Depth > 0 {
				return fmt.Errorf("%d keys are queued; (-want +got):\n%s", state.Depth, diff[:min(len(diff), 2000)])
			}
			return nil
		})
		return state, took
	}
	storm := func(n int, pace time.Duration) time.Duration {
		t.Helper()
		began := time.Now()
		each(func(w int, own map[string]int) error {
			random := rand.New(rand.NewPCG(uint64(w), 0))
			for i := range n / writers {
				name := fmt.Sprint("o-", random.IntN(objects/writers)*writers+w)
				own[name]++
				if err := write(name, own[name]); err != nil {
					return err
				}
				time.Sleep(time.Until(began.Add(pace * time.Duration(i+1) / time.Duration(n/writers))))
			}
			return nil
		})
		return time.Since(began)
	}
	settled()
	storm(updates/10, 0)
	before, _ := settled()
	_, rssBefore, _ := residentOf(t, p.Process.Pid)
	took := storm(updates, last)
	after, rest := settled()
	peak, rssAfter, _ := residentOf(t, p.Process.Pid)
	t.Logf("%d updates of %d objects in %v (%.0f a second), seen as %d events: %d reconciles, the queue was at most %d keys long, and %v after the last update every last state was reconciled",
		updates, objects, took.Round(100*time.Millisecond), float64(updates)/took.Seconds(), after.Events-before.Events, after.Reconciles-before.Reconciles, after.Longest, rest.Round(10*time.Millisecond))
	t.Logf("heap %d KiB before, %d KiB after; RSS %.1f MiB before, %.1f MiB after, at most %.1f MiB; goroutines %d before, %d after",
		before.Heap>>10, after.Heap>>10, rssBefore, rssAfter, peak, before.Goroutines, after.Goroutines)
	if after.Longest > objects+1 {
		t.Errorf("the queue was %d keys long, want at most one for each object", after.Longest)
	}
	if grown := after.Heap - before.Heap; grown > 1<<20 {
		t.Errorf("the heap has grown by %d KiB, want at most 1 MiB", grown>>10)
	}
	if after.Goroutines > before.Goroutines+5 {
		t.Errorf("%d goroutines, want %d as before", after.Goroutines, before.Goroutines)
	}
	p.Terminate(t)
}
