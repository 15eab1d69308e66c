// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

// Package netfault is a TCP proxy on the loopback interface that can be told to behave like a bad network.
//
// It works on bytes, so TLS stays end to end. While bytes are dropped they are held, not lost: TCP would send them
// again until the network heals, and so does the proxy. A request that was sent before the client gave up therefore
// reaches the server after the heal, as it may on a real network.
package netfault

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// Proxy forwards connections to one target, subject to the fault of the moment. Safe for concurrent use.
type Proxy struct {
	listener *net.TCPListener
	target   string

	mu      sync.Mutex
	fault   Fault
	changed chan struct{} // closed, and replaced, at each change of fault
	links   map[*link]struct{}
	closed  bool

	running sync.WaitGroup
}

// New listens on a free port of 127.0.0.1.
func New(target string) (*Proxy, error) {
	listener, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, err
	}
	p := &Proxy{listener: listener, target: target, changed: make(chan struct{}), links: map[*link]struct{}{}}
	p.running.Go(p.accept)
	return p, nil
}

// Port is the port that the proxy listens on.
func (p *Proxy) Port() int { return p.listener.Addr().(*net.TCPAddr).Port }

// Fault returns the fault of the moment.
func (p *Proxy) Fault() Fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fault
}

// Set changes the fault. It concerns open connections too.
func (p *Proxy) Set(f Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault = f
	close(p.changed)
	p.changed = make(chan struct{})
	if f.Mode == Refuse {
		for l := range p.links {
			l.reset()
		}
	}
}

// Close resets all connections and returns when nothing of the proxy runs.
func (p *Proxy) Close() {
	p.listener.Close()
	p.mu.Lock()
	p.closed = true
	for l := range p.links {
		l.reset()
	}
	p.mu.Unlock()
	p.running.Wait()
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// Out of file descriptors, most likely: the connection stays in the queue until there is one.
			time.Sleep(10 * time.Millisecond)
			continue
		}
		ctx, cancel := context.WithCancel(context.Background())
		l := &link{proxy: p, client: client, ctx: ctx, cancel: cancel}
		p.mu.Lock()
		refused := p.closed || p.fault.Mode == Refuse
		if !refused {
			p.links[l] = struct{}{}
		}
		p.mu.Unlock()
		if refused {
			l.reset()
			continue
		}
		p.running.Go(func() {
			defer func() {
				p.mu.Lock()
				delete(p.links, l)
				p.mu.Unlock()
				l.cancel()
			}()
			l.run()
		})
	}
}

// pass waits until bytes may pass in the direction. It reports false when the link ended first.
func (p *Proxy) pass(ctx context.Context, d direction) bool {
	for {
		p.mu.Lock()
		dropped, changed := p.fault.drops(d), p.changed
		p.mu.Unlock()
		if !dropped {
			return ctx.Err() == nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

func (p *Proxy) delay(d direction) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fault.delay(d)
}

// link is one connection of a client and its counterpart to the target.
type link struct {
	proxy  *Proxy
	client *net.TCPConn
	ctx    context.Context
	cancel context.CancelFunc

	mu     sync.Mutex
	server *net.TCPConn // nil until connected
}

// reset ends both connections the hard way: their peers see "connection reset".
func (l *link) reset() {
	l.cancel()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range []*net.TCPConn{l.client, l.server} {
		if c != nil {
			_ = c.SetLinger(0)
			c.Close()
		}
	}
}

func (l *link) run() {
	// A connection that is begun while nothing passes reaches the server after the heal.
	if l.proxy.Fault().Mode == Drop && !l.proxy.pass(l.ctx, requests) {
		return
	}
	dialer := net.Dialer{Timeout: 10 * time.Second}
	conn, err := dialer.DialContext(l.ctx, "tcp", l.proxy.target)
	if err != nil {
		l.reset()
		return
	}
	server := conn.(*net.TCPConn)
	l.mu.Lock()
	l.server = server
	l.mu.Unlock()
	if l.ctx.Err() != nil {
		l.reset()
		return
	}
	var both sync.WaitGroup
	both.Go(func() { l.pump(requests, l.client, server) })
	both.Go(func() { l.pump(responses, server, l.client) })
	both.Wait()
	l.client.Close()
	server.Close()
}

// chunk is a piece of a stream on its way; the last one carries the error that ended the stream.
type chunk struct {
	data []byte
	due  time.Time
	err  error
}

// pump moves one direction of the link. Bytes are written by the goroutine that read them, so that a proxy without a
// fault adds no hand-over between threads; from the first delay on, a queue keeps the reading independent of the writing.
func (l *link) pump(d direction, from, to *net.TCPConn) {
	var queue chan chunk
	var writer sync.WaitGroup
	defer writer.Wait()
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		c := chunk{data: buffer[:n], err: err}
		delay := l.proxy.delay(d)
		if delay > 0 && queue == nil {
			queue = make(chan chunk, 1024)
			defer close(queue)
			writer.Go(func() {
				for c := range queue {
					if !l.deliver(d, c, to) {
						return
					}
				}
			})
		}
		if queue != nil {
			c.data, c.due = append([]byte(nil), c.data...), time.Now().Add(delay)
			select {
			case queue <- c:
			case <-l.ctx.Done():
				return
			}
		} else if !l.deliver(d, c, to) {
			return
		}
		if err != nil {
			return
		}
	}
}

// deliver writes a chunk when it is due and may pass. It reports whether more can follow.
func (l *link) deliver(d direction, c chunk, to *net.TCPConn) bool {
	if wait := time.Until(c.due); !c.due.IsZero() && wait > 0 {
		select {
		case <-time.After(wait):
		case <-l.ctx.Done():
			return false
		}
	}
	if !l.proxy.pass(l.ctx, d) {
		return false
	}
	if len(c.data) > 0 {
		if _, err := to.Write(c.data); err != nil {
			l.reset()
			return false
		}
	}
	switch {
	case c.err == nil:
		return true
	case errors.Is(c.err, io.EOF):
		_ = to.CloseWrite()
	default:
		// A reset by one peer is a reset for the other.
		l.reset()
	}
	return false
}
