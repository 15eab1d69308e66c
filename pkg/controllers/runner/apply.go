// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package runner

import (
	"context"
	"errors"
	"fmt"

	"github.com/incumbent-io/incumbent/pkg/controllers"
)

// Desired says what is wanted of one controller.
type Desired struct {
	// Controller has the options to run with. A value other than the one before
	// means changed options: the controller is drained and built anew.
	Controller *controllers.Configured
	// Enabled is the gate, and Reason why it is open or closed.
	Enabled bool
	Reason  string
}

// want is what Apply last said about one unit.
type want struct {
	controller *controllers.Configured
	enabled    bool
	reason     string
	next       *build   // built ahead by Apply, or nil
	verdict    *Verdict // found out ahead by Apply, or nil
	// after are closed when those have stopped that must stop before this one.
	after []<-chan struct{}
	// adopted is closed when nothing runs any more of what was wanted before, and
	// overtaken are those of the wants before that nobody adopted.
	adopted   chan struct{}
	overtaken []chan struct{}
}

func newWant(d Desired) *want {
	return &want{controller: d.Controller, enabled: d.Enabled, reason: d.Reason, adopted: make(chan struct{})}
}

// Change is a change of what runs, prepared and not yet made. Exactly one of its
// methods must be called, once.
type Change struct {
	runner  *Runner
	changed []*unit // in order of start
	wants   map[*unit]*want
}

// Apply makes the desired controllers the ones that run: all of those given to New,
// in the same order. It builds what is new or changed first; if that fails,
// everything stays as it was and the error says why. Otherwise it returns at once,
// and what changed is drained, those that need others first, and then started.
// Controllers that have not changed are not touched. Before Live, and on a cold
// standby, nothing is built ahead.
func (r *Runner) Apply(ctx context.Context, desired []Desired) error {
	change, err := r.Prepare(ctx, desired)
	if err == nil {
		change.Commit()
	}
	return err
}

// Prepare is the first half of Apply: it builds, and changes nothing yet. Until the
// Change is committed or discarded, other calls of Prepare and Apply wait.
func (r *Runner) Prepare(ctx context.Context, desired []Desired) (*Change, error) {
	r.applying.Lock()
	c := &Change{runner: r, wants: map[*unit]*want{}}
	err := c.compare(desired)
	if err == nil {
		err = c.buildAhead(ctx)
	}
	if err != nil {
		c.Discard()
		return nil, err
	}
	return c, nil
}

// compare finds what is wanted otherwise than before.
func (c *Change) compare(desired []Desired) error {
	for _, d := range desired {
		u := c.runner.byName[d.Controller.Name]
		if u == nil {
			return fmt.Errorf("controller %q is not run here", d.Controller.Name)
		}
		before := u.wanted()
		if d.Enabled && before.enabled && before.controller == d.Controller || !d.Enabled && !before.enabled && before.reason == d.Reason {
			continue
		}
		c.changed = append(c.changed, u)
		c.wants[u] = newWant(d)
	}
	return nil
}

// Discard gives up what was prepared.
func (c *Change) Discard() {
	defer c.runner.applying.Unlock()
	for _, w := range c.wants {
		w.abandon()
	}
}

// buildAhead calls Init of what is to start, so that a mistake comes to light before
// anything is stopped.
func (c *Change) buildAhead(ctx context.Context) error {
	var errs []error
	for _, u := range c.changed {
		w := c.wants[u]
		if !w.enabled || !c.runner.living.Load() || u.config.Cold && u.current() == nil {
			continue
		}
		if err := u.ahead(ctx, w); err != nil {
			errs = append(errs, fmt.Errorf("controller %q cannot be built: %w", u.name, err))
		}
	}
	return errors.Join(errs...)
}

// Commit gives the units what is wanted of them. Of those that stop, each waits for
// those that need it; of those that start, each waits for what it needs.
func (c *Change) Commit() {
	defer c.runner.applying.Unlock()
	for _, u := range c.changed {
		for _, name := range u.neededBy {
			if w, changes := c.wants[c.runner.byName[name]]; changes {
				c.wants[u].after = append(c.wants[u].after, w.adopted)
			}
		}
		if t := u.current(); t != nil && c.wants[u].enabled {
			t.reopen(u.name)
		}
	}
	for _, u := range c.changed {
		u.give(c.wants[u])
	}
}

// ahead checks the access of what is wanted, and builds it unless something is
// missing. That it cannot be found out is left to the unit, which asks again.
func (u *unit) ahead(ctx context.Context, w *want) error {
	verdict := Verdict{}
	if u.config.Check != nil {
		checking, cancel := context.WithTimeout(ctx, checkTimeout)
		defer cancel()
		var err error
		if verdict, err = u.config.Check(checking, w.controller.Access()); err != nil {
			return nil
		}
		w.verdict = &verdict
	}
	if verdict.Missing != "" {
		return nil
	}
	next, err := u.init(ctx, w.controller, servedBy(verdict))
	if _, skip := controllers.SkipReason(err); err != nil && !skip {
		return err
	}
	w.next = next // nil if it is to be skipped; then the unit finds that out again
	return nil
}

// abandon gives up what was built for a want that nobody will adopt.
func (w *want) abandon() {
	if w.next != nil {
		w.next.drop()
		w.next.Context.Informers.Release()
		w.next = nil
	}
}
