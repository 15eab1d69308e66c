// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package leaderelection

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"
)

// Fence lets the mutating requests of one controller run through only while the
// term that the run belongs to is provably valid. Reads always pass, and so do
// review requests (authentication.k8s.io, authorization.k8s.io). It is safe for
// concurrent use.
//
//	unbound --- Open ---> bound to one term --- Shut ---> shut, for ever
//
// A request that passed carries a deadline and a timeout parameter for the
// server, so that it ends before anybody else can lead. If its caller gives up
// on it, it still counts as in flight until the server has answered.
type Fence struct {
	owner *Elector
	term  atomic.Pointer[Term]
	// open ends with Shut.
	open context.Context
	shut context.CancelFunc
}

func newFence(owner *Elector) *Fence {
	f := &Fence{owner: owner}
	f.open, f.shut = context.WithCancel(context.Background())
	return f
}

// Open binds the fence to the term that ctx, which was given to
// OnStartedLeading, belongs to. Writes are refused before. It fails with
// ErrNotLeader when there is no such term or it is over, and when the fence is
// shut or bound to another term.
func (f *Fence) Open(ctx context.Context) error {
	t := TermFrom(ctx)
	switch {
	case t == nil || t.owner != f.owner:
		return &notLeaderError{reason: "the context belongs to no term of this lease"}
	case f.open.Err() != nil:
		return &notLeaderError{reason: "the controller's run has ended"}
	case t.admitting.Err() != nil:
		return &notLeaderError{reason: "the term is over"}
	case !f.term.CompareAndSwap(nil, t) && f.term.Load() != t:
		return &notLeaderError{reason: "the fence is bound to another term"}
	}
	return nil
}

// Shut refuses all writes from now on, for ever. What is in flight goes on
// within its deadline, except for upgraded and other long-running requests.
func (f *Fence) Shut() { f.shut() }

// WrapTransport is for rest.Config: it returns a transport whose mutating
// requests are guarded. These use the Elector's own connections; reads use rt.
func (f *Fence) WrapTransport(rt http.RoundTripper) http.RoundTripper {
	return &guardedRoundTripper{fence: f, next: rt}
}

type guardedRoundTripper struct {
	fence *Fence
	next  http.RoundTripper
}

// WrappedRoundTripper lets client-go find the transport beneath.
func (g *guardedRoundTripper) WrappedRoundTripper() http.RoundTripper { return g.next }

// RoundTrip implements http.RoundTripper.
func (g *guardedRoundTripper) RoundTrip(req *http.Request) (*http.Response, error) {
	f := g.fence
	kind := classify(req, f.owner.pathPrefix)
	if kind == unguarded {
		return g.next.RoundTrip(req)
	}
	resp, err := f.guarded(req, kind, g.next)
	if resp == nil && req.Body != nil {
		// A RoundTripper closes the body on errors, too; twice is harmless.
		_ = req.Body.Close()
	}
	return resp, err
}

// guarded admits the request and sends it.
func (f *Fence) guarded(req *http.Request, kind requestKind, next http.RoundTripper) (*http.Response, error) {
	m := f.owner.fenceMetrics()
	t := f.term.Load()
	var err error
	switch {
	case f.open.Err() != nil:
		err = &notLeaderError{reason: "the controller's run has ended"}
	case t == nil:
		err = &notLeaderError{reason: "the controller's run has not started"}
	}
	if err != nil {
		m.count(fenceRefused)
		return nil, err
	}
	remaining, waited, err := t.enter(req.Context(), f.open.Done())
	if waited {
		m.count(fenceDelayed)
	}
	if err != nil {
		m.count(fenceRefused)
		return nil, err
	}
	m.count(fencePassed)
	if kind == longRunning {
		return f.stream(t, req, next) // an upgrade needs the transport that its client made
	}
	if t.transport != nil {
		if next, err = t.transport(); err != nil {
			t.leave()
			return nil, err
		}
	}
	return f.send(t, req, remaining, next)
}

// errCutOff is the cause when a request that had passed was still under way
// when the lease's validity ended. Its outcome is unknown.
var errCutOff = errors.New("the write was cut off at the end of the lease's validity, its outcome is unknown")

type answer struct {
	resp *http.Response
	err  error
}

// send sends a request that has to end within remaining. It is detached from
// its caller, who may go away at any time, as all do when a drain cancels the
// context of the term: only the server's answer tells that it has no effect any
// more, and a release waits for that.
func (f *Fence) send(t *Term, req *http.Request, remaining time.Duration, next http.RoundTripper) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(req.Context()))
	cutOff := func() { cancel(errCutOff) }
	stopTimer := func() bool { return true }
	out := req.WithContext(ctx)
	if !t.unbounded {
		stopTimer = t.clock.AfterFunc(remaining, cutOff)
		out.URL = withTimeoutParameter(req, remaining)
	}
	stopSever := context.AfterFunc(t.sending, cutOff)

	answered, abandoned := make(chan answer), make(chan struct{})
	go func() {
		resp, err := t.rideOut(out, next)
		stopTimer()
		stopSever()
		t.leave()
		select {
		case answered <- answer{resp, err}:
		case <-abandoned:
			if resp != nil {
				_ = resp.Body.Close()
			}
			cancel(nil)
		}
	}()
	select {
	case <-req.Context().Done():
		close(abandoned)
		return nil, context.Cause(req.Context())
	case a := <-answered:
		if a.err != nil {
			cancel(nil)
			return a.resp, a.err
		}
		stop := context.AfterFunc(req.Context(), func() { cancel(context.Cause(req.Context())) })
		a.resp.Body = wrapBody(a.resp.Body, func() {
			stop()
			cancel(nil)
		})
		return a.resp, nil
	}
}

// stream sends an upgrade or another request without a natural end. It is cut
// off when the fence is shut.
func (f *Fence) stream(t *Term, req *http.Request, next http.RoundTripper) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	cutOff := func() { cancel(errCutOff) }
	stopTerm := context.AfterFunc(t.admitting, cutOff)
	stopRun := context.AfterFunc(f.open, cutOff)
	var once sync.Once
	end := func() {
		once.Do(func() {
			stopTerm()
			stopRun()
			cancel(nil)
			t.leave()
		})
	}
	resp, err := next.RoundTrip(req.WithContext(ctx))
	if err != nil {
		end()
		return resp, err
	}
	body := resp.Body
	resp.Body = wrapBody(body, end)
	if resp.StatusCode == http.StatusSwitchingProtocols {
		// An upgraded connection does not listen to the context.
		context.AfterFunc(ctx, func() {
			_ = body.Close()
			end()
		})
	}
	return resp, nil
}

// wrapBody calls done when the body is closed. An upgraded connection stays
// writable.
func wrapBody(body io.ReadCloser, done func()) io.ReadCloser {
	if rw, ok := body.(io.ReadWriteCloser); ok {
		return &duplexBody{ReadWriteCloser: rw, done: done}
	}
	return &closingBody{ReadCloser: body, done: done}
}

type closingBody struct {
	io.ReadCloser
	done func()
}

func (b *closingBody) Close() error {
	defer b.done()
	return b.ReadCloser.Close()
}

type duplexBody struct {
	io.ReadWriteCloser
	done func()
}

func (b *duplexBody) Close() error {
	defer b.done()
	return b.ReadWriteCloser.Close()
}

// withTimeoutParameter returns the URL with what remains as the deadline of the
// server, which counts it from arrival; never above the caller's own.
func withTimeoutParameter(req *http.Request, remaining time.Duration) *url.URL {
	u := *req.URL
	query := u.Query()
	if own := query.Get("timeout"); own != "" {
		if d, err := time.ParseDuration(own); err != nil || d <= remaining {
			return &u
		}
	}
	query.Set("timeout", remaining.Truncate(time.Millisecond).String())
	u.RawQuery = query.Encode()
	return &u
}
