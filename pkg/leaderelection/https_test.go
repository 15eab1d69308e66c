// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package leaderelection

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	clientgo "k8s.io/client-go/tools/leaderelection"
)

// leaseHandler is a simServer behind HTTPS, in JSON, with notes of who asked
// for what.
type leaseHandler struct {
	*simServer
	server *httptest.Server

	mu    sync.Mutex
	calls []call
	hangs map[string]int // requests of that method that get no answer
	other http.Handler   // for whatever is not a lease
}

// call is one request.
type call struct {
	method, proto, remote, query string
	watch                        bool
	lease                        coordinationv1.Lease
}

func newLeaseHandler(t *testing.T) *leaseHandler {
	h := &leaseHandler{simServer: newSimServer(), hangs: map[string]int{}}
	h.server = httptest.NewUnstartedServer(h)
	h.server.EnableHTTP2 = true
	h.server.StartTLS()
	t.Cleanup(h.server.Close)
	return h
}

func (h *leaseHandler) config() *rest.Config {
	return &rest.Config{Host: h.server.URL, TLSClientConfig: rest.TLSClientConfig{Insecure: true}}
}

func (h *leaseHandler) seen() []call {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]call(nil), h.calls...)
}

func (h *leaseHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	const path = "/apis/coordination.k8s.io/v1/namespaces/ns/leases"
	if !strings.HasPrefix(r.URL.Path, path) && h.other != nil {
		h.other.ServeHTTP(w, r)
		return
	}
	c := call{method: r.Method, proto: r.Proto, remote: r.RemoteAddr, query: r.URL.RawQuery, watch: r.URL.Query().Get("watch") == "true"}
	_ = json.NewDecoder(r.Body).Decode(&c.lease)
	h.mu.Lock()
	h.calls = append(h.calls, c)
	hang := h.hangs[r.Method] > 0
	if hang {
		h.hangs[r.Method]--
	}
	h.mu.Unlock()
	if hang {
		<-r.Context().Done()
		return
	}
	var answer any
	var err error
	switch {
	case r.Method == http.MethodPost && r.URL.Path == path:
		answer, err = h.create("http", &c.lease)
	case r.Method == http.MethodPut && r.URL.Path == path+"/lease":
		answer, err = h.update("http", &c.lease)
	case r.Method == http.MethodGet && r.URL.Path == path+"/lease":
		answer, err = h.get()
	case c.watch:
		h.watch(w, r)
		return
	case r.Method == http.MethodGet && r.URL.Path == path:
		lease, version := h.list(0)
		leases := &coordinationv1.LeaseList{ListMeta: metav1.ListMeta{ResourceVersion: version}}
		if lease != nil {
			leases.Items = append(leases.Items, *lease)
		}
		answer = leases
	default:
		err = apierrors.NewMethodNotSupported(leaseResource, r.Method+" "+r.URL.Path)
	}
	w.Header().Set("Content-Type", "application/json")
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		s := status.Status()
		w.WriteHeader(int(s.Code))
		answer = &s
	}
	_ = json.NewEncoder(w).Encode(answer)
}

func (h *leaseHandler) watch(w http.ResponseWriter, r *http.Request) {
	version, _ := strconv.ParseInt(r.URL.Query().Get("resourceVersion"), 10, 64)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	flush := w.(http.Flusher).Flush
	flush()
	for {
		events, reached, changed := h.since(version)
		for _, e := range events {
			lease := e.Object.DeepCopyObject().(*coordinationv1.Lease)
			lease.Kind, lease.APIVersion = "Lease", "coordination.k8s.io/v1"
			raw, _ := json.Marshal(lease)
			_, _ = fmt.Fprintf(w, "{\"type\":%q,\"object\":%s}\n", e.Type, raw)
			flush()
		}
		version = reached
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		}
	}
}

func TestRESTClientSpeaksToTheAPIServer(t *testing.T) {
	h := newLeaseHandler(t)
	api, err := newRESTAPI(h.config(), "ns", "lease")
	if err != nil {
		t.Fatal(err)
	}
	defer api.close()
	ctx := t.Context()
	if _, err := api.get(ctx); !apierrors.IsNotFound(err) {
		t.Fatalf("get: %v", err)
	}
	lease, version, err := api.list(ctx)
	if err != nil || lease != nil || version != "100" {
		t.Fatalf("list: %v, %s, %v", lease, version, err)
	}
	w, err := api.watch(ctx, version, 5*time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	holder := "a"
	created, err := api.create(ctx, &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "lease"}, Spec: coordinationv1.LeaseSpec{HolderIdentity: &holder}})
	if err != nil {
		t.Fatal(err)
	}
	if e := <-w.ResultChan(); e.Type != watch.Added || e.Object.(*coordinationv1.Lease).ResourceVersion != "101" {
		t.Errorf("event %+v", e)
	}
	if _, err := api.create(ctx, created); !apierrors.IsAlreadyExists(err) {
		t.Errorf("create again: %v", err)
	}
	updated, err := api.update(ctx, created)
	if err != nil || updated.ResourceVersion != "102" {
		t.Fatalf("update: %+v, %v", updated, err)
	}
	if _, err := api.update(ctx, created); !apierrors.IsConflict(err) {
		t.Errorf("update of an old version: %v", err)
	}
	h.delete()
	if _, err := api.update(ctx, updated); !apierrors.IsConflict(err) {
		t.Errorf("update of a deleted lease: %v, it must not be created", err)
	}
	w.Stop()

	conns := map[string]map[string]bool{}
	for _, c := range h.seen() {
		kind := c.method
		if c.method == http.MethodGet && c.query == "" {
			kind = "GET one"
		}
		if c.method == http.MethodPost {
			kind = http.MethodPut
		}
		if conns[kind] == nil {
			conns[kind] = map[string]bool{}
		}
		conns[kind][c.remote] = true
		if c.proto != "HTTP/1.1" {
			t.Errorf("%s %s came as %s", c.method, c.query, c.proto)
		}
		if strings.Contains(c.query, "resourceVersion=0") || kind == "GET" && !strings.Contains(c.query, "fieldSelector=metadata.name%3Dlease") {
			t.Errorf("%s with %s", c.method, c.query)
		}
		if c.watch && (!strings.Contains(c.query, "allowWatchBookmarks=true") || !strings.Contains(c.query, "timeoutSeconds=300") || !strings.Contains(c.query, "resourceVersion=100")) {
			t.Errorf("watch with %s", c.query)
		}
	}
	for a, ra := range conns {
		for b, rb := range conns {
			for remote := range ra {
				if a != b && rb[remote] {
					t.Errorf("%s and %s share the connection from %s", a, b, remote)
				}
			}
		}
	}
	if len(conns[http.MethodPut]) != 1 {
		t.Errorf("writes used %d connections", len(conns[http.MethodPut]))
	}
}

// TestElectorsHandOverHTTPS runs two electors on real connections.
func TestElectorsHandOverHTTPS(t *testing.T) {
	h := newLeaseHandler(t)
	started := make(chan string, 10)
	seen := make(chan string, 10)
	run := func(name string) (*Elector, context.CancelFunc, <-chan error) {
		e, err := New(Config{Namespace: "ns", LeaseName: "lease", REST: h.config(), Identity: &Identity{name: strings.Replace(oursA, "a_", name+"_", 1)},
			Callbacks: clientgo.LeaderCallbacks{OnStartedLeading: func(ctx context.Context) {
				started <- name
				<-ctx.Done()
			}, OnNewLeader: func(id string) {
				if name == "b" {
					seen <- id
				}
			}}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- e.Run(ctx) }()
		return e, cancel, done
	}
	a, stopA, doneA := run("a")
	if got := <-started; got != "a" {
		t.Fatalf("%s leads", got)
	}
	b, stopB, doneB := run("b")
	if got := <-seen; got != a.Status().Identity {
		t.Errorf("the standby sees %s", got)
	}
	if s := a.Status(); s.State != StateLeading || !s.FenceOpen || s.Epoch == 0 || !s.Contacted || !s.Leading() {
		t.Errorf("leader's status %+v", s)
	}
	if s := b.Status(); s.State != StateObserving || s.FenceOpen || s.Holder != a.Status().Identity {
		t.Errorf("standby's status %+v", s)
	}
	stopA()
	if err := <-doneA; err != nil {
		t.Errorf("a: %v", err)
	}
	if got := <-started; got != "b" {
		t.Fatalf("%s leads", got)
	}
	stopB()
	if err := <-doneB; err != nil {
		t.Errorf("b: %v", err)
	}
	for _, c := range h.seen() {
		if c.method == http.MethodPut && (c.lease.UID == "" || c.lease.ResourceVersion == "") {
			t.Errorf("a PUT without uid or version: %+v", c.lease.ObjectMeta)
		}
	}
	if err := b.Run(t.Context()); err == nil {
		t.Error("an Elector ran twice")
	}
}

// TestTriesThatHangTakeTheirConnectionAlong wants a renewal without an answer to
// be repeated on another connection.
func TestTriesThatHangTakeTheirConnectionAlong(t *testing.T) {
	h := newLeaseHandler(t)
	api, err := newRESTAPI(h.config(), "ns", "lease")
	if err != nil {
		t.Fatal(err)
	}
	defer api.close()
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "lease"}}
	if lease, err = api.create(t.Context(), lease); err != nil {
		t.Fatal(err)
	}
	h.mu.Lock()
	h.hangs[http.MethodPut] = 1
	h.mu.Unlock()
	ctx, cancel := withTimeout(t.Context(), systemClock{}, 50*time.Millisecond)
	defer cancel()
	if _, err := api.update(ctx, lease); err == nil {
		t.Fatal("an answer came from nowhere")
	}
	if _, err := api.update(t.Context(), lease); err != nil {
		t.Fatal(err)
	}
	calls := h.seen()
	if a, b := calls[1].remote, calls[2].remote; a == b {
		t.Error("the connection that hung was used again")
	}
}

// TestGuardedWritesHaveConnectionsOfTheirOwn sends reads and writes through a
// fence over HTTPS, and ends the term.
func TestGuardedWritesHaveConnectionsOfTheirOwn(t *testing.T) {
	h := newLeaseHandler(t)
	var mu sync.Mutex
	remotes := map[string]map[string]bool{"GET": {}, "PUT": {}}
	release, arrived := make(chan struct{}), make(chan struct{})
	h.other = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		remotes[r.Method][r.RemoteAddr] = true
		mu.Unlock()
		if r.Header.Get("Authorization") != "Bearer secret" {
			http.Error(w, "who?", http.StatusUnauthorized)
			return
		}
		if r.URL.Query().Get("hang") != "" {
			close(arrived)
			select {
			case <-release:
			case <-r.Context().Done():
			}
		}
	})
	defer close(release)
	cfg := h.config()
	cfg.BearerToken = "secret"
	e, err := New(Config{Namespace: "ns", LeaseName: "lease", REST: cfg, Identity: &Identity{name: oursA},
		Callbacks: clientgo.LeaderCallbacks{OnStartedLeading: func(context.Context) {}}})
	if err != nil {
		t.Fatal(err)
	}
	term := e.openTerm(t.Context(), e.cfg.Clock.Read(), 1)
	f := e.NewFence()
	if err := f.Open(term.ctx); err != nil {
		t.Fatal(err)
	}
	clientCfg := rest.CopyConfig(cfg)
	clientCfg.WrapTransport = f.WrapTransport
	client, err := rest.HTTPClientFor(clientCfg)
	if err != nil {
		t.Fatal(err)
	}
	defer client.CloseIdleConnections()
	do := func(method, query string) error {
		req, err := http.NewRequestWithContext(t.Context(), method, h.server.URL+configMap+query, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("status %d", resp.StatusCode)
		}
		return nil
	}
	for _, method := range []string{"GET", "PUT", "PUT", "GET"} {
		if err := do(method, ""); err != nil {
			t.Fatalf("%s: %v", method, err)
		}
	}
	mu.Lock()
	for remote := range remotes["PUT"] {
		if remotes["GET"][remote] {
			t.Errorf("reads and writes share the connection from %s", remote)
		}
	}
	if len(remotes["PUT"]) != 1 {
		t.Errorf("two writes used %d connections", len(remotes["PUT"]))
	}
	mu.Unlock()
	term.mu.Lock()
	conns := len(term.conns)
	term.mu.Unlock()
	if conns != 1 {
		t.Errorf("%d guarded connections, want 1", conns)
	}
	failed := make(chan error)
	go func() { failed <- do("PUT", "?hang=1") }()
	<-arrived
	if n := term.flying(); n != 1 {
		t.Errorf("%d writes in flight, want 1", n)
	}
	term.sever()
	if err := <-failed; err == nil {
		t.Error("a write survived the end of its term")
	}
	if err := do("PUT", ""); !errors.Is(err, ErrNotLeader) {
		t.Errorf("a write after the term: %v", err)
	}
	if err := do("GET", ""); err != nil {
		t.Errorf("a read after the term: %v", err)
	}
	<-term.idle
	e.api.close()
}

// TestGuardedConnectionsLookAtTheClock writes to a guarded connection before and
// after the validity has ended.
func TestGuardedConnectionsLookAtTheClock(t *testing.T) {
	b := newFenceBench(t)
	dial := guardedDialer(func(context.Context, string, string) (net.Conn, error) {
		client, server := net.Pipe()
		go func() {
			buf := make([]byte, 16)
			for {
				if _, err := server.Read(buf); err != nil {
					return
				}
			}
		}()
		return client, nil
	}, b.term)
	conn, err := dial(t.Context(), "tcp", "x")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	b.clock.suspend(b.term.timing.cutoff())
	if _, err := conn.Write([]byte("x")); err != nil {
		t.Errorf("a write that passed may go on past the cutoff: %v", err)
	}
	b.clock.suspend(b.term.timing.InFlightBudget)
	if _, err := conn.Write([]byte("x")); !errors.Is(err, errConnFenced) {
		t.Errorf("past the validity: %v", err)
	}
	b.term.sever()
	if _, err := dial(t.Context(), "tcp", "x"); !errors.Is(err, errConnFenced) {
		t.Errorf("a dial after the term: %v", err)
	}
}

func TestHostPrefix(t *testing.T) {
	for host, want := range map[string]string{"": "", "https://a:6443": "", "https://a/": "", "https://a/k8s/clusters/c1/": "/k8s/clusters/c1", "a:6443": "", "127.0.0.1": ""} {
		if got := hostPrefix(&rest.Config{Host: host}); got != want {
			t.Errorf("%q: %q, want %q", host, got, want)
		}
	}
}
