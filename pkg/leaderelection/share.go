// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package leaderelection

import (
	"hash/fnv"
	"sync"
	"time"
)

// claimAnnotation on a Lease names the candidate that asks its holder for it.
const claimAnnotation = "incumbent.io/claimed-by"

const (
	// standBackStep is how long a candidate lets others go first for each lease that
	// its process leads already, and standBackMax bounds it.
	standBackStep = 250 * time.Millisecond
	standBackMax  = time.Second
	// claimPause is the pause between two claims of a process. It doubles up to
	// claimPauseMax while claims are not granted.
	claimPause    = 3 * time.Second
	claimPauseMax = time.Minute
	// claimRetry is the pause after a claim that met a newer version of the Lease.
	claimRetry = 100 * time.Millisecond
	// claimLife is how long a claim that is not granted stays on the Lease.
	claimLife = 10 * time.Second
	// unfair is by how many leases a holder must be ahead of whoever claims one of
	// them. With 2, both have as many afterwards, or are nearer to it, so that no lease
	// ever moves back.
	unfair = 2
)

// Share has the electors of one process share their leases out with those of other
// processes, so that each leads about as many. It is given to all of them, and knows
// of each whom it sees holding its lease. It is safe for concurrent use.
//
//   - A process that leads some leases already lets others go first for a free one:
//     250 ms for each, at most 1 s. One that leads none does not wait.
//   - A process that sees a holder with at least two leases more than its own asks for
//     one of them, by the annotation incumbent.io/claimed-by on it. The holder, if it
//     agrees, drains and releases it, as if it had been asked to stop.
//
// It changes when leases are given up and tried for, never what makes leading safe.
type Share struct {
	mu     sync.Mutex
	seats  map[*Elector]seat
	next   time.Duration // no claim before, on the monotonic clock
	pause  time.Duration // what follows the next claim
	asking *Elector      // whose lease was claimed last
	unfair int           // see there; simulations make every claim a fair one
}

// seat is what one elector knows.
type seat struct {
	name    string // of the lease
	known   bool
	holder  string
	leading bool // this process leads on it, and is not giving it up
}

// NewShare returns a Share that knows of no elector yet.
func NewShare() *Share { return &Share{seats: map[*Elector]seat{}, pause: claimPause, unfair: unfair} }

// note takes over what an elector knows.
func (s *Share) note(e *Elector, now seat) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.leading && s.asking == e {
		s.asking, s.pause = nil, claimPause // granted
	}
	s.seats[e] = now
}

// leave forgets an elector that competes no longer.
func (s *Share) leave(e *Elector) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.seats, e)
}

// standBack returns how long to let others go first for a free lease.
func (s *Share) standBack() time.Duration {
	if s == nil {
		return 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return min(time.Duration(s.led())*standBackStep, standBackMax)
}

// led counts the leases that this process leads.
func (s *Share) led() (n int) {
	for _, seat := range s.seats {
		if seat.leading {
			n++
		}
	}
	return n
}

// held counts the leases that another process is seen to hold.
func (s *Share) held(by string) (n int) {
	for _, seat := range s.seats {
		if seat.holder == by {
			n++
		}
	}
	return n
}

// claims decides whether the process called me should claim the lease of e now, and
// if only the time has not come, how long that takes.
func (s *Share) claims(e *Elector, me string, now time.Duration, jitter float64) (yes bool, wait time.Duration) {
	if s == nil {
		return false, 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch s.choice(me) {
	case nil:
		s.asking, s.pause = nil, claimPause // nothing is left to ask for
		return false, 0
	case e:
	default:
		return false, 0
	}
	if now < s.next {
		return false, s.next - now
	}
	s.asking = e
	s.next = now + s.pause + time.Duration(jitter*float64(s.pause)/2)
	s.pause = min(2*s.pause, claimPauseMax)
	return true, 0
}

// missed has a claim written again soon that met a newer version of the Lease.
func (s *Share) missed(now time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next, s.pause = now+claimRetry, max(s.pause/2, claimPause)
}

// choice returns the elector whose lease to claim: of the holder that leads most, one
// of its leases, for each process another. nil: none, or not everything is known.
func (s *Share) choice(me string) (chosen *Elector) {
	most, rank := s.led()+s.unfair, uint32(0)
	for e, seat := range s.seats {
		if !seat.known {
			return nil
		}
		if seat.holder == "" || seat.holder == me || !isOurs(seat.holder) {
			continue
		}
		held, r := s.held(seat.holder), rankOf(me, seat.name)
		if held > most || held == most && (chosen == nil || r < rank) {
			chosen, most, rank = e, held, r
		}
	}
	return chosen
}

// rankOf orders the leases for each process in another way, so that several that
// claim at one time claim different ones.
func rankOf(me, lease string) uint32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(me + "/" + lease)) // never fails (hash.Hash)
	return h.Sum32()
}

// yields decides whether the lease of e is given to the candidate that claims it.
func (s *Share) yields(e *Elector, claimant string) bool {
	if s == nil || !isOurs(claimant) {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.seats[e].leading || s.led() < s.held(claimant)+s.unfair {
		return false
	}
	seat := s.seats[e]
	seat.leading = false // before another elector decides
	s.seats[e] = seat
	return true
}
