// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package runner

import (
	"context"
	"maps"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/incumbent-io/incumbent/pkg/controllers"
)

// Verdict is what is known about a controller's access.
type Verdict struct {
	// Missing says in one line what keeps the controller from running; empty: nothing.
	Missing string
	// Served tells for every declared resource whether it is there, with all the
	// verbs that the controller declares.
	Served map[schema.GroupVersionResource]bool
	// Recheck asks again, only for what is missing; nil if nothing is.
	Recheck func(ctx context.Context) (Verdict, error)
}

func (v Verdict) equal(other Verdict) bool {
	return v.Missing == other.Missing && maps.Equal(v.Served, other.Served)
}

const (
	// recheckInterval is the pause between two looks for what is missing: what
	// appears is running within 5 s.
	recheckInterval = 4 * time.Second
	// refusalDelay is the pause between a refusal and the review that confirms it.
	// An API server that has just started refuses for a moment what it will grant.
	refusalDelay = time.Second
	// checkTimeout bounds one check.
	checkTimeout = 10 * time.Second
)

// inquiry finds out about one controller's access, now and then. Only the unit's
// goroutine uses it.
//
//	unknown ──► asking ──► known ── due: something is missing, or was refused ──► asking
type inquiry struct {
	verdict *Verdict // nil while nothing is known
	err     error    // why nothing is known
	due     time.Time
	full    bool // the next check looks at everything
	asked   time.Time

	answers chan answer // of the check that is under way; nil without one
	cancel  context.CancelFunc
}

type answer struct {
	verdict Verdict
	err     error
}

// ask starts a check if one is due and none is under way.
func (q *inquiry) ask(u *unit, controller *controllers.Configured, now time.Time) {
	if q.answers != nil || u.config.Check == nil {
		return
	}
	if q.verdict != nil && (q.due.IsZero() || now.Before(q.due)) || q.verdict == nil && now.Before(q.due) {
		return
	}
	if len(controller.Access()) == 0 {
		q.verdict, q.due = &Verdict{}, time.Time{}
		return
	}
	check := func(ctx context.Context) (Verdict, error) { return u.config.Check(ctx, controller.Access()) }
	if q.verdict != nil && !q.full && q.verdict.Recheck != nil {
		check = q.verdict.Recheck
	}
	q.due, q.full, q.asked = time.Time{}, false, now
	ctx, cancel := context.WithTimeout(context.Background(), checkTimeout)
	answers := make(chan answer, 1)
	q.answers, q.cancel = answers, cancel
	go func() {
		defer cancel()
		verdict, err := check(ctx)
		answers <- answer{verdict, err}
	}()
}

// take notes an answer and tells whether it changed what is known.
func (q *inquiry) take(a answer, now time.Time) (changed bool) {
	q.answers, q.cancel = nil, nil
	if a.err != nil {
		q.err = a.err
		if q.verdict == nil {
			q.due = now.Add(refusalDelay)
		} else {
			q.due, q.full = now.Add(recheckInterval), true
		}
		return false
	}
	q.err = nil
	changed = q.verdict == nil || !q.verdict.equal(a.verdict)
	q.verdict = &a.verdict
	if a.verdict.Recheck != nil && q.due.IsZero() {
		q.due = now.Add(recheckInterval)
	}
	return changed
}

// doubt has everything checked again soon, because the API server refused something.
func (q *inquiry) doubt(now time.Time) {
	if q.full {
		return
	}
	q.full, q.due = true, now.Add(refusalDelay)
	if earliest := q.asked.Add(recheckInterval); q.due.Before(earliest) {
		q.due = earliest // whatever is refused, and however often
	}
}

// forget drops what is known, for other options need another access.
func (q *inquiry) forget() {
	if q.cancel != nil {
		q.cancel()
	}
	*q = inquiry{}
}

// missing returns what keeps the controller from running, "" if nothing is known to.
func (q *inquiry) missing() string {
	if q.verdict == nil {
		return ""
	}
	return q.verdict.Missing
}
