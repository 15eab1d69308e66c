// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package runner_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/incumbent-io/incumbent/pkg/controllers"
	"github.com/incumbent-io/incumbent/pkg/controllers/runner"
)

func (s *scene) expect(when, want string) {
	s.t.Helper()
	synctest.Wait()
	if got := s.states(); got != want {
		s.t.Errorf("%s: got %s, want %s", when, got, want)
	}
}

func TestTogglingTouchesNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, act{name: "bar"}, act{name: "foo"})
		drain, _ := s.lead()
		time.Sleep(time.Second)
		if err := s.apply("foo", disable); err != nil {
			t.Error(err)
		}
		s.expect("after it was disabled", "bar running, foo disabled")
		time.Sleep(time.Second)
		if err := s.apply("foo", enable); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Second)
		s.expect("after it was enabled", "bar running, foo running")
		drain()
		s.endSorted("0 bar runs", "0 foo runs", "1 foo returns", "2 foo runs", "3 bar returns", "3 foo returns", "3 term ended")
	})
}

func TestDisabledControllerStaysSoInLaterTerms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, act{name: "bar"}, act{name: "foo"})
		if err := s.apply("foo", disable); err != nil {
			t.Error(err)
		}
		s.expect("on a standby", "bar warm, foo disabled")
		drain, _ := s.lead()
		time.Sleep(time.Second)
		s.expect("leading", "bar running, foo disabled")
		drain()
		s.end("0 bar runs", "1 bar returns", "1 term ended")
	})
}

func TestChangedOptionsRebuildOneController(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inits := 0
		s := newScene(t, act{name: "bar"}, act{name: "foo", init: func(n int) error { inits = n; return nil }})
		drain, _ := s.lead()
		time.Sleep(time.Second)
		if err := s.apply("foo", func(d *runner.Desired) { *d = s.desire(s.registry, "foo") }); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Second)
		s.expect("after the change", "bar running, foo running")
		if inits != 2 {
			t.Errorf("Init of the changed controller: got %d calls, want 2", inits)
		}
		drain()
		s.endSorted("0 bar runs", "0 foo runs", "1 foo returns", "1 foo runs", "2 bar returns", "2 foo returns", "2 term ended")
	})
}

// TestFailedBuildChangesNothing changes two controllers at once, of which one cannot
// be built: both go on as they were.
func TestFailedBuildChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, act{name: "bar"}, act{name: "foo", init: func(n int) error {
			if n == 2 {
				return errors.New("no such zone")
			}
			return nil
		}})
		drain, _ := s.lead()
		time.Sleep(time.Second)
		before := append([]runner.Desired(nil), s.config.Controllers...)
		for i, d := range s.config.Controllers {
			s.config.Controllers[i] = s.desire(s.registry, d.Controller.Name)
		}
		err := s.runner.Apply(t.Context(), s.config.Controllers)
		if err == nil || !strings.Contains(err.Error(), `controller "foo" cannot be built: no such zone`) {
			t.Errorf("got %v, want the reason", err)
		}
		time.Sleep(time.Second)
		s.config.Controllers = before
		if err := s.runner.Apply(t.Context(), before); err != nil {
			t.Errorf("applying what runs: %v", err)
		}
		drain()
		s.endSorted("0 bar runs", "0 foo runs", "1 foo init: no such zone", "2 bar returns", "2 foo returns", "2 term ended")
	})
}

func TestDisablingTogetherStopsInReverseOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s *scene
		s = newScene(t, act{name: "store", ready: 500 * time.Millisecond}, act{name: "web", needs: []string{"store"}, run: func(ctx context.Context, _ int) error {
			<-ctx.Done()
			time.Sleep(time.Second)
			s.log("web returns")
			return nil
		}})
		drain, _ := s.lead()
		time.Sleep(time.Second)
		for i := range s.config.Controllers {
			disable(&s.config.Controllers[i])
		}
		if err := s.runner.Apply(t.Context(), s.config.Controllers); err != nil {
			t.Error(err)
		}
		time.Sleep(3 * time.Second)
		for i := range s.config.Controllers {
			enable(&s.config.Controllers[i])
		}
		if err := s.runner.Apply(t.Context(), s.config.Controllers); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Second)
		drain()
		s.end("0 store runs", "0.5 web runs", "2 web returns", "2 store returns",
			"4 store runs", "4.5 web runs", "6 web returns", "6 store returns", "6 term ended")
	})
}

func TestControllerThatDoesNotStopIsStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		s := newSceneWith(t, runner.Config{StopTimeout: 5 * time.Second},
			act{name: "deaf", run: func(context.Context, int) error { <-release; return nil }},
			act{name: "good"},
		)
		drain, _ := s.lead()
		time.Sleep(time.Second)
		if err := s.apply("deaf", disable); err != nil {
			t.Error(err)
		}
		time.Sleep(4 * time.Second)
		s.expect("within its time", "deaf draining, good running")
		time.Sleep(2 * time.Second)
		s.expect("after its time", "deaf stuck, good running")
		if _, err := s.runner.CheckHealth(t.Context(), "deaf"); err == nil {
			t.Error("a stuck controller is healthy")
		}
		if got := s.runner.Stuck(10 * time.Second); len(got) > 0 {
			t.Errorf("stuck for 10 s: got %q, want none yet", got)
		}
		time.Sleep(10 * time.Second)
		if diff := cmp.Diff([]string{"deaf"}, s.runner.Stuck(10*time.Second)); diff != "" {
			t.Errorf("stuck for 10 s (-want +got):\n%s", diff)
		}
		close(release)
		s.expect("after it returned", "deaf disabled, good running")
		drain()
		s.endSorted("0 deaf runs", "0 good runs", "17 good returns", "17 term ended")
	})
}

func TestColdStandbyBuildsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s *scene
		s = newSceneWith(t, runner.Config{Cold: true}, act{name: "foo", init: func(int) error { s.log("foo init"); return nil }})
		time.Sleep(time.Second)
		s.expect("before leading", "foo stopped")
		_, lose := s.lead()
		time.Sleep(time.Second)
		lose()
		s.expect("after leading", "foo stopped")
		s.end("1 foo init", "1 foo runs", "2 foo returns", "2 term ended")
	})
}

var (
	widgets = schema.GroupVersionResource{Group: "example.com", Version: "v1", Resource: "widgets"}
	gadgets = schema.GroupVersionResource{Group: "example.com", Version: "v1", Resource: "gadgets"}
)

// cluster is what the access of a scene is checked against.
type cluster struct {
	mu     sync.Mutex
	served map[schema.GroupVersionResource]bool
	err    error
	checks int
}

func (c *cluster) set(gvr schema.GroupVersionResource, served bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.served[gvr] = served
}

func (c *cluster) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
}

func (c *cluster) asked() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.checks
}

func (c *cluster) check(_ context.Context, access []controllers.Access) (runner.Verdict, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.checks++
	v := runner.Verdict{Served: map[schema.GroupVersionResource]bool{}}
	for _, a := range access {
		v.Served[a.Resource] = c.served[a.Resource]
		if !c.served[a.Resource] {
			v.Recheck = func(ctx context.Context) (runner.Verdict, error) { return c.check(ctx, access) }
			if !a.Optional {
				v.Missing = a.Resource.Resource + " is not served"
			}
		}
	}
	return v, c.err
}

func TestMissingAccessBlocksOneController(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{served: map[schema.GroupVersionResource]bool{}}
		s := newSceneWith(t, runner.Config{Check: c.check},
			act{name: "foo", access: []controllers.Access{{Resource: widgets}}}, act{name: "good"})
		s.expect("on a standby", "foo blocked, good warm")
		drain, _ := s.lead()
		time.Sleep(time.Minute)
		s.expect("leading", "foo blocked, good running")
		if got := c.asked(); got < 12 || got > 17 {
			t.Errorf("checks in a minute: got %d, want one every 4 s", got)
		}
		c.set(widgets, true)
		time.Sleep(5 * time.Second)
		s.expect("after it appeared", "foo running, good running")
		before := c.asked()
		time.Sleep(time.Hour)
		if got := c.asked(); got != before {
			t.Errorf("checks while nothing is missing: got %d more, want none", got-before)
		}
		c.set(widgets, false)
		s.refused("foo")
		time.Sleep(2 * time.Second)
		s.expect("after it went", "foo blocked, good running")
		c.set(widgets, true)
		time.Sleep(5 * time.Second)
		s.expect("after it came back", "foo running, good running")
		drain()
		s.stop()
		s.live.Wait()
	})
}

// TestRefusalAloneStopsNothing has the API server refuse something although nothing
// is missing, as an admission webhook does.
func TestRefusalAloneStopsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{served: map[schema.GroupVersionResource]bool{widgets: true}}
		s := newSceneWith(t, runner.Config{Check: c.check}, act{name: "foo", access: []controllers.Access{{Resource: widgets}}})
		drain, _ := s.lead()
		for range 600 {
			time.Sleep(100 * time.Millisecond)
			s.refused("foo")
		}
		if got := c.asked(); got < 10 || got > 17 {
			t.Errorf("checks in a minute of refusals: got %d, want one every 4 s", got)
		}
		drain()
		s.end("0 foo runs", "60 foo returns", "60 term ended")
	})
}

func TestUncheckableAccessIsAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{served: map[schema.GroupVersionResource]bool{widgets: true}, err: errors.New("connection refused")}
		s := newSceneWith(t, runner.Config{Check: c.check}, act{name: "foo", access: []controllers.Access{{Resource: widgets}}})
		s.expect("while the API server is away", "foo building")
		c.fail(nil)
		time.Sleep(2 * time.Second)
		s.expect("once it is back", "foo warm")
		drain, _ := s.lead()
		time.Sleep(time.Second)
		c.fail(errors.New("connection refused"))
		s.refused("foo")
		time.Sleep(time.Minute)
		s.expect("what is not known stops nothing", "foo running")
		drain()
		s.end("2 foo runs", "63 foo returns", "63 term ended")
	})
}

func TestOptionalAccessRebuildsWhenItChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{served: map[schema.GroupVersionResource]bool{widgets: true}}
		inits := 0
		s := newSceneWith(t, runner.Config{Check: c.check}, act{
			name: "foo", init: func(n int) error { inits = n; return nil },
			access: []controllers.Access{{Resource: widgets}, {Resource: gadgets, Optional: true}},
		})
		drain, _ := s.lead()
		time.Sleep(time.Second)
		c.set(gadgets, true)
		time.Sleep(5 * time.Second)
		s.expect("after the optional API appeared", "foo running")
		if inits != 2 {
			t.Errorf("Init: got %d calls, want 2", inits)
		}
		c.set(gadgets, false)
		s.refused("foo")
		time.Sleep(5 * time.Second)
		s.expect("after it went", "foo running")
		if inits != 3 {
			t.Errorf("Init: got %d calls, want 3", inits)
		}
		drain()
		s.stop()
		s.live.Wait()
	})
}
