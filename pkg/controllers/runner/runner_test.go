// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package runner_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	"github.com/incumbent-io/incumbent/pkg/clients"
	"github.com/incumbent-io/incumbent/pkg/controllers"
	"github.com/incumbent-io/incumbent/pkg/controllers/runner"
)

// scene is a runner with controllers made of functions, and the log of what happened
// to them. Times in the log are seconds since the scene began, in the bubble's time.
type scene struct {
	t        *testing.T
	began    time.Time
	config   runner.Config
	registry *controllers.Registry
	refuse   map[string]func() // by controller: what its clients call
	runner   *runner.Runner
	stop     context.CancelFunc
	live     sync.WaitGroup
	mu       sync.Mutex
	entries  []string
}

// act is a controller of a scene.
type act struct {
	name             string
	needs            []string
	restartCompleted bool
	init             func(n int) error // n counts the calls from 1
	access           []controllers.Access
	run              func(ctx context.Context, n int) error // nil: until ctx ends
	ready            time.Duration                          // > 0: ready that long after the start
	health           error
}

func (s *scene) log(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.entries = append(s.entries, fmt.Sprintf("%g ", time.Since(s.began).Round(time.Millisecond).Seconds())+fmt.Sprintf(format, args...))
}

func newScene(t *testing.T, acts ...act) *scene {
	t.Helper()
	return newSceneWith(t, runner.Config{}, acts...)
}

func newSceneWith(t *testing.T, config runner.Config, acts ...act) *scene {
	t.Helper()
	s := &scene{t: t, began: time.Now(), config: config}
	pool, err := clients.NewPool(clients.PoolConfig{REST: &rest.Config{Host: "https://127.0.0.1:1"}})
	if err != nil {
		t.Fatal(err)
	}
	var registrations []controllers.Registration
	for _, a := range acts {
		inits, runs := 0, 0
		registrations = append(registrations, controllers.Descriptor[controllers.NoOptions]{
			Name: a.name, Summary: "An act.", Needs: a.needs, RestartCompleted: a.restartCompleted,
			Access: func(controllers.NoOptions) []controllers.Access { return a.access },
			Init: func(context.Context, *controllers.Context, controllers.NoOptions) (controllers.Controller, error) {
				inits++
				if a.init != nil {
					if err := a.init(inits); err != nil {
						s.log("%s init: %v", a.name, err)
						return nil, err
					}
				}
				c := &controller{scene: s, act: a, runs: &runs}
				if a.ready > 0 {
					c.ready = make(chan struct{})
					return &readier{c}, nil
				}
				return c, nil
			},
		})
	}
	registry := controllers.NewRegistry(registrations...)
	order, err := registry.StartOrder()
	if err != nil {
		t.Fatal(err)
	}
	s.refuse = map[string]func(){}
	s.config.NewRun = func(name string, refused func()) (runner.RunParts, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.refuse[name] = refused
		return runner.RunParts{
			Context: &controllers.Context{Name: name, Informers: pool.View(name, nil)},
			Fence:   &fence{scene: s, name: name},
		}, nil
	}
	for _, name := range order {
		s.config.Controllers = append(s.config.Controllers, s.desire(registry, name))
	}
	s.registry = registry
	s.runner = runner.New(s.config)
	ctx, stop := context.WithCancel(klog.NewContext(t.Context(), klog.Logger{}))
	s.stop = stop
	s.live.Go(func() { s.runner.Live(ctx) })
	return s
}

// desire returns a controller of the scene, enabled, with options of its own.
func (s *scene) desire(registry *controllers.Registry, name string) runner.Desired {
	registration, _ := registry.Lookup(name)
	return runner.Desired{Controller: registration.Configure(), Enabled: true, Reason: "enabled by default"}
}

// apply changes what is wanted of one controller; the others stay as they are.
func (s *scene) apply(name string, edit func(*runner.Desired)) error {
	for i := range s.config.Controllers {
		if s.config.Controllers[i].Controller.Name == name {
			edit(&s.config.Controllers[i])
		}
	}
	return s.runner.Apply(s.t.Context(), s.config.Controllers)
}

// refused is what a client of the controller reports when the API server refuses.
func (s *scene) refused(name string) {
	s.mu.Lock()
	call := s.refuse[name]
	s.mu.Unlock()
	call()
}

func disable(d *runner.Desired) { d.Enabled, d.Reason = false, "disabled by --controllers" }
func enable(d *runner.Desired)  { d.Enabled, d.Reason = true, "enabled by --controllers" }

// lead starts a term and returns the functions that end it.
func (s *scene) lead() (drain, lose func()) {
	ctx, cancel := context.WithCancelCause(s.t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.runner.Run(ctx)
		s.log("term ended")
	}()
	return func() { cancel(errors.New("drain")); <-ended },
		func() { cancel(lost{}); <-ended }
}

type lost struct{}

func (lost) Error() string   { return "the lease was lost" }
func (lost) NotLeader() bool { return true }

// endSorted is end for scenes in which the order of what happens at one time is open.
func (s *scene) endSorted(want ...string) {
	s.t.Helper()
	s.stop()
	s.live.Wait()
	slices.Sort(s.entries)
	slices.Sort(want)
	s.end(want...)
}

// end stops the scene and compares its log.
func (s *scene) end(want ...string) {
	s.t.Helper()
	s.stop()
	s.live.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if diff := cmp.Diff(want, s.entries); diff != "" {
		s.t.Errorf("log (-want +got):\n%s", diff)
	}
}

func (s *scene) states() string {
	var states []string
	for _, status := range s.runner.Snapshot() {
		states = append(states, status.Name+" "+string(status.State))
	}
	return strings.Join(states, ", ")
}

type controller struct {
	scene *scene
	act   act
	runs  *int
	ready chan struct{}
}

func (c *controller) Run(ctx context.Context) error {
	*c.runs++
	c.scene.log("%s runs", c.act.name)
	if c.ready != nil {
		time.AfterFunc(c.act.ready, func() { close(c.ready) })
	}
	if c.act.run != nil {
		return c.act.run(ctx, *c.runs)
	}
	<-ctx.Done()
	c.scene.log("%s returns", c.act.name)
	return nil
}

func (c *controller) CheckHealth(context.Context) error { return c.act.health }

type readier struct{ *controller }

func (r *readier) Ready() <-chan struct{} { return r.ready }

// fence checks the order of calls that a run's fence must see.
type fence struct {
	scene        *scene
	name         string
	opened, shut bool
}

func (f *fence) Open(context.Context) error {
	if f.opened || f.shut {
		f.scene.t.Errorf("%s: the fence of one run was opened again (opened %v, shut %v)", f.name, f.opened, f.shut)
	}
	f.opened = true
	return nil
}

func (f *fence) Shut() { f.shut = true }

func TestNeedsStartFirstAndStopLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slowStop := func(s **scene, name string) func(context.Context, int) error {
			return func(ctx context.Context, _ int) error {
				<-ctx.Done()
				time.Sleep(time.Second) // bubble time: what the controller takes to stop
				(*s).log("%s returns", name)
				return nil
			}
		}
		var s *scene
		acts := []act{
			{name: "web", needs: []string{"store"}, run: slowStop(&s, "web")},
			{name: "store", ready: 2 * time.Second},
		}
		s = newScene(t, acts...)
		drain, _ := s.lead()
		time.Sleep(10 * time.Second)
		drain()
		s.end(
			"0 store runs",
			"2 web runs",
			"11 web returns",
			"11 store returns",
			"11 term ended",
		)
	})
}

func TestLostLeaseStopsAllAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s *scene
		s = newScene(t,
			act{name: "store"},
			act{name: "web", needs: []string{"store"}, run: func(ctx context.Context, _ int) error {
				<-ctx.Done()
				if !controllers.IsNotLeader(context.Cause(ctx)) {
					s.t.Errorf("cause: got %v, want the loss", context.Cause(ctx))
				}
				time.Sleep(3 * time.Second)
				s.log("web returns")
				return nil
			}},
		)
		_, lose := s.lead()
		time.Sleep(time.Second)
		lose()
		s.endSorted("0 store runs", "0 web runs", "1 store returns", "4 web returns", "4 term ended")
	})
}

func TestFailuresRestartOneControllerAlone(t *testing.T) {
	for name, fail := range map[string]func() error{
		"error":   func() error { return errors.New("broken") },
		"panic":   func() error { panic("broken") },
		"Goexit":  func() error { runtime.Goexit(); return nil },
		"timeout": func() error { return context.DeadlineExceeded },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScene(t,
					act{name: "bad", run: func(ctx context.Context, n int) error {
						if n <= 2 {
							time.Sleep(time.Second)
							return fail()
						}
						<-ctx.Done()
						return nil
					}},
					act{name: "good"},
				)
				drain, _ := s.lead()
				synctest.Wait()
				if got, want := s.states(), "bad running, good running"; got != want {
					t.Errorf("at the start: got %s, want %s", got, want)
				}
				time.Sleep(1100 * time.Millisecond)
				if got, want := s.states(), "bad backoff, good running"; got != want {
					t.Errorf("after the failure: got %s, want %s", got, want)
				}
				time.Sleep(10 * time.Second)
				if got, want := s.states(), "bad running, good running"; got != want {
					t.Errorf("after the backoff: got %s, want %s", got, want)
				}
				if got := s.runner.Snapshot()[0].Restarts; got[runner.CauseError]+got[runner.CausePanic] != 2 {
					t.Errorf("restarts: got %v, want 2", got)
				}
				drain()
				s.stop()
				s.live.Wait()
				runs := 0
				for _, entry := range s.entries {
					if strings.HasSuffix(entry, "good runs") {
						runs++
					}
				}
				if runs != 1 {
					t.Errorf("the healthy controller ran %d times, want once:\n%s", runs, strings.Join(s.entries, "\n"))
				}
			})
		})
	}
}

func TestCompletedRestsUntilTheNextTerm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t,
			act{name: "once", run: func(context.Context, int) error { return nil }},
			act{name: "again", restartCompleted: true, run: func(ctx context.Context, n int) error {
				if n == 1 {
					return nil
				}
				<-ctx.Done()
				return nil
			}},
		)
		_, lose := s.lead()
		time.Sleep(5 * time.Second)
		if got, want := s.states(), "again running, once completed"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		lose()
		synctest.Wait()
		if got, want := s.states(), "again warm, once warm"; got != want {
			t.Errorf("between terms: got %s, want %s", got, want)
		}
		drain, _ := s.lead()
		time.Sleep(time.Second)
		drain()
		s.stop()
		s.live.Wait()
		var onceRuns []string
		for _, entry := range s.entries {
			if strings.HasSuffix(entry, "once runs") {
				onceRuns = append(onceRuns, entry)
			}
		}
		if diff := cmp.Diff([]string{"0 once runs", "5 once runs"}, onceRuns); diff != "" {
			t.Errorf("runs (-want +got):\n%s", diff)
		}
	})
}

func TestSkippedIsNotTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t,
			act{name: "idle", init: func(int) error { return controllers.Skip("no Pod") }},
			act{name: "web", needs: []string{"idle"}},
		)
		for range 2 {
			drain, _ := s.lead()
			time.Sleep(time.Second)
			drain()
		}
		if got := s.runner.Snapshot()[0]; got.State != runner.Skipped || got.Reason != "no Pod" {
			t.Errorf("got %+v, want skipped with its reason", got)
		}
		s.end("0 idle init: skipped: no Pod",
			"0 web runs", "1 web returns", "1 term ended",
			"1 web runs", "2 web returns", "2 term ended")
	})
}

func TestInitFailsThenSucceeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, act{name: "late", init: func(n int) error {
			if n == 1 {
				return errors.New("not yet")
			}
			return nil
		}})
		synctest.Wait()
		if got, want := s.states(), "late backoff"; got != want {
			t.Errorf("after the failure: got %s, want %s", got, want)
		}
		time.Sleep(2 * time.Second)
		if got, want := s.states(), "late warm"; got != want {
			t.Errorf("on a standby: got %s, want %s", got, want)
		}
		drain, _ := s.lead()
		synctest.Wait()
		drain()
		s.end("0 late init: not yet", "2 late runs", "2 late returns", "2 term ended")
	})
}

func TestStragglersAreNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		s := newScene(t,
			act{name: "deaf", run: func(context.Context, int) error { <-release; return nil }},
			act{name: "good"},
		)
		drain, _ := s.lead()
		synctest.Wait()
		go drain()
		synctest.Wait()
		if diff := cmp.Diff([]string{"deaf"}, s.runner.Stragglers()); diff != "" {
			t.Errorf("stragglers (-want +got):\n%s", diff)
		}
		if got, want := s.states(), "deaf draining, good stopped"; !strings.HasPrefix(got, "deaf draining") {
			t.Errorf("got %s, want %s", got, want)
		}
		close(release)
		synctest.Wait()
		if got := s.runner.Stragglers(); len(got) > 0 {
			t.Errorf("after it returned: got stragglers %q, want none", got)
		}
		s.stop()
		s.live.Wait()
	})
}

func TestTermLastsAlthoughNothingIsLeftToRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t,
			act{name: "idle", init: func(int) error { return controllers.Skip("no Pod") }},
			act{name: "once", needs: []string{"idle"}, run: func(context.Context, int) error { return nil }},
		)
		drain, _ := s.lead()
		time.Sleep(time.Minute)
		drain()
		s.end("0 idle init: skipped: no Pod", "0 once runs", "60 term ended")
	})
}

func TestRunAfterLiveEndedRunsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, act{name: "web"})
		s.stop()
		s.live.Wait()
		drain, _ := s.lead()
		synctest.Wait()
		drain()
		s.end("0 term ended")
	})
}

func TestStopWhileLeadingWaitsForTheDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, act{name: "web"})
		drain, _ := s.lead()
		synctest.Wait()
		s.stop() // the process is asked to stop; the elector ends the term a little later
		time.Sleep(time.Second)
		if got, want := s.states(), "web running"; got != want {
			t.Errorf("before the term ended: got %s, want %s", got, want)
		}
		drain()
		s.end("0 web runs", "1 web returns", "1 term ended")
	})
}

func TestCheckHealthAsksOnlyWhatRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, act{name: "web", health: errors.New("queue is stuck")})
		synctest.Wait()
		if note, err := s.runner.CheckHealth(t.Context(), "web"); err != nil || note != "warm" {
			t.Errorf("on a standby: got %q, %v; want warm", note, err)
		}
		drain, _ := s.lead()
		synctest.Wait()
		if _, err := s.runner.CheckHealth(t.Context(), "web"); err == nil || err.Error() != "queue is stuck" {
			t.Errorf("while it runs: got %v, want what the controller says", err)
		}
		if _, err := s.runner.CheckHealth(t.Context(), "nosuch"); err == nil {
			t.Error("an unknown controller is healthy")
		}
		drain()
		s.stop()
		s.live.Wait()
	})
}
