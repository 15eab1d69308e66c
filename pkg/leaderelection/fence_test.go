// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package leaderelection

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	clientgo "k8s.io/client-go/tools/leaderelection"
)

// roundTripper counts and answers requests.
type roundTripper struct {
	calls atomic.Int32
	do    func(*http.Request) (*http.Response, error)
}

func (r *roundTripper) RoundTrip(req *http.Request) (*http.Response, error) {
	r.calls.Add(1)
	if r.do != nil {
		return r.do(req)
	}
	return answerOK(req), nil
}

func answerOK(req *http.Request) *http.Response {
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader("{}")), Request: req}
}

// fenceBench is an Elector that does not run, with a term that a test opens.
type fenceBench struct {
	elector *Elector
	clock   *simClock
	term    *Term
	next    *roundTripper
}

func newFenceBench(t *testing.T) *fenceBench {
	t.Helper()
	b := &fenceBench{clock: newSimClock(1, &simGate{}), next: &roundTripper{}}
	e, err := New(Config{Namespace: "ns", LeaseName: "lease", Identity: &Identity{name: oursA}, Clock: b.clock, api: simAPI{},
		Callbacks: clientgo.LeaderCallbacks{OnStartedLeading: func(context.Context) {}}})
	if err != nil {
		t.Fatal(err)
	}
	b.elector = e
	b.term = e.openTerm(context.Background(), b.clock.Read(), 42)
	return b
}

// open returns a transport behind a fence that is bound to the term.
func (b *fenceBench) open(t *testing.T) (*Fence, http.RoundTripper) {
	t.Helper()
	f := b.elector.NewFence()
	if err := f.Open(b.term.ctx); err != nil {
		t.Fatal(err)
	}
	return f, f.WrapTransport(b.next)
}

func request(ctx context.Context, method, target string) *http.Request {
	req, err := http.NewRequestWithContext(ctx, method, "https://server"+target, nil)
	if err != nil {
		panic(err)
	}
	return req
}

const configMap = "/api/v1/namespaces/x/configmaps/y"

// send sends a write and returns the error.
func send(rt http.RoundTripper) error {
	resp, err := rt.RoundTrip(request(context.Background(), http.MethodPut, configMap))
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

func TestClassify(t *testing.T) {
	tests := []struct {
		method, path, upgrade string
		want                  requestKind
	}{
		{"GET", configMap, "", unguarded},
		{"HEAD", configMap, "", unguarded},
		{"OPTIONS", configMap, "", unguarded},
		{"", configMap, "", unguarded},
		{"POST", "/api/v1/namespaces/x/configmaps", "", bounded},
		{"PUT", configMap, "", bounded},
		{"PATCH", configMap, "", bounded},
		{"DELETE", configMap, "", bounded},
		{"DELETE", "/api/v1/namespaces/x/configmaps", "", bounded},
		{"POST", "/apis/authentication.k8s.io/v1/tokenreviews", "", unguarded},
		{"POST", "/apis/authorization.k8s.io/v1/namespaces/x/localsubjectaccessreviews", "", unguarded},
		{"POST", "/prefix/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", "", unguarded},
		{"POST", "/api/v1/namespaces/x/services/y/proxy/apis/authentication.k8s.io/v1/tokenreviews", "", longRunning},
		{"POST", "/api/v1/namespaces/x/serviceaccounts/y/token", "", bounded},
		{"POST", "/api/v1/namespaces/x/pods/y/exec", "", longRunning},
		{"POST", "/prefix/api/v1/namespaces/x/pods/y/portforward", "", longRunning},
		{"PUT", "/api/v1/nodes/n/proxy/healthz", "", longRunning},
		{"PUT", "/api/v1/namespaces/x/configmaps/exec", "", bounded},
		{"PUT", "/api/v1/namespaces/x/finalize", "", bounded},
		{"PUT", "/api/v1/namespaces/exec/status", "", bounded},
		{"POST", "/apis/example.com/v1/namespaces/x/things/y/act", "websocket", longRunning},
		{"POST", "/custom", "", bounded},
	}
	for _, test := range tests {
		t.Run(test.method+" "+test.path, func(t *testing.T) {
			req := request(context.Background(), "POST", test.path)
			req.Method = test.method
			if test.upgrade != "" {
				req.Header.Set("Upgrade", test.upgrade)
			}
			if got := classify(req, "/prefix"); got != test.want {
				t.Errorf("got %d, want %d", got, test.want)
			}
		})
	}
}

func TestJudge(t *testing.T) {
	const f = time.Second
	tests := []struct {
		remaining     time.Duration
		closing, shut bool
		want          verdict
	}{
		{10 * f, false, false, pass}, {10 * f, true, false, pass}, {10 * f, false, true, refuse},
		{f + 1, true, false, pass}, {f, false, false, inDoubt}, {f, true, false, refuse},
		{-f, false, false, inDoubt}, {-f, true, false, refuse}, {-f, true, true, refuse},
	}
	for _, test := range tests {
		if got := judge(test.remaining, f, test.closing, test.shut); got != test.want {
			t.Errorf("remaining %v, closing %v, shut %v: %d, want %d", test.remaining, test.closing, test.shut, got, test.want)
		}
	}
}

func TestFenceRefusesWritesOutsideItsTerm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFenceBench(t)
		unbound := b.elector.NewFence()
		if err := send(unbound.WrapTransport(b.next)); !errors.Is(err, ErrNotLeader) {
			t.Errorf("before Open: %v", err)
		}
		if err := unbound.Open(context.Background()); !errors.Is(err, ErrNotLeader) {
			t.Errorf("Open without a term: %v", err)
		}
		other := newFenceBench(t)
		if err := unbound.Open(other.term.ctx); !errors.Is(err, ErrNotLeader) {
			t.Errorf("Open with the term of another lease: %v", err)
		}
		f, rt := b.open(t)
		if err := send(rt); err != nil {
			t.Errorf("in the term: %v", err)
		}
		if err := f.Open(b.term.ctx); err != nil {
			t.Errorf("Open again: %v", err)
		}
		if err := f.Open(b.elector.openTerm(context.Background(), b.clock.Read(), 43).ctx); !errors.Is(err, ErrNotLeader) {
			t.Errorf("Open with a later term: %v", err)
		}
		f.Shut()
		if err := send(rt); !errors.Is(err, ErrNotLeader) {
			t.Errorf("after Shut: %v", err)
		}
		if err := f.Open(b.term.ctx); !errors.Is(err, ErrNotLeader) {
			t.Errorf("Open after Shut: %v", err)
		}
		_, rt = b.open(t)
		b.term.shut()
		if err := send(rt); !errors.Is(err, ErrNotLeader) {
			t.Errorf("after the term: %v", err)
		}
		if err := b.elector.NewFence().Open(b.term.ctx); !errors.Is(err, ErrNotLeader) {
			t.Errorf("Open after the term: %v", err)
		}
		if err := b.term.Check(); !errors.Is(err, ErrNotLeader) {
			t.Errorf("Check after the term: %v", err)
		}
		if n := b.next.calls.Load(); n != 1 {
			t.Errorf("%d requests were sent, want 1", n)
		}
	})
}

func TestFenceLetsReadsAndReviewsPass(t *testing.T) {
	b := newFenceBench(t)
	rt := b.elector.NewFence().WrapTransport(b.next)
	for _, req := range []*http.Request{
		request(context.Background(), "GET", configMap),
		request(context.Background(), "POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"),
	} {
		resp, err := rt.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
	}
}

func TestFenceRefusesWritesAfterTheCutoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFenceBench(t)
		_, rt := b.open(t)
		b.term.close(errRenewDeadline)
		time.Sleep(b.term.timing.cutoff() - time.Millisecond)
		if err := send(rt); err != nil {
			t.Errorf("before the cutoff: %v", err)
		}
		time.Sleep(time.Millisecond)
		if err := send(rt); !errors.Is(err, ErrNotLeader) {
			t.Errorf("at the cutoff: %v", err)
		}
	})
}

func TestWritesInDoubtWait(t *testing.T) {
	tests := []struct {
		name string
		end  func(b *fenceBench, f *Fence, cancel context.CancelFunc)
		want error
		sent bool
	}{
		{"for the next renewal", func(b *fenceBench, _ *Fence, _ context.CancelFunc) { b.term.acknowledge(b.clock.Read()) }, nil, true},
		{"for the end of the term", func(b *fenceBench, _ *Fence, _ context.CancelFunc) { b.term.close(errTaken) }, ErrNotLeader, false},
		{"for the end of the run", func(_ *fenceBench, f *Fence, _ context.CancelFunc) { f.Shut() }, ErrNotLeader, false},
		{"while their caller does", func(_ *fenceBench, _ *Fence, cancel context.CancelFunc) { cancel() }, context.Canceled, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newFenceBench(t)
				asked := 0
				b.term.doubted = func() { asked++ }
				f, rt := b.open(t)
				b.clock.jumpWall(time.Hour)
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				done := make(chan error, 1)
				go func() {
					resp, err := rt.RoundTrip(request(ctx, "PUT", configMap))
					if err == nil {
						_ = resp.Body.Close()
					}
					done <- err
				}()
				synctest.Wait()
				if n := b.next.calls.Load(); n != 0 || asked == 0 {
					t.Fatalf("%d requests sent in doubt, asked for a renewal %d times", n, asked)
				}
				if err := b.term.Check(); !errors.Is(err, ErrNotLeader) {
					t.Errorf("Check in doubt: %v", err)
				}
				test.end(b, f, cancel)
				if err := <-done; !errors.Is(err, test.want) {
					t.Errorf("got %v, want %v", err, test.want)
				}
				if sent := b.next.calls.Load() == 1; sent != test.sent {
					t.Errorf("sent %v, want %v", sent, test.sent)
				}
			})
		})
	}
}

func TestWritesCarryWhatRemainsAsTimeout(t *testing.T) {
	tests := []struct {
		own  string
		want string
	}{
		{"", "10.7s"}, {"?timeout=30s", "10.7s"}, {"?timeout=3s", "3s"}, {"?timeout=soon", "soon"}, {"?dryRun=All", "10.7s"},
	}
	for _, test := range tests {
		t.Run(test.own, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newFenceBench(t)
				var query url.Values
				b.next.do = func(req *http.Request) (*http.Response, error) {
					query = req.URL.Query()
					return answerOK(req), nil
				}
				_, rt := b.open(t)
				time.Sleep(4 * time.Second)
				req := request(context.Background(), "PUT", configMap+test.own)
				before := req.URL.String()
				resp, err := rt.RoundTrip(req)
				if err != nil {
					t.Fatal(err)
				}
				_ = resp.Body.Close()
				if got := query.Get("timeout"); got != test.want {
					t.Errorf("timeout %q, want %q", got, test.want)
				}
				if strings.Contains(test.own, "dryRun") && query.Get("dryRun") != "All" {
					t.Errorf("query %v lost a parameter", query)
				}
				if req.URL.String() != before {
					t.Errorf("the caller's request was changed to %s", req.URL)
				}
			})
		})
	}
}

// hang answers when told to, or fails when its context ends.
func hang(release <-chan struct{}) func(*http.Request) (*http.Response, error) {
	return func(req *http.Request) (*http.Response, error) {
		select {
		case <-release:
			return answerOK(req), nil
		case <-req.Context().Done():
			return nil, context.Cause(req.Context())
		}
	}
}

func TestWritesAreCutOffWhenTheValidityEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFenceBench(t)
		b.next.do = hang(nil)
		_, rt := b.open(t)
		began := time.Now()
		err := send(rt)
		if !errors.Is(err, errCutOff) || errors.Is(err, ErrNotLeader) {
			t.Errorf("got %v", err)
		}
		if d := time.Since(began); d < b.term.timing.deadline() || d > b.term.timing.deadline()+time.Millisecond {
			t.Errorf("cut off after %v, want %v", d, b.term.timing.deadline())
		}
	})
}

func TestWritesOfCallersThatLeftAreStillInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFenceBench(t)
		release := make(chan struct{})
		b.next.do = hang(release)
		_, rt := b.open(t)
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if _, err := rt.RoundTrip(request(ctx, "PUT", configMap)); !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v", err)
		}
		b.term.shut()
		synctest.Wait()
		if b.term.settled() || b.term.flying() != 1 {
			t.Fatal("the term is settled although the server has not answered")
		}
		close(release)
		synctest.Wait()
		if !b.term.settled() || b.term.flying() != 0 {
			t.Error("the term is not settled although the server has answered")
		}
	})
}

func TestSeveredTermCutsOffItsWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFenceBench(t)
		b.next.do = hang(nil)
		_, rt := b.open(t)
		done := make(chan error)
		go func() { done <- send(rt) }()
		synctest.Wait()
		b.term.sever()
		if err := <-done; !errors.Is(err, errCutOff) {
			t.Errorf("got %v", err)
		}
		<-b.term.idle
	})
}

func TestLongRunningRequestsEndWithTheFence(t *testing.T) {
	ends := map[string]func(*fenceBench, *Fence){
		"run":  func(_ *fenceBench, f *Fence) { f.Shut() },
		"term": func(b *fenceBench, _ *Fence) { b.term.shut() },
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newFenceBench(t)
				server, client := newDuplex(), newDuplex()
				b.next.do = func(req *http.Request) (*http.Response, error) {
					if req.URL.Query().Has("timeout") {
						t.Error("a long-running request has a timeout")
					}
					return &http.Response{StatusCode: http.StatusSwitchingProtocols, Body: client, Request: req}, nil
				}
				f, rt := b.open(t)
				req := request(context.Background(), "POST", "/api/v1/namespaces/x/pods/y/exec")
				resp, err := rt.RoundTrip(req)
				if err != nil {
					t.Fatal(err)
				}
				if _, ok := resp.Body.(io.Writer); !ok {
					t.Error("the upgraded connection is not writable")
				}
				time.Sleep(10 * time.Second)
				if b.term.flying() != 1 {
					t.Error("it is not in flight")
				}
				end(b, f)
				synctest.Wait()
				if !client.closed.Load() || b.term.flying() != 0 {
					t.Error("it goes on")
				}
				_ = server.Close()
			})
		})
	}
}

// duplex is an upgraded connection.
type duplex struct{ closed atomic.Bool }

func newDuplex() *duplex { return &duplex{} }

func (d *duplex) Read([]byte) (int, error)    { return 0, io.EOF }
func (d *duplex) Write(p []byte) (int, error) { return len(p), nil }
func (d *duplex) Close() error                { d.closed.Store(true); return nil }

// TestRefusalSurvivesClientGo sends a refused write through a real clientset.
func TestRefusalSurvivesClientGo(t *testing.T) {
	b := newFenceBench(t)
	f := b.elector.NewFence()
	client, err := kubernetes.NewForConfig(&rest.Config{Host: "https://server", Transport: b.next, WrapTransport: f.WrapTransport})
	if err != nil {
		t.Fatal(err)
	}
	_, err = client.CoreV1().ConfigMaps("x").Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "y"}}, metav1.CreateOptions{})
	if !errors.Is(err, ErrNotLeader) {
		t.Errorf("got %v", err)
	}
	var marked interface{ NotLeader() bool }
	if !errors.As(err, &marked) || !marked.NotLeader() {
		t.Errorf("%v has no method NotLeader", err)
	}
	if n := b.next.calls.Load(); n != 0 {
		t.Errorf("%d requests were sent", n)
	}
}

func TestTermAcknowledgementsNeverGoBack(t *testing.T) {
	b := newFenceBench(t)
	s := b.clock.Read()
	later := Reading{s.Boot + 10, s.Mono + 10, s.Wall + 10}
	if !b.term.acknowledge(later) || b.term.acknowledge(s) || b.term.ackedAt() != later {
		t.Errorf("acknowledged at %+v, want %+v", b.term.ackedAt(), later)
	}
}

func TestTermFrom(t *testing.T) {
	b := newFenceBench(t)
	ctx, cancel := context.WithCancel(b.term.ctx)
	defer cancel()
	if TermFrom(ctx) != b.term || TermFrom(context.Background()) != nil {
		t.Error("the term is not found in its context, or elsewhere")
	}
	if got := TermFrom(ctx).Epoch(); got != 42 {
		t.Errorf("epoch %d", got)
	}
}
