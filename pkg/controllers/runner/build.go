// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package runner

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/cache"

	"github.com/incumbent-io/incumbent/pkg/controllers"
)

// build is one Controller value that has not run yet.
type build struct {
	RunParts
	controller controllers.Controller
	discard    context.CancelFunc // ends Init's context

	mu   sync.Mutex
	warm []cache.InformerSynced // of the author's own caches
}

// init calls Init. The build that it returns holds references to the caches that
// Init asked for.
func (u *unit) init(ctx context.Context, configured *controllers.Configured, served func(schema.GroupVersionResource) bool) (_ *build, err error) {
	parts, err := u.config.NewRun(u.name, u.refused)
	if err != nil {
		return nil, err
	}
	ctx, discard := context.WithCancel(context.WithoutCancel(ctx))
	b := &build{RunParts: parts, discard: discard}
	parts.Context.Served = served
	parts.Context.WarmWhen = b.warmWhen
	defer func() {
		if reason := recover(); reason != nil {
			err = newPanicError(reason)
		}
		if err != nil {
			b.drop()
			b.Context.Informers.Release()
		}
	}()
	if b.controller, err = configured.Init(ctx, parts.Context); err != nil {
		return nil, err
	}
	return b, nil
}

func (b *build) warmWhen(synced ...cache.InformerSynced) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.warm = append(b.warm, synced...)
}

// unsynced tells what the build waits for: a channel that closes when one more of
// the shared caches has synced, or, without one, whether the author's own have.
func (b *build) unsynced() (next <-chan struct{}, own bool) {
	if next := b.Context.Informers.Unsynced(); next != nil {
		return next, false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, synced := range b.warm {
		if !synced() {
			return nil, true
		}
	}
	return nil, false
}

// drop ends a build that will not run, or has run. Its references to caches stay.
func (b *build) drop() {
	b.Fence.Shut()
	b.discard()
}

// panicError is a panic of Init or Run.
type panicError struct {
	reason any
	stack  string
}

func newPanicError(reason any) *panicError {
	return &panicError{reason: reason, stack: string(debug.Stack())}
}

func (p *panicError) Error() string { return fmt.Sprintf("panic: %v", p.reason) }

// faultError is a failure of the controller's code on a shared goroutine.
type faultError struct{ error }

func (f faultError) Unwrap() error { return f.error }

func causeOf(err error) Cause {
	var fault faultError
	var panicked *panicError
	switch {
	case errors.As(err, &fault):
		return CauseHandler
	case errors.As(err, &panicked):
		return CausePanic
	}
	return CauseError
}

// firstLine keeps stacks out of states.
func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}
