// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

// Command host is the manager that the benchmarks measure: one controller that watches
// all ConfigMaps, as many that reconcile them as LOOKERS says, and as many that do
// nothing as TRIVIAL says. At SIGUSR1 it collects
// garbage twice and prints what is in use.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/cache"

	"github.com/incumbent-io/incumbent/pkg/controllers"
	"github.com/incumbent-io/incumbent/pkg/manager"
)

var configMaps = schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}

type run func(ctx context.Context) error

func (r run) Run(ctx context.Context) error { return r(ctx) }

// tell prints what happened and when, in nanoseconds since 1970.
func tell(what string) { fmt.Printf("EVENT %s %d\n", what, time.Now().UnixNano()) }

func main() {
	go measure()
	list := []controllers.Registration{watcher()}
	n, _ := strconv.Atoi(os.Getenv("TRIVIAL"))
	var running atomic.Int64
	for i := range n {
		list = append(list, trivial(fmt.Sprintf("trivial-%d", i), func() {
			if running.Add(1) == int64(n) {
				tell("all-running")
			}
		}))
	}
	lookers, _ := strconv.Atoi(os.Getenv("LOOKERS"))
	for i := range lookers {
		list = append(list, looker(fmt.Sprintf("looker-%d", i)))
	}
	os.Exit(manager.Main("host", controllers.NewRegistry(list...)))
}

func measure() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1)
	for range signals {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		fmt.Printf("MEMORY heap=%d stack=%d goroutines=%d\n", m.HeapInuse, m.StackInuse, runtime.NumGoroutine())
	}
}

func trivial(name string, runs func()) controllers.Registration {
	return controllers.Descriptor[controllers.NoOptions]{
		Name: name, Summary: "Does nothing.",
		Init: func(context.Context, *controllers.Context, controllers.NoOptions) (controllers.Controller, error) {
			return run(func(ctx context.Context) error {
				runs()
				<-ctx.Done()
				return nil
			}), nil
		},
	}
}

// watcher tells when it is told of the first object, as a reconciler would start then.
func watcher() controllers.Registration {
	return controllers.Descriptor[controllers.NoOptions]{
		Name: "watcher", Summary: "Watches all ConfigMaps.",
		Access: func(controllers.NoOptions) []controllers.Access {
			return []controllers.Access{{Resource: configMaps, Verbs: []string{"list", "watch"}}}
		},
		Init: func(_ context.Context, c *controllers.Context, _ controllers.NoOptions) (controllers.Controller, error) {
			var first sync.Once
			_, err := c.Informers.Typed().Core().V1().ConfigMaps().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
				AddFunc: func(any) { first.Do(func() { tell("first-reconcile") }) },
			})
			return run(func(ctx context.Context) error {
				<-ctx.Done()
				return nil
			}), err
		},
	}
}
