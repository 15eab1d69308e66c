// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package clients

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/rest"
)

// apiServer speaks as much of the API as lists and watches need, over TLS and
// HTTP/2 on a network in memory, so that tests with its faults run in the fake
// time of a synctest bubble.
type apiServer struct {
	network *network
	server  *http.Server
	stop    chan struct{}

	mu       sync.Mutex
	changed  chan struct{}
	revision int
	objects  map[string]map[string]object // by resource, then namespace/name
	history  []event
	oldest   int // a watch from before this revision is refused as expired
	requests []string
	accepts  map[string]string
	open     map[string]int // watches by resource
	refuse   func(*http.Request) int
	noStream bool          // refuses to stream lists, like an old server
	slow     time.Duration // how long the initial events of a watch take
	lag      time.Duration // from the header of a resumed watch to what it missed
}

type object map[string]any

type event struct {
	revision int
	resource string
	kind     string
	object   object
}

var kinds = map[string]string{"configmaps": "ConfigMap", "secrets": "Secret", "pods": "Pod", "widgets": "Widget"}

// newAPIServer is for use in a bubble.
func newAPIServer(t *testing.T) *apiServer {
	s := &apiServer{
		network:  newNetwork(),
		stop:     make(chan struct{}),
		changed:  make(chan struct{}),
		revision: 100,
		objects:  map[string]map[string]object{},
		accepts:  map[string]string{},
		open:     map[string]int{},
	}
	s.server = &http.Server{
		Handler:   http.HandlerFunc(s.serve),
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate().tls}},
		ErrorLog:  log.New(io.Discard, "", 0),
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.server.ServeTLS(s.network, "", "")
	}()
	t.Cleanup(func() {
		close(s.stop)
		_ = s.server.Close()
		s.network.reset()
		<-done
	})
	return s
}

func (s *apiServer) config() *rest.Config {
	return &rest.Config{
		Host:            "https://apiserver.test",
		TLSClientConfig: rest.TLSClientConfig{CAData: certificate().pem},
		Dial:            s.network.dial,
		QPS:             -1,
	}
}

// put creates or updates an object.
func (s *apiServer) put(resource, namespace, name string, fields object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.revision++
	metadata := object{
		"namespace": namespace, "name": name, "resourceVersion": strconv.Itoa(s.revision),
		"managedFields": []any{object{"manager": "test", "operation": "Update"}},
	}
	o := object{"kind": kinds[resource], "apiVersion": "v1", "metadata": metadata}
	for key, value := range fields {
		if key == "labels" {
			metadata[key] = value
			continue
		}
		o[key] = value
	}
	if s.objects[resource] == nil {
		s.objects[resource] = map[string]object{}
	}
	kind := "ADDED"
	if _, ok := s.objects[resource][namespace+"/"+name]; ok {
		kind = "MODIFIED"
	}
	s.objects[resource][namespace+"/"+name] = o
	s.tellLocked(event{s.revision, resource, kind, o})
}

func (s *apiServer) remove(resource, namespace, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.revision++
	o := s.objects[resource][namespace+"/"+name]
	delete(s.objects[resource], namespace+"/"+name)
	gone := object{}
	for key, value := range o {
		gone[key] = value
	}
	gone["metadata"] = object{"namespace": namespace, "name": name, "resourceVersion": strconv.Itoa(s.revision)}
	s.tellLocked(event{s.revision, resource, "DELETED", gone})
}

func (s *apiServer) tellLocked(e event) {
	s.history = append(s.history, e)
	close(s.changed)
	s.changed = make(chan struct{})
}

// compact forgets the history, so that a watch cannot go on from before.
func (s *apiServer) compact() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.oldest = s.revision
	s.history = nil
}

func (s *apiServer) setSlow(slow time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.slow = slow
}

func (s *apiServer) setLag(lag time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lag = lag
}

func (s *apiServer) setRefuse(refuse func(*http.Request) int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse = refuse
}

// take returns the requests since the last call.
func (s *apiServer) take() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	taken := s.requests
	s.requests = nil
	return taken
}

func (s *apiServer) watches(resource string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open[resource]
}

func (s *apiServer) accept(resource string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.accepts[resource]
}

func (s *apiServer) serve(w http.ResponseWriter, r *http.Request) {
	namespace, resource := parsePath(r.URL.Path)
	watch := r.URL.Query().Get("watch") != ""
	name := "LIST " + resource
	switch {
	case r.URL.Path == "/version":
		name = "GET /version"
	case r.Method != http.MethodGet:
		name = r.Method + " " + resource
	case watch:
		name = "WATCH " + resource
	}
	if namespace != "" {
		name += " in " + namespace
	}
	s.mu.Lock()
	s.requests = append(s.requests, name)
	s.accepts[resource] = r.Header.Get("Accept")
	refuse, noStream := s.refuse, s.noStream
	s.mu.Unlock()
	if refuse != nil {
		if code := refuse(r); code != 0 {
			writeStatus(w, code)
			return
		}
	}
	switch {
	case r.URL.Path == "/version":
		_, _ = io.WriteString(w, `{"gitVersion":"v1.37.2"}`)
	case kinds[resource] == "":
		writeStatus(w, http.StatusNotFound)
	case watch && noStream && r.URL.Query().Get("sendInitialEvents") != "":
		writeStatus(w, http.StatusUnprocessableEntity)
	case watch:
		s.watch(w, r, namespace, resource)
	default:
		s.list(w, r, namespace, resource)
	}
}

func (s *apiServer) list(w http.ResponseWriter, r *http.Request, namespace, resource string) {
	items, revision := s.snapshot(r, namespace, resource)
	kind, version := kinds[resource]+"List", "v1"
	if onlyMetadata(r) {
		kind, version = "PartialObjectMetadataList", "meta.k8s.io/v1"
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(object{
		"kind": kind, "apiVersion": version, "items": items,
		"metadata": object{"resourceVersion": strconv.Itoa(revision)},
	})
}

func (s *apiServer) snapshot(r *http.Request, namespace, resource string) ([]object, int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	items := []object{}
	for _, o := range s.objects[resource] {
		if matches(r, namespace, o) {
			items = append(items, shape(r, o))
		}
	}
	return items, s.revision
}

func (s *apiServer) watch(w http.ResponseWriter, r *http.Request, namespace, resource string) {
	from, _ := strconv.Atoi(r.URL.Query().Get("resourceVersion"))
	initial := r.URL.Query().Get("sendInitialEvents") == "true"
	s.mu.Lock()
	expired := from != 0 && from < s.oldest
	s.mu.Unlock()
	if expired {
		writeStatus(w, http.StatusGone)
		return
	}
	s.mu.Lock()
	s.open[resource]++
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.open[resource]--
	}()
	w.Header().Set("Content-Type", "application/json")
	encoder := json.NewEncoder(w)
	send := func(kind string, o object) {
		_ = encoder.Encode(object{"type": kind, "object": o})
		w.(http.Flusher).Flush()
	}
	if initial {
		items, revision := s.snapshot(r, namespace, resource)
		for _, o := range items {
			send("ADDED", o)
		}
		s.mu.Lock()
		slow := s.slow
		s.mu.Unlock()
		time.Sleep(slow)
		from = revision
		send("BOOKMARK", shape(r, object{"kind": kinds[resource], "apiVersion": "v1", "metadata": object{
			"resourceVersion": strconv.Itoa(revision), "annotations": object{"k8s.io/initial-events-end": "true"},
		}}))
	}
	w.(http.Flusher).Flush()
	if !initial {
		s.mu.Lock()
		lag := s.lag
		s.mu.Unlock()
		time.Sleep(lag)
	}
	for {
		s.mu.Lock()
		changed := s.changed
		var news []event
		for _, e := range s.history {
			if e.revision > from {
				from = e.revision
				if e.resource == resource && matches(r, namespace, e.object) {
					news = append(news, e)
				}
			}
		}
		s.mu.Unlock()
		for _, e := range news {
			send(e.kind, shape(r, e.object))
		}
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		case <-s.stop:
			return
		}
	}
}

func parsePath(path string) (namespace, resource string) {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	if n := slices.Index(parts, "namespaces"); n >= 0 && len(parts) > n+2 {
		return parts[n+1], parts[n+2]
	}
	return "", parts[len(parts)-1]
}

func matches(r *http.Request, namespace string, o object) bool {
	metadata := o["metadata"].(object)
	if namespace != "" && metadata["namespace"] != namespace {
		return false
	}
	selector, err := labels.Parse(r.URL.Query().Get("labelSelector"))
	set := labels.Set{}
	if given, ok := metadata["labels"].(object); ok {
		for key, value := range given {
			set[key] = fmt.Sprint(value)
		}
	}
	return err == nil && selector.Matches(set)
}

func onlyMetadata(r *http.Request) bool {
	return strings.Contains(r.Header.Get("Accept"), "as=PartialObjectMetadata")
}

func shape(r *http.Request, o object) object {
	if !onlyMetadata(r) {
		return o
	}
	return object{"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": o["metadata"]}
}

func writeStatus(w http.ResponseWriter, code int) {
	reasons := map[int]string{403: "Forbidden", 404: "NotFound", 410: "Expired", 422: "Invalid", 500: "InternalError", 503: "ServiceUnavailable"}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(object{
		"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reasons[code], "message": "refused by the test",
	})
}

// network is a net.Listener and its dialer, and what can go wrong between them.
type network struct {
	accepted chan net.Conn
	closed   chan struct{}
	once     sync.Once

	mu    sync.Mutex
	state networkState
	pairs []*pair
	dials int
}

type networkState int

const (
	networkUp networkState = iota
	networkRefusing
	networkDropping
)

func newNetwork() *network {
	return &network{accepted: make(chan net.Conn), closed: make(chan struct{})}
}

// set changes the state. Refusing also resets all connections, as the end of a
// process does; dropping leaves them to find out for themselves.
func (n *network) set(state networkState) {
	n.mu.Lock()
	n.state = state
	n.mu.Unlock()
	if state == networkRefusing {
		n.reset()
	}
}

func (n *network) reset() {
	n.mu.Lock()
	pairs := n.pairs
	n.pairs = nil
	n.mu.Unlock()
	for _, p := range pairs {
		_ = p.client.Close()
		_ = p.server.Close()
	}
}

func (n *network) current() networkState {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.state
}

func (n *network) dialed() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.dials
}

// dial repeats the first packet after 1 s, 2 s, 4 s and so on, as TCP does.
func (n *network) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	for rto := time.Second; n.current() == networkDropping; rto *= 2 {
		select {
		case <-time.After(rto):
		case <-ctx.Done():
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: context.Cause(ctx)}
		}
	}
	if n.current() == networkRefusing {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	}
	p := &pair{}
	p.client, p.server = net.Pipe()
	n.mu.Lock()
	n.pairs = append(n.pairs, p)
	n.dials++
	n.mu.Unlock()
	select {
	case n.accepted <- &wire{p.server, p, n}:
		return &wire{p.client, p, n}, nil
	case <-n.closed:
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	}
}

// Accept implements net.Listener.
func (n *network) Accept() (net.Conn, error) {
	select {
	case c := <-n.accepted:
		return c, nil
	case <-n.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (n *network) Close() error {
	n.once.Do(func() { close(n.closed) })
	return nil
}

// Addr implements net.Listener.
func (n *network) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 443} }

// pair is a connection. To be pessimistic, one that has sent anything into an
// outage never brings a byte again, as if the pause of TCP had become endless.
type pair struct {
	client, server net.Conn
	mu             sync.Mutex
	lost           bool
}

type wire struct {
	net.Conn
	pair    *pair
	network *network
}

func (w *wire) Write(p []byte) (int, error) {
	w.pair.mu.Lock()
	if w.network.current() == networkDropping {
		w.pair.lost = true
	}
	lost := w.pair.lost
	w.pair.mu.Unlock()
	if lost {
		return len(p), nil
	}
	return w.Conn.Write(p)
}

type identity struct {
	tls tls.Certificate
	pem []byte
}

// certificate is valid in the year 2000, too, where bubbles begin.
var certificate = sync.OnceValue(func() identity {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "apiserver.test"}, DNSNames: []string{"apiserver.test"},
		NotBefore: time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2199, 1, 1, 0, 0, 0, 0, time.UTC),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	return identity{
		tls: tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key},
		pem: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
	}
})
