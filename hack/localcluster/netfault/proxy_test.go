// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package netfault

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// echo answers each line with the same line, and counts them.
type echo struct {
	listener net.Listener
	lines    atomic.Int32
}

func startEcho(t testing.TB) *echo {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e := &echo{listener: l}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				reader := bufio.NewReader(conn)
				for {
					line, err := reader.ReadString('\n')
					if err != nil {
						return
					}
					e.lines.Add(1)
					io.WriteString(conn, line)
				}
			}()
		}
	}()
	return e
}

type client struct {
	t testing.TB
	*net.TCPConn
	*bufio.Reader
}

func (c *client) Read(p []byte) (int, error) { return c.Reader.Read(p) }

func dial(t testing.TB, p *Proxy) *client {
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", p.Port()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &client{t, conn.(*net.TCPConn), bufio.NewReader(conn)}
}

func (c *client) send(line string) {
	c.t.Helper()
	if _, err := io.WriteString(c.TCPConn, line+"\n"); err != nil {
		c.t.Fatalf("send %q: %v", line, err)
	}
}

// receive returns the next line, or the error.
func (c *client) receive(timeout time.Duration) (string, error) {
	if err := c.SetReadDeadline(time.Now().Add(timeout)); err != nil {
		return "", err
	}
	line, err := c.ReadString('\n')
	return strings.TrimSuffix(line, "\n"), err
}

func (c *client) expect(want string) {
	c.t.Helper()
	if got, err := c.receive(5 * time.Second); err != nil || got != want {
		c.t.Fatalf("got %q, %v, want %q", got, err, want)
	}
}

// silent is how long a test waits for what must not come.
const silent = 150 * time.Millisecond

func (c *client) expectSilence() {
	c.t.Helper()
	if got, err := c.receive(silent); !errors.Is(err, os.ErrDeadlineExceeded) {
		c.t.Fatalf("got %q, %v, want silence", got, err)
	}
}

func (c *client) expectReset() {
	c.t.Helper()
	if got, err := c.receive(5 * time.Second); !errors.Is(err, syscall.ECONNRESET) {
		c.t.Fatalf("got %q, %v, want a reset", got, err)
	}
}

// expectRefused checks that a new connection is reset, which the client may see as early as in the dial.
func expectRefused(t *testing.T, p *Proxy) {
	t.Helper()
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", p.Port()))
	if errors.Is(err, syscall.ECONNRESET) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	(&client{t, conn.(*net.TCPConn), bufio.NewReader(conn)}).expectReset()
}

func newProxy(t testing.TB, target string) *Proxy {
	p, err := New(target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func fault(t *testing.T, p *Proxy, mode Mode, delay string) {
	t.Helper()
	f, err := Parse(string(mode), delay)
	if err != nil {
		t.Fatal(err)
	}
	p.Set(f)
}

func TestDroppedBytesArriveAfterTheHeal(t *testing.T) {
	for _, test := range []struct {
		mode    Mode
		arrives bool // the request reaches the server during the fault
	}{{Drop, false}, {DropRequests, false}, {DropResponses, true}} {
		t.Run(string(test.mode), func(t *testing.T) {
			server := startEcho(t)
			p := newProxy(t, server.listener.Addr().String())
			old := dial(t, p)
			old.send("one")
			old.expect("one")
			fault(t, p, test.mode, "")
			old.send("two")
			fresh := dial(t, p)
			fresh.send("three")
			old.expectSilence()
			fresh.expectSilence()
			if got, want := server.lines.Load() > 1, test.arrives; got != want {
				t.Errorf("the request reached the server: %v, want %v", got, want)
			}
			fault(t, p, Heal, "")
			old.expect("two")
			fresh.expect("three")
		})
	}
}

func TestRequestArrivesAfterItsSenderHasGone(t *testing.T) {
	server := startEcho(t)
	p := newProxy(t, server.listener.Addr().String())
	c := dial(t, p)
	c.send("one")
	c.expect("one")
	fault(t, p, Drop, "")
	c.send("late")
	c.Close()
	fault(t, p, Heal, "")
	for deadline := time.Now().Add(5 * time.Second); server.lines.Load() != 2; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the server got %d lines, want 2", server.lines.Load())
		}
	}
}

func TestRefuseResetsAllConnections(t *testing.T) {
	p := newProxy(t, startEcho(t).listener.Addr().String())
	old := dial(t, p)
	old.send("one")
	old.expect("one")
	fault(t, p, Refuse, "")
	old.expectReset()
	expectRefused(t, p)
	fault(t, p, Heal, "")
	fresh := dial(t, p)
	fresh.send("two")
	fresh.expect("two")
}

func TestDelayIsALatencyNotALimit(t *testing.T) {
	for _, mode := range []Mode{DelayRequests, DelayResponses} {
		t.Run(string(mode), func(t *testing.T) {
			p := newProxy(t, startEcho(t).listener.Addr().String())
			c := dial(t, p)
			fault(t, p, mode, "200ms")
			begin := time.Now()
			const lines = 10
			for i := range lines {
				c.send(fmt.Sprint(i))
			}
			for i := range lines {
				c.expect(fmt.Sprint(i))
			}
			// Ten lines that are under way together take about as long as one.
			if took := time.Since(begin); took < 200*time.Millisecond || took > time.Second {
				t.Errorf("took %s, want a little more than 200 ms", took)
			}
			fault(t, p, Heal, "")
			c.send("end")
			c.expect("end")
		})
	}
}

func TestEndsPassThrough(t *testing.T) {
	server := startEcho(t)
	p := newProxy(t, server.listener.Addr().String())
	c := dial(t, p)
	c.send("one")
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	c.expect("one")
	if _, err := c.receive(5 * time.Second); !errors.Is(err, io.EOF) {
		t.Errorf("got %v after the server's end, want EOF", err)
	}
	server.listener.Close()
	expectRefused(t, p) // nobody listens behind the proxy
	p.Close()
	if conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", p.Port())); err == nil {
		conn.Close()
		t.Error("a closed proxy accepts connections")
	}
}

func TestParse(t *testing.T) {
	for _, test := range []struct{ mode, delay, want string }{
		{"heal", "", "heal"},
		{"delay-requests", "300ms", "delay-requests 300ms"},
		{"delay-requests", "", "needs a duration"},
		{"delay-responses", "-1s", "needs a duration"},
		{"drop", "1s", "takes no duration"},
		{"dorp", "", "there are heal, refuse, drop, drop-requests, drop-responses, delay-requests, delay-responses"},
	} {
		f, err := Parse(test.mode, test.delay)
		got := f.String()
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, test.want) {
			t.Errorf("Parse(%q, %q): got %q, want %q", test.mode, test.delay, got, test.want)
		}
	}
}

// BenchmarkRoundTrip compares a connection through the proxy with a direct one.
func BenchmarkRoundTrip(b *testing.B) {
	server := startEcho(b)
	p := newProxy(b, server.listener.Addr().String())
	for name, address := range map[string]string{"direct": server.listener.Addr().String(), "proxy": fmt.Sprintf("127.0.0.1:%d", p.Port())} {
		b.Run(name, func(b *testing.B) {
			conn, err := net.Dial("tcp", address)
			if err != nil {
				b.Fatal(err)
			}
			defer conn.Close()
			reader := bufio.NewReader(conn)
			for b.Loop() {
				if _, err := io.WriteString(conn, "ping\n"); err != nil {
					b.Fatal(err)
				}
				if _, err := reader.ReadString('\n'); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
