// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package leaderelection

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/transport"
)

// dialFunc dials as rest.Config's Dial does.
type dialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// leaseDialTimeout bounds a dial of the lease clients. Whoever waits longer for
// an address that swallows packets finds out too late that it is back.
const leaseDialTimeout = time.Second

// leaseDialer dials for the lease clients.
func leaseDialer(own dialFunc) dialFunc {
	if own != nil {
		return own
	}
	return (&net.Dialer{
		Timeout: leaseDialTimeout,
		// A watch only reads: without probes it would not notice a dead path.
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 5 * time.Second, Count: 3},
	}).DialContext
}

// guardedTransport returns the transport for the guarded writes of a term. Its
// connections are the term's own, so that the end of the term closes them and no
// read is disturbed; their Write looks at the clock once more.
func guardedTransport(cfg *rest.Config, t *Term) (http.RoundTripper, error) {
	cfg = rest.CopyConfig(cfg)
	cfg.Dial = guardedDialer(cfg.Dial, t)
	tc, err := cfg.TransportConfig()
	if err != nil {
		return nil, err
	}
	// The client whose request this carries has put in the credentials. Only TLS
	// and the proxy are this transport's business.
	return transport.New(&transport.Config{
		TLS:                tc.TLS,
		DialHolder:         tc.DialHolder,
		Proxy:              tc.Proxy,
		DisableCompression: tc.DisableCompression,
	})
}

func guardedDialer(own dialFunc, t *Term) dialFunc {
	budget := t.timing.InFlightBudget
	if own == nil {
		own = (&net.Dialer{
			Timeout: 5 * time.Second,
			Control: func(_, _ string, c syscall.RawConn) error {
				setUserTimeout(c, budget)
				return nil
			},
		}).DialContext
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := own(ctx, network, address)
		if err != nil {
			return nil, err
		}
		guarded := &guardedConn{Conn: c, term: t}
		if !t.track(guarded) {
			_ = c.Close()
			return nil, errConnFenced
		}
		return guarded, nil
	}
}

var errConnFenced = errors.New("the fence closed the connection: the term is over")

// guardedConn sends nothing once the validity of the lease has ended, which is
// as near to the wire as a program can look at the clock.
type guardedConn struct {
	net.Conn
	term *Term
}

func (c *guardedConn) Write(b []byte) (int, error) {
	if !c.term.mayWrite() {
		_ = c.Close()
		return 0, errConnFenced
	}
	return c.Conn.Write(b)
}

func (c *guardedConn) Close() error {
	c.term.untrack(c)
	return c.Conn.Close()
}

// hostPrefix returns the path that all URLs of the API server begin with, ""
// for most.
func hostPrefix(cfg *rest.Config) string {
	if cfg == nil {
		return ""
	}
	base, err := url.Parse(cfg.Host)
	if err != nil || !strings.Contains(cfg.Host, "://") {
		return ""
	}
	return strings.TrimSuffix(base.Path, "/")
}
