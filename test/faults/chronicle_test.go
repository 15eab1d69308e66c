// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package faults

import (
	"context"
	"strings"
	"sync"

	"github.com/incumbent-io/incumbent/test/faults/candidate"
)

// leaseEvent is one version of the contested Lease.
type leaseEvent struct {
	rv      int64
	seen    int64 // when the watch told, by CLOCK_MONOTONIC
	deleted bool
	gap     bool // versions between the one before and this one may be unknown
	holder  string
	epoch   int64 // creation time and transitions, as Incumbent counts
	// acquired and renewed are the times in the record, in nanoseconds since 1970.
	acquired, renewed int64
}

// writeEvent is one version of the written object.
type writeEvent struct {
	rv, seen   int64
	writer     string
	epoch, seq int64
}

// note is a record of a candidate's journal.
type note struct {
	process
	candidate.Record
}

// process is one process of a Pod: its container can be restarted.
type process struct {
	pod     string
	attempt int
}

// view is what is known of a fleet at one moment. Nobody changes what is in it.
type view struct {
	leases []leaseEvent // in the order of their versions
	writes []writeEvent // likewise
	notes  []note       // without those of writes; in order for each process
	tries  []note       // notes of writes
	// told is when a Pod was told to stop, killed when a process was.
	told   map[string]int64
	killed map[process]int64
}

// chronicle collects what happens to one fleet. Safe for concurrent use.
type chronicle struct {
	mu      sync.Mutex
	now     view
	changed chan struct{} // closed, and replaced, whenever something is added
}

func newChronicle() *chronicle {
	return &chronicle{changed: make(chan struct{}), now: view{told: map[string]int64{}, killed: map[process]int64{}}}
}

// add changes the view, which must only be appended to.
func (c *chronicle) add(change func(*view)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(&c.now)
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *chronicle) note(p process, r candidate.Record) {
	c.add(func(v *view) {
		switch r.What {
		case candidate.Wrote, candidate.Refused, candidate.Failed:
			v.tries = append(v.tries, note{p, r})
		default:
			v.notes = append(v.notes, note{p, r})
		}
	})
}

// view returns what is known now, and a channel that is closed when there is more.
func (c *chronicle) view() (view, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v := c.now
	v.told, v.killed = map[string]int64{}, map[process]int64{}
	for pod, at := range c.now.told {
		v.told[pod] = at
	}
	for p, at := range c.now.killed {
		v.killed[p] = at
	}
	return v, c.changed
}

// await returns the first view for which the condition holds, and whether there was
// one before ctx ended.
func (c *chronicle) await(ctx context.Context, condition func(view) bool) (view, bool) {
	for {
		v, changed := c.view()
		if condition(v) {
			return v, true
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return v, false
		}
	}
}

// podOf returns the Pod in an identity, which begins with its name.
func podOf(identity string) string {
	pod, _, _ := strings.Cut(identity, "_")
	return pod
}

// lease returns the newest version; without one, it is a deleted one.
func (v view) lease() leaseEvent {
	if len(v.leases) == 0 {
		return leaseEvent{deleted: true}
	}
	return v.leases[len(v.leases)-1]
}

// running returns the record with which the work of a Pod began, if it still goes on.
func (v view) running(pod string) (begin note, ok bool) {
	for _, n := range v.notes {
		if n.pod != pod {
			continue
		}
		switch n.What {
		case candidate.Run:
			begin, ok = n, true
		case candidate.End, candidate.Began: // a process that was killed writes no End
			ok = false
		}
	}
	return begin, ok
}

// leader returns the Pod that holds the Lease, if its work goes on.
func (v view) leader() (pod string, begin note, ok bool) {
	pod = podOf(v.lease().holder)
	if begin, ok = v.running(pod); ok && begin.Who != v.lease().holder {
		ok = false
	}
	return pod, begin, ok
}

// last returns the last record of a kind that a Pod wrote.
func (v view) last(pod string, what candidate.What) (found note, ok bool) {
	for _, n := range v.notes {
		if n.pod == pod && n.What == what {
			found, ok = n, true
		}
	}
	return found, ok
}

// acquisition returns the first version of the Lease after a time that another
// candidate than the given one holds.
func (v view) acquisition(after int64, not string) (leaseEvent, bool) {
	for _, e := range v.leases {
		if e.seen > after && !e.deleted && e.holder != "" && e.holder != not {
			return e, true
		}
	}
	return leaseEvent{}, false
}

// lastRenewal returns the last version of the Lease that a candidate holds.
func (v view) lastRenewal(holder string) (found leaseEvent, ok bool) {
	for _, e := range v.leases {
		if e.holder == holder {
			found, ok = e, true
		}
	}
	return found, ok
}
