// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package controllertest_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
	clientscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/klog/v2"

	"github.com/incumbent-io/incumbent/pkg/controllers"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var clientScheme = clientscheme.Scheme

func loggerOf(ctx context.Context) klog.Logger { return klog.FromContext(ctx) }

// runFunc is a controller that is one function.
type runFunc func(ctx context.Context) error

func (f runFunc) Run(ctx context.Context) error { return f(ctx) }

// idle is the Init of a controller that does nothing.
func idle(context.Context, *controllers.Context, controllers.NoOptions) (controllers.Controller, error) {
	return runFunc(func(ctx context.Context) error { <-ctx.Done(); return nil }), nil
}

// record is a test that fails for itself only.
type record struct {
	testing.TB

	mu      sync.Mutex
	errors  []string
	cleanup []func()
}

func (r *record) Errorf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.errors = append(r.errors, fmt.Sprintf(format, args...))
}

func (r *record) Cleanup(f func()) { r.cleanup = append(r.cleanup, f) }

func (r *record) end() {
	for _, f := range r.cleanup {
		f()
	}
}

func (r *record) has(text string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.errors {
		if strings.Contains(e, text) {
			return true
		}
	}
	return false
}
