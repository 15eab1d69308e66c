// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package clients

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"weak"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

var (
	// errMoved ends a watch so that its reflector opens it on another connection.
	errMoved = errors.New("the watch moves to another connection")
	// errClosed ends a request whose response has been read.
	errClosed = errors.New("the response was closed")
	// errWrite refuses what would go past the fence of the controller's term.
	errWrite = errors.New("clients: the pool's clients only read: write with the clients of the controller")
)

// patient is the transport under the lists and watches of caches. A reflector
// that fails backs off for up to a minute, and an informer lets nobody change
// that. So patient keeps from it what would only make it wait: a request that
// cannot reach the API server stays here until the link is back, and a watch
// whose connection breaks looks as if the server had closed it, upon which the
// reflector watches on at once from where it was.
//
// What the API server itself answers goes to the reflector and its back-off,
// except in the first seconds after an outage, when a starting API server
// refuses what it will soon serve.
type patient struct {
	pool *Pool
	next http.RoundTripper
	// cache is set for informers of generated code, whose requests may not
	// carry the context of the reflector. Nil: the cache of the context.
	cache *resourceCache
}

// RoundTrip implements http.RoundTripper.
func (t *patient) RoundTrip(req *http.Request) (*http.Response, error) {
	c := t.cache
	if c == nil {
		c = cacheOf(req.Context())
	}
	if req.Method != http.MethodGet {
		if req.Body != nil {
			_ = req.Body.Close()
		}
		return nil, errWrite
	}
	if c == nil {
		return t.next.RoundTrip(req)
	}
	c.ask()
	link := t.pool.link
	pause := backoff{next: link.timing.retryMin, max: link.timing.retryMax}
	for {
		resp, err := t.try(req, c)
		if err != nil {
			if ended(req.Context(), c.life) {
				return nil, err
			}
			c.note(err)
		} else if resp.StatusCode < http.StatusBadRequest {
			return resp, nil
		}
		again, waitErr := t.again(req, c, resp, err)
		if waitErr != nil {
			closeBody(resp)
			return nil, waitErr
		}
		if !again {
			return t.refused(c, resp), nil
		}
		closeBody(resp)
		if err := pause.sleep(req.Context(), c.life); err != nil {
			return nil, err
		}
	}
}

// again says whether a request that did not succeed is tried again here. An
// error, or what a gateway answers in place of an API server, raises the
// question whether the server can be reached at all; it waits until it can.
func (t *patient) again(req *http.Request, c *resourceCache, resp *http.Response, err error) (bool, error) {
	if err != nil || fromGateway(resp.StatusCode) {
		wasDown, waitErr := t.pool.link.await(req.Context(), c.life)
		if waitErr != nil || wasDown || err != nil {
			return true, waitErr
		}
	}
	switch resp.StatusCode {
	case http.StatusBadRequest, http.StatusGone, http.StatusTooManyRequests:
		return false, nil // Its own fault, or the reflector knows better.
	default:
		return c.hasSynced() && t.pool.link.settling(), nil
	}
}

// refused hands an answer on to the reflector. What makes the reflector list or
// ask again soon leaves the phase at asking.
func (t *patient) refused(c *resourceCache, resp *http.Response) *http.Response {
	switch resp.StatusCode {
	case http.StatusGone, http.StatusTooManyRequests, http.StatusGatewayTimeout:
	default:
		c.refuse(resp.StatusCode)
	}
	return resp
}

// try sends the request once. The context of the attempt ends with the request,
// with the cache, or when its response is closed.
func (t *patient) try(req *http.Request, c *resourceCache) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	release := context.AfterFunc(c.life, func() { cancel(context.Cause(c.life)) })
	var conn atomic.Value
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) { conn.Store(&info) },
	})
	sent := time.Now()
	// No answer for a while: the connection may be dead without anyone knowing.
	suspicion := time.AfterFunc(t.pool.link.timing.suspicion, t.pool.link.suspect)
	resp, err := t.next.RoundTrip(req.WithContext(ctx))
	suspicion.Stop()
	finish := func(cause error) {
		release()
		cancel(cause)
	}
	if err != nil {
		finish(err)
		return nil, err
	}
	s := &stream{ReadCloser: resp.Body, cache: c, sent: sent, finish: finish, closed: make(chan struct{})}
	if info, ok := conn.Load().(*httptrace.GotConnInfo); ok {
		s.conn = info.Conn
	}
	s.hold = t.pool.link.timing.shortWatch
	query := req.URL.Query()
	if watch := query.Get("watch"); resp.StatusCode == http.StatusOK && (watch == "true" || watch == "1") {
		s.watch = true
		if query.Get("sendInitialEvents") == "true" {
			s.initial = &marker{}
		} else {
			s.catchUp()
		}
	}
	resp.Body = s
	return resp, nil
}

// stream is the body of a response.
type stream struct {
	io.ReadCloser
	cache  *resourceCache
	conn   net.Conn // identifies the connection; nil if the transport does not tell
	sent   time.Time
	hold   time.Duration
	finish func(error)

	watch   bool
	initial *marker // while the initial events of a watch are coming
	// quiet opens the watch once it has been silent for a while after it was
	// resumed; no byte puts that off beyond patience.
	quiet    *time.Timer
	patience time.Time
	lost     bool  // guarded by the mutex of the cache
	broken   error // what the last Read returned together with bytes

	once   sync.Once
	closed chan struct{}
}

// Read implements io.Reader. A watch that breaks ends like one that the server
// has closed, and not before it is so old that the reflector takes it for a
// regular one.
func (s *stream) Read(p []byte) (int, error) {
	n, err := 0, s.broken
	if err == nil {
		n, err = s.ReadCloser.Read(p)
	}
	if s.initial != nil && s.initial.find(p[:n]) {
		s.initial = nil
		s.catchUp()
	} else if n > 0 && s.quiet != nil && time.Now().Before(s.patience) {
		s.quiet.Reset(s.cache.pool.link.timing.quiet)
	}
	if !s.watch || err == nil {
		return n, err
	}
	if n > 0 {
		s.broken = err
		return n, nil
	}
	s.cache.lose(s)
	if remains := s.hold - time.Since(s.sent); remains > 0 {
		timer := time.NewTimer(remains)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-s.closed: // The reflector was told to stop.
		}
	}
	return 0, io.EOF
}

// catchUp opens the watch once the cache has what it missed. The first one of a
// cache has missed nothing. One that is resumed brings what the cache missed right
// after the header of its answer, but nothing marks the end: it counts as caught
// up when it has been quiet for a moment.
func (s *stream) catchUp() {
	if s.cache.first() {
		s.cache.open(s)
		return
	}
	timing := s.cache.pool.link.timing
	s.patience = time.Now().Add(timing.maxQuiet)
	s.quiet = time.AfterFunc(timing.quiet, func() { s.cache.open(s) })
}

// Close implements io.Closer.
func (s *stream) Close() error {
	s.once.Do(func() {
		close(s.closed)
		s.cache.lose(s)
		s.finish(errClosed)
	})
	return s.ReadCloser.Close()
}

// moveIfThere moves a watch that has not ended long ago. A timer that knew it would
// keep the cache in memory.
func moveIfThere(s weak.Pointer[stream]) func() {
	return func() {
		if open := s.Value(); open != nil {
			open.move()
		}
	}
}

// move ends the watch; the reflector opens it anew at once.
func (s *stream) move() { s.finish(errMoved) }

// ask notes that the reflector wants something of the API server.
func (c *resourceCache) ask() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stream == nil {
		c.phase = asking
	}
}

// refuse notes that the API server has answered with status, not with the resource.
// The reflector knows a better error in a moment.
func (c *resourceCache) refuse(status int) {
	var tell []*view
	c.mu.Lock()
	if c.stream == nil {
		c.phase, c.status = refused, status
		c.causes.last = answerError(status)
		if c.barred() {
			tell = slices.Collect(maps.Keys(c.views))
		}
	}
	c.mu.Unlock()
	c.pool.changes.broadcast()
	tellRefused(tell)
}

// open notes that a watch has told the cache all that it had missed.
func (c *resourceCache) open(s *stream) {
	c.mu.Lock()
	if s.lost {
		c.mu.Unlock()
		return
	}
	c.phase, c.stream, c.opened = streaming, s, true
	least := c.pool.link.timing.watchFor
	time.AfterFunc(least+rand.N(least), moveIfThere(weak.Make(s)))
	c.causes = causes{}
	c.mu.Unlock()
	c.pool.changes.broadcast()
}

// first says whether no watch has been open yet.
func (c *resourceCache) first() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.opened
}

func (c *resourceCache) lose(s *stream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.lost = true
	if c.stream == s {
		c.phase, c.stream = asking, nil
	}
}

// marker finds the annotation that ends the initial events of a watch in the
// bytes of the stream; it is spelled the same in JSON and in protobuf. An object
// that contains it, too, only makes Contact wait less for a new list.
type marker struct{ tail []byte }

var initialEventsEnd = []byte("k8s.io/initial-events-end")

func (m *marker) find(p []byte) bool {
	if bytes.Contains(p, initialEventsEnd) {
		return true
	}
	keep := len(initialEventsEnd) - 1
	seam := append(m.tail, p[:min(len(p), keep)]...)
	if bytes.Contains(seam, initialEventsEnd) {
		return true
	}
	if len(p) >= keep {
		seam = p
	}
	m.tail = append([]byte(nil), seam[max(0, len(seam)-keep):]...)
	return false
}

// fromGateway tells the answers of something in front of the API server, or of
// one that is not ready, from those about the resource.
func fromGateway(status int) bool {
	return status == http.StatusBadGateway || status == http.StatusServiceUnavailable || status == http.StatusGatewayTimeout
}

func closeBody(resp *http.Response) {
	if resp != nil {
		_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
		_ = resp.Body.Close()
	}
}

func ended(contexts ...context.Context) bool {
	for _, ctx := range contexts {
		if ctx.Err() != nil {
			return true
		}
	}
	return false
}

// backoff doubles the pause between attempts.
type backoff struct{ next, max time.Duration }

func (b *backoff) sleep(a, z context.Context) error {
	timer := time.NewTimer(b.take())
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-a.Done():
		return context.Cause(a)
	case <-z.Done():
		return context.Cause(z)
	}
}

func (b *backoff) take() time.Duration {
	pause := b.next
	b.next = min(2*b.next, b.max)
	return pause
}

// answerError is for answers whose body nobody reads.
func answerError(status int) error {
	return apierrors.NewGenericServerResponse(status, "get", schema.GroupResource{}, "", http.StatusText(status), 0, false)
}
