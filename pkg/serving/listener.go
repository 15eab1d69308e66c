// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package serving

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
)

const (
	// maxConnections bounds the connections at a time.
	maxConnections = 1000
	// maxUnanswered bounds, in bytes, what is taken from a client between two answers:
	// the headers and the body of a request with all that TLS adds. net/http takes
	// headers of a megabyte, which is more than a process with a memory limit can
	// hold for every stranger.
	maxUnanswered = 128 << 10
)

// errUnanswered ends a connection.
var errUnanswered = errors.New("the client has sent too much without an answer")

// frugal is a listener whose connections together cannot take much memory.
type frugal struct {
	net.Listener
	open atomic.Int32
}

// Accept implements net.Listener. What is too many is closed at once.
func (f *frugal) Accept() (net.Conn, error) {
	for {
		conn, err := f.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if f.open.Add(1) <= maxConnections {
			return &rationed{Conn: conn, closed: func() { f.open.Add(-1) }}, nil
		}
		f.open.Add(-1)
		_ = conn.Close()
	}
}

// rationed is a connection that ends when its client sends too much at a time.
type rationed struct {
	net.Conn
	unanswered atomic.Int64 // bytes read since the last write
	once       sync.Once
	closed     func()
}

// Read implements net.Conn.
func (r *rationed) Read(data []byte) (int, error) {
	n, err := r.Conn.Read(data)
	if r.unanswered.Add(int64(n)) > maxUnanswered {
		return 0, errUnanswered
	}
	return n, err
}

// Write implements net.Conn.
func (r *rationed) Write(data []byte) (int, error) {
	r.unanswered.Store(0)
	return r.Conn.Write(data)
}

// Close implements net.Conn.
func (r *rationed) Close() error {
	r.once.Do(r.closed)
	return r.Conn.Close()
}
