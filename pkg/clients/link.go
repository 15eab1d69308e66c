// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package clients

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
	"time"

	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
)

// timing is constant but for tests.
type timing struct {
	// patience is how long an answer may take before another attempt is made
	// beside the first.
	patience time.Duration
	// silence is how long a connection may bring no byte while an answer is due,
	// before it is closed.
	silence time.Duration
	// retryMin and retryMax bound the pause between attempts that failed at once.
	retryMin, retryMax time.Duration
	// ping is how long an HTTP/2 connection may be silent before a ping is sent, and
	// pong how long the answer may take.
	ping, pong time.Duration
	// suspicion is how long a list or watch may wait for its answer before the
	// link finds out whether the API server gives any.
	suspicion time.Duration
	// settle is how long after an outage refusals are retried in place.
	settle time.Duration
	// quiet is how long a resumed watch brings nothing before it counts as caught
	// up, and maxQuiet how long that may take while it brings something.
	quiet, maxQuiet time.Duration
	// shortWatch is the age below which a reflector takes a watch that brought
	// nothing for a failed one.
	shortWatch time.Duration
	// watchFor is the age at which an open watch is moved, at least; at most, it is
	// twice that. The API server looks at permissions when a watch begins, and one that
	// is revoked would otherwise be noticed after up to ten minutes, which is how long
	// client-go lets a watch last.
	watchFor time.Duration
}

// defaultTiming finds a dead connection within 9 s, or 1.5 s when somebody wants
// an answer, and the API server within half a second of its return, for two
// small requests per second while it is away.
var defaultTiming = timing{
	patience:   500 * time.Millisecond,
	silence:    1500 * time.Millisecond,
	retryMin:   50 * time.Millisecond,
	retryMax:   500 * time.Millisecond,
	ping:       6 * time.Second,
	pong:       3 * time.Second,
	suspicion:  3 * time.Second,
	settle:     10 * time.Second,
	quiet:      100 * time.Millisecond,
	maxQuiet:   time.Second,
	shortWatch: time.Second,
	watchFor:   30 * time.Second,
}

const (
	dialTimeout      = 3 * time.Second
	handshakeTimeout = 5 * time.Second
	// askTimeout bounds one attempt to get an answer. Younger ones overtake it.
	askTimeout = 10 * time.Second
)

var errNoAnswer = errors.New("no answer from the API server")

// link is the pool's own connection to the API server, all watches on one where
// HTTP/2 allows. It finds out whether the server answers: one goroutine at most
// asks, whoever waits.
//
//	up --an attempt fails or hangs--> down --an answer--> up
type link struct {
	timing    timing
	host      string // with a scheme
	version   string // the URL to ask
	transport http.RoundTripper
	conns     conns

	mu     sync.Mutex
	ctx    context.Context // of Pool.Run; nil before
	search *search         // in flight; nil: none
	down   time.Time       // since when; zero while up
	back   time.Time       // when it was last back; zero: never away
	causes causes          // of the outage; none while up
	wait   sync.WaitGroup
}

// search is one effort to get an answer.
type search struct {
	done    chan struct{}
	wasDown bool // valid when done
}

func newLink(config *rest.Config, timing timing) (*link, error) {
	l := &link{timing: timing}
	l.conns.life, l.conns.end = context.WithCancelCause(context.Background())
	base, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		return nil, fmt.Errorf("clients: %w", err)
	}
	l.host, l.version = base.String(), base.JoinPath("version").String()
	own := config.Transport == nil
	if own {
		l.conns.next = config.Dial
		if l.conns.next == nil {
			l.conns.next = (&net.Dialer{
				KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: time.Second, Count: 5},
			}).DialContext
		}
		// With a dialer of our own, client-go makes a transport of our own.
		config.Dial = l.conns.dial
	}
	if l.transport, err = rest.TransportFor(config); err != nil {
		return nil, fmt.Errorf("clients: %w", err)
	}
	if own {
		tune(l.transport, timing)
	}
	return l, nil
}

// tune makes a transport that nobody else has, and that has not been used yet,
// notice a dead connection sooner than client-go would.
func tune(rt http.RoundTripper, timing timing) {
	for {
		switch t := rt.(type) {
		case *http.Transport:
			t.TLSHandshakeTimeout = handshakeTimeout
			t.HTTP2 = &http.HTTP2Config{SendPingTimeout: timing.ping, PingTimeout: timing.pong}
			return
		case utilnet.RoundTripperWrapper:
			rt = t.WrappedRoundTripper()
		default:
			return
		}
	}
}

// start lets the link ask, until ctx ends.
func (l *link) start(ctx context.Context) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ctx = ctx
}

// close ends what is left of the connections, after ctx of start has ended.
func (l *link) close() {
	l.wait.Wait()
	utilnet.CloseIdleConnectionsFor(l.transport)
	l.conns.close()
}

// await returns when the API server has answered a request that was sent after
// the call or while another caller was waiting, and whether it failed to at
// first. It ends early with either context.
func (l *link) await(a, z context.Context) (wasDown bool, err error) {
	s := l.ensureSearch()
	if s == nil {
		return false, errNoAnswer
	}
	select {
	case <-s.done:
		return s.wasDown, nil
	case <-a.Done():
		return false, context.Cause(a)
	case <-z.Done():
		return false, context.Cause(z)
	}
}

// suspect finds out whether the API server answers, for nobody in particular:
// connections that are dead get closed on the way.
func (l *link) suspect() { l.ensureSearch() }

// settling says whether an outage ended just now.
func (l *link) settling() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.back.IsZero() && time.Since(l.back) < l.timing.settle
}

// ensureSearch returns nil before start and after its context has ended.
func (l *link) ensureSearch() *search {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ctx == nil || l.ctx.Err() != nil {
		return nil
	}
	if l.search == nil {
		s := &search{done: make(chan struct{})}
		l.search = s
		ctx := l.ctx
		l.wait.Go(func() {
			a, err := l.prove(ctx)
			l.mu.Lock()
			defer l.mu.Unlock()
			l.search = nil
			s.wasDown = err == nil && a.wasDown
			close(s.done)
		})
	}
	return l.search
}

// answer tells over which connection the API server has answered.
type answer struct {
	conn    net.Conn
	wasDown bool
	err     error
}

// prove returns once the API server has answered a request that was sent after
// the call. It makes attempts beside those that hang, because a packet that was
// sent into an outage is repeated long after its end.
func (l *link) prove(ctx context.Context) (answer, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answers := make(chan answer)
	attempt := func() {
		select {
		case answers <- l.ask(ctx):
		case <-ctx.Done():
		}
	}
	pause := backoff{next: l.timing.retryMin, max: l.timing.retryMax}
	oldest := time.Now() // when the oldest attempt in flight was made
	inFlight, wasDown := 1, false
	go attempt()
	next := time.NewTimer(l.timing.patience)
	defer next.Stop()
	for {
		select {
		case <-next.C:
			now := time.Now()
			if inFlight == 0 {
				oldest = now
			}
			if silent := now.Add(-l.timing.silence); !oldest.After(silent) {
				wasDown = true
				l.noteDown(errNoAnswer)
				l.conns.cut(silent)
			}
			inFlight++
			go attempt()
			next.Reset(l.timing.patience)
		case a := <-answers:
			if a.err == nil {
				a.wasDown = wasDown
				l.noteUp()
				return a, nil
			}
			wasDown = true
			l.noteDown(a.err)
			if inFlight--; inFlight == 0 {
				next.Reset(pause.take())
			}
		case <-ctx.Done():
			return answer{}, context.Cause(ctx)
		}
	}
}

// ask gets the version: small, open to everyone, and answered from memory.
func (l *link) ask(ctx context.Context) answer {
	ctx, cancel := context.WithTimeoutCause(ctx, askTimeout, errNoAnswer)
	defer cancel()
	var got atomic.Pointer[httptrace.GotConnInfo]
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) { got.Store(&info) },
	})
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, l.version, nil)
	if err != nil {
		return answer{err: err}
	}
	req.Header.Set("Accept", "application/json")
	resp, err := l.transport.RoundTrip(req)
	if err != nil {
		return answer{err: err}
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)); err != nil {
		return answer{err: err}
	}
	if fromGateway(resp.StatusCode) {
		return answer{err: answerError(resp.StatusCode)}
	}
	a := answer{}
	if info := got.Load(); info != nil {
		a.conn = info.Conn
	}
	return a
}

func (l *link) noteDown(err error) {
	switch {
	case errors.Is(err, context.Canceled):
		return // Nobody wants to know any more.
	case errors.Is(err, net.ErrClosed):
		err = errNoAnswer // That is why the connection was cut.
	}
	l.mu.Lock()
	if l.down.IsZero() {
		l.down = time.Now()
	}
	fresh := l.causes.add(err)
	ctx := l.ctx
	l.mu.Unlock()
	if fresh && ctx.Err() == nil {
		klog.FromContext(ctx).Error(err, "Caches are out of contact with the API server")
	}
}

func (l *link) noteUp() {
	l.mu.Lock()
	down, ctx := l.down, l.ctx
	if !down.IsZero() {
		l.back, l.down, l.causes = time.Now(), time.Time{}, causes{}
	}
	l.mu.Unlock()
	if !down.IsZero() {
		klog.FromContext(ctx).Info("Caches are back in contact with the API server", "after", time.Since(down).Round(time.Millisecond))
	}
}

// conns are the open connections of a link, with the time when each was last
// heard of.
type conns struct {
	next func(ctx context.Context, network, address string) (net.Conn, error)
	life context.Context // ends with the link
	end  context.CancelCauseFunc

	mu      sync.Mutex
	open    map[*heardConn]struct{}
	dialing sync.WaitGroup // Invariant: not added to once life has ended
}

// dial does not outlive the link, while http.Transport goes on dialing for a
// request that has ended.
func (d *conns) dial(ctx context.Context, network, address string) (net.Conn, error) {
	d.mu.Lock()
	if d.life.Err() != nil {
		d.mu.Unlock()
		return nil, context.Cause(d.life)
	}
	d.dialing.Add(1)
	d.mu.Unlock()
	defer d.dialing.Done()

	ctx, cancel := context.WithTimeoutCause(ctx, dialTimeout, errNoAnswer)
	defer cancel()
	defer context.AfterFunc(d.life, cancel)()
	raw, err := d.next(ctx, network, address)
	if err != nil {
		return nil, err
	}
	c := &heardConn{Conn: raw, conns: d}
	c.heard.Store(time.Now().UnixNano())
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.open == nil {
		d.open = map[*heardConn]struct{}{}
	}
	d.open[c] = struct{}{}
	return c, nil
}

// close closes all connections, and those that are being made.
func (d *conns) close() {
	d.mu.Lock()
	d.end(errStopped)
	d.mu.Unlock()
	d.dialing.Wait()
	d.cut(time.Now().Add(time.Hour))
}

// cut closes the connections that have brought nothing since then.
func (d *conns) cut(then time.Time) {
	var silent []*heardConn
	d.mu.Lock()
	for c := range d.open {
		if c.heard.Load() <= then.UnixNano() {
			silent = append(silent, c)
		}
	}
	d.mu.Unlock()
	for _, c := range silent {
		_ = c.Close()
	}
}

type heardConn struct {
	net.Conn
	conns *conns
	heard atomic.Int64
}

func (c *heardConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.heard.Store(time.Now().UnixNano())
	}
	return n, err
}

func (c *heardConn) Close() error {
	c.conns.mu.Lock()
	delete(c.conns.open, c)
	c.conns.mu.Unlock()
	return c.Conn.Close()
}
