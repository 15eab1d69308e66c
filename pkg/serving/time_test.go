// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package serving_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"

	"github.com/incumbent-io/incumbent/pkg/serving"
)

// pipes is a listener without a network, so that time can be that of a bubble.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
}

func newPipes() *pipes { return &pipes{make(chan net.Conn), make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case conn := <-p.conns:
		return conn, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	select {
	case <-p.closed:
	default:
		close(p.closed)
	}
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }

// dial returns a new connection to the listener.
func (p *pipes) dial() net.Conn {
	client, server := net.Pipe()
	p.conns <- server
	return client
}

// bubble is a server in a bubble. It answers every path to everybody, or, if there is an
// api, by what that says.
type bubble struct {
	api       http.RoundTripper
	configure func(*serving.Config) // may be nil
	handler   http.Handler
}

func (b bubble) run(t *testing.T, test func(t *testing.T, p *pipes, stop func())) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		listener := newPipes()
		config := serving.Defaults("test", 0)
		config.SecureServing.Listener = listener
		config.Authorization.AlwaysAllowPaths = []string{"/*"}
		if b.api != nil {
			config.Authorization.AlwaysAllowPaths = []string{"/livez"}
			config.REST = &rest.Config{Host: "http://api.test", Transport: b.api}
		}
		if b.configure != nil {
			b.configure(&config)
		}
		server, err := serving.Listen(config)
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- server.Serve(ctx, b.handler) }()
		test(t, listener, stop)
		stop()
		if err := <-ended; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
}

// over speaks TLS over a connection.
func over(t *testing.T, conn net.Conn) *tls.Conn {
	t.Helper()
	secure := tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
	if err := secure.Handshake(); err != nil {
		t.Fatal(err)
	}
	return secure
}

func TestClientsThatKeepItWaitingAreCutOff(t *testing.T) {
	for name, tc := range map[string]struct {
		send string // after the handshake; none without
		want time.Duration
	}{
		"no handshake":        {"", 32 * time.Second},
		"half of the headers": {"GET /livez HTTP/1.1\r\nHost: x\r\n", 32 * time.Second},
		"no body":             {"PUT /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n", 32 * time.Second},
		"a body without end":  {"PUT /livez HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n", 32 * time.Second},
		"no second request":   {"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n", 90 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			reader := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
			bubble{handler: reader}.run(t, func(t *testing.T, p *pipes, _ func()) {
				conn := p.dial()
				if tc.send != "" {
					conn = over(t, conn)
					if _, err := io.WriteString(conn, tc.send); err != nil {
						t.Fatal(err)
					}
				}
				began := time.Now()
				_, _ = io.Copy(io.Discard, conn)
				if got := time.Since(began).Round(time.Second); got != tc.want {
					t.Errorf("the connection was closed after %v, want %v", got, tc.want)
				}
				_ = conn.Close()
			})
		})
	}
}

func TestRunningRequestsGetTwoSecondsAtTheEnd(t *testing.T) {
	for name, tc := range map[string]struct {
		takes time.Duration
		want  bool // it is answered
	}{
		"one that is quick": {time.Second, true},
		"one that is not":   {time.Minute, false},
	} {
		t.Run(name, func(t *testing.T) {
			began := make(chan struct{})
			slow := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				close(began)
				select {
				case <-time.After(tc.takes):
				case <-r.Context().Done():
				}
			})
			bubble{handler: slow}.run(t, func(t *testing.T, p *pipes, stop func()) {
				conn := over(t, p.dial())
				if _, err := io.WriteString(conn, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
					t.Fatal(err)
				}
				<-began
				stop()
				at := time.Now()
				_, err := http.ReadResponse(bufio.NewReader(conn), nil)
				if got := err == nil; got != tc.want {
					t.Errorf("answered: %v (%v), want %v", got, err, tc.want)
				}
				if took := time.Since(at); took > 2*time.Second {
					t.Errorf("the end took %v, want 2 s at most", took)
				}
				_ = conn.Close()
			})
		})
	}
}

// reviews answers reviews in the process, and can be away.
type reviews struct {
	away  bool
	known bool
	seen  []string
}

func (r *reviews) RoundTrip(request *http.Request) (*http.Response, error) {
	kind := request.URL.Path[strings.LastIndexByte(request.URL.Path, '/')+1:]
	r.seen = append(r.seen, kind)
	if r.away {
		return nil, errors.New("connection refused")
	}
	var answer runtime.Object
	var version schema.GroupVersion
	switch kind {
	case "tokenreviews":
		answer, version = &authenticationv1.TokenReview{Status: authenticationv1.TokenReviewStatus{Authenticated: r.known, User: authenticationv1.UserInfo{Username: "alice"}}}, authenticationv1.SchemeGroupVersion
	default:
		answer, version = &authorizationv1.SubjectAccessReview{Status: authorizationv1.SubjectAccessReviewStatus{Allowed: r.known}}, authorizationv1.SchemeGroupVersion
	}
	body, err := runtime.Encode(scheme.Codecs.LegacyCodec(version), answer)
	if err != nil {
		return nil, err
	}
	return &http.Response{
		StatusCode: 200, Request: request,
		Header: http.Header{"Content-Type": {"application/json"}},
		Body:   io.NopCloser(strings.NewReader(string(body))),
	}, nil
}

// TestAnswersCountForTenSecondsAndFailuresForOne follows one token over time.
func TestAnswersCountForTenSecondsAndFailuresForOne(t *testing.T) {
	api := &reviews{away: true, known: true}
	bubble{api: api, handler: echo}.run(t, func(t *testing.T, p *pipes, _ func()) {
		ask := func() string {
			before := len(api.seen)
			conn := over(t, p.dial())
			defer func() { _ = conn.NetConn().Close() }() // without TLS's farewell, which takes time in a pipe
			if _, err := io.WriteString(conn, "GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer t\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			response, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			return fmt.Sprint(response.StatusCode, api.seen[before:])
		}
		var log []string
		note := func(what string) { log = append(log, what+": "+ask()) }
		note("away")
		note("at once")
		time.Sleep(1100 * time.Millisecond)
		note("a second later")
		api.away = false
		note("back, at once")
		time.Sleep(1100 * time.Millisecond)
		note("a second later")
		api.known = false
		time.Sleep(8 * time.Second)
		note("revoked")
		time.Sleep(2100 * time.Millisecond)
		note("ten seconds later")
		api.known = true
		time.Sleep(9 * time.Second)
		note("known again")
		time.Sleep(2 * time.Second)
		note("ten seconds later")
		want := []string{
			"away: 503 [tokenreviews]",
			"at once: 503 []",
			"a second later: 503 [tokenreviews]",
			"back, at once: 503 []",
			"a second later: 200 [tokenreviews subjectaccessreviews]",
			"revoked: 200 []",
			"ten seconds later: 401 [tokenreviews]",
			"known again: 401 []",
			"ten seconds later: 200 [tokenreviews subjectaccessreviews]",
		}
		if diff := cmp.Diff(want, log); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// TestFilesThatCannotBeUsedChangeNothing has certificates without their key, and CAs that
// are none.
func TestFilesThatCannotBeUsedChangeNothing(t *testing.T) {
	dir := t.TempDir()
	put := func(name string, content []byte) { must(t, os.WriteFile(filepath.Join(dir, name), content, 0o600)) }
	var ca *authority // of the bubble's time
	served := bubble{api: &reviews{known: true}, handler: echo, configure: func(config *serving.Config) {
		ca = newAuthority(t)
		certificate, key := ca.issue(t, "first.example")
		put("tls.crt", certificate)
		put("tls.key", key)
		put("ca.crt", ca.pem)
		config.SecureServing.CertFile, config.SecureServing.KeyFile = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
		config.Authentication.ClientCAFile = filepath.Join(dir, "ca.crt")
	}}
	served.run(t, func(t *testing.T, p *pipes, _ func()) {
		alice, err := tls.X509KeyPair(ca.issue(t, "alice"))
		must(t, err)
		expect := func(moment, server string, status int) {
			t.Helper()
			time.Sleep(2 * time.Second) // bubble time, after which the files are read again
			conn := tls.Client(p.dial(), &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{alice}})
			defer func() { _ = conn.NetConn().Close() }()
			must(t, conn.Handshake())
			go func() { _, _ = io.WriteString(conn, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n") }() // beside what the server sends after a handshake
			response, err := http.ReadResponse(bufio.NewReader(conn), nil)
			must(t, err)
			if got := conn.ConnectionState().PeerCertificates[0].Subject.CommonName; got != server || response.StatusCode != status {
				t.Errorf("%s: the certificate of %s, status %d; want %s, %d", moment, got, response.StatusCode, server, status)
			}
		}
		expect("at first", "first.example", 200)
		certificate, key := ca.issue(t, "second.example")
		put("tls.crt", certificate)
		expect("the key is not there yet", "first.example", 200)
		put("tls.key", key)
		expect("the key is there", "second.example", 200)
		must(t, os.Remove(filepath.Join(dir, "tls.key")))
		expect("the key is gone", "second.example", 200)
		put("ca.crt", []byte("no certificate"))
		expect("the CA is broken", "second.example", 200)
		put("ca.crt", newAuthority(t).pem)
		expect("another CA", "second.example", 401)
	})
}
