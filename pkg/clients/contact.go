// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package clients

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Contact returns nil once all caches that have synced are known to be in
// contact with the API server since the call. Use it right before controllers
// start after a take-over: a standby whose network was cut, or whose process was
// suspended, may have caches from long ago whose watches look open.
//
// It sends one small request. The answer proves that the connection which
// brought it is alive, and that all which the server wrote to it earlier has
// arrived. A watch on that connection is thereby in contact. A watch on another
// connection is moved, which is one more round trip. A watch that is broken is
// waited for, until it is open again and has told what the cache missed: nothing
// marks the end of that, so it counts when the watch was quiet for 100 ms. A
// cache whose resource the API server refuses, as missing or forbidden, is in
// contact but out of date: see Informers.Err. Nothing waits for a bookmark.
//
// What has arrived may still be a moment away from the store, and the server
// may have events that it has not yet written. Contact does not wait for caches
// that have not synced yet: they hold nothing old, and Informers.WaitForSync
// waits for them. With no such cache, with Fakes, or while the pool is not
// running, it returns nil at once without a request.
//
// It is bounded by ctx alone. Its error then names the caches that were out of
// contact.
func (p *Pool) Contact(ctx context.Context) error {
	if p.link == nil || len(p.active()) == 0 {
		return nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(p.context(), func() { cancel(errStopped) })()
	began := time.Now()
	a, err := p.link.prove(ctx)
	if err != nil {
		return fmt.Errorf("clients: no contact with the API server: %w%s", err, p.link.why())
	}
	for {
		changed := p.changes.next()
		var missing []string
		for _, c := range p.active() {
			if !c.inContact(began, a) {
				missing = append(missing, c.key.String())
			}
		}
		if len(missing) == 0 {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			slices.Sort(missing)
			return fmt.Errorf("clients: caches out of contact with the API server: %s: %w%s", strings.Join(missing, ", "), context.Cause(ctx), p.link.why())
		}
	}
}

// inContact says whether the watch is proven to be alive since then. One that is
// open on a connection that has proven nothing is moved.
func (c *resourceCache) inContact(since time.Time, a answer) bool {
	c.mu.Lock()
	phase, s := c.phase, c.stream
	c.mu.Unlock()
	switch {
	case phase == unseen, phase == refused:
		return true
	case phase == asking:
		return false
	case s.conn == a.conn || s.sent.After(since):
		return true
	default:
		s.move()
		return false
	}
}

// why completes an error with what the link knows.
func (l *link) why() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.causes.last == nil {
		return ""
	}
	return " (" + causeOf(l.causes.last) + ")"
}
