// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package serving

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/incumbent-io/incumbent/test/cluster"
)

// memoryLimit is what the container may use in manifests/base, in KiB.
const memoryLimit = 512 << 10

// abuseTime is how long each abuse goes on.
func abuseTime(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("SERVING_ABUSE")
	if text == "" {
		return 5 * time.Second
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("SERVING_ABUSE: %v", err)
	}
	return d
}

// TestNoClientKeepsTheLeaderFromItsWork has clients do to a leader what they should not,
// while it renews its lease and one of its controllers counts every 50 ms.
func TestNoClientKeepsTheLeaderFromItsWork(t *testing.T) {
	const namespace = "abuse"
	shared.Namespace(t, namespace)
	viewer := account(t, namespace, "viewer", "get")
	p := shared.Launch(t, "faulty", []string{"FAULTY_NAMESPACE=" + namespace},
		"--kubeconfig="+shared.Kubeconfig, "--leader-elect-resource-namespace="+namespace, "--controllers=healthy-1")
	awaitLeader(t, p)
	p.AwaitController(t, 20*time.Second, "healthy-1", "running")
	host := strings.TrimPrefix(p.Address, "https://")
	before := p.Process.Pid
	first := terms(t, p, viewer)
	for _, abuse := range []struct {
		name string
		do   func(ctx context.Context, t *testing.T, host string) string
	}{
		{"200 slow clients", slowClients},
		{"headers of 1 MB", largeHeaders},
		{"half-open connections", halfOpen},
		{"10,000 requests in a burst", burst},
		{"10,000 invented tokens in a burst", inventedTokens},
	} {
		t.Run(abuse.name, func(t *testing.T) {
			idle := memory(t, before, "RssAnon")
			watching, stop := context.WithCancel(t.Context())
			defer stop()
			seen := watch(watching, t, p, namespace)
			ctx, cancel := context.WithTimeout(t.Context(), abuseTime(t))
			defer cancel()
			told := abuse.do(ctx, t, host)
			stop()
			w := <-seen
			t.Logf("%s; longest time without progress %v, health answers within %v, RssAnon %d -> %d MiB at most",
				told, w.pause.Round(time.Millisecond), w.health.Round(time.Millisecond), idle>>10, w.anonymous>>10)
			if w.pause > 2*time.Second {
				t.Errorf("the controller made no progress for %v, want at most 2 s", w.pause)
			}
			if w.health > 3*time.Second {
				t.Errorf("health took %v; the kubelet waits 3 s", w.health)
			}
			if w.anonymous > memoryLimit/4 {
				t.Errorf("%d MiB of memory, want at most a quarter of what the container may use", w.anonymous>>10)
			}
		})
	}
	if last := terms(t, p, viewer); last != first {
		t.Errorf("leadership: got %s, want %s as before", last, first)
	}
	if strings.Count(p.Log(), "Became leader") != 1 {
		t.Error("it did not stay leader")
	}
	cluster.Eventually(t, 60*time.Second, "memory is given back", func() error {
		if now := memory(t, before, "RssAnon"); now > 96<<10 {
			return fmt.Errorf("RssAnon is %d MiB", now>>10)
		}
		return nil
	})
	if log := len(p.Log()); log > 1<<20 {
		t.Errorf("the log has %d bytes: strangers fill it", log)
	}
}

// terms are the leadership's metrics.
func terms(t *testing.T, p *cluster.Process, token string) string {
	t.Helper()
	status, body := get(t, p.Address+"/metrics", token)
	if status != http.StatusOK {
		t.Fatalf("/metrics: got %d, want 200", status)
	}
	lines := regexp.MustCompile(`(?m)^leader_election_(master_status|epoch|terms_total|lease_transitions).*$`).FindAllString(body, -1)
	return strings.Join(lines, "\n")
}

// memory is a field of /proc/PID/status, in KiB.
func memory(t testing.TB, pid int, field string) int {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Error(err)
		return 0
	}
	match := regexp.MustCompile(`(?m)^` + field + `:\s*(\d+) kB$`).FindSubmatch(content)
	if match == nil {
		t.Errorf("no %s in /proc/%d/status", field, pid)
		return 0
	}
	n, _ := strconv.Atoi(string(match[1]))
	return n
}

// witness is what was seen of a manager during an abuse, each at its worst.
type witness struct {
	pause     time.Duration // without progress of its controller
	health    time.Duration // of an answer of /livez
	anonymous int           // RssAnon in KiB
}

// watch looks at the manager until ctx ends.
func watch(ctx context.Context, t *testing.T, p *cluster.Process, namespace string) <-chan witness {
	result := make(chan witness, 1)
	var w witness
	var watching sync.WaitGroup
	every := func(pause time.Duration, look func()) {
		watching.Go(func() {
			for ctx.Err() == nil {
				look()
				select {
				case <-time.After(pause):
				case <-ctx.Done():
				}
			}
		})
	}
	count, since := "", time.Now()
	every(50*time.Millisecond, func() {
		object, err := shared.Client.CoreV1().ConfigMaps(namespace).Get(ctx, "healthy-1", metav1.GetOptions{})
		if err != nil {
			return // a pause, too
		}
		w.pause = max(w.pause, time.Since(since))
		if object.Data["n"] != count {
			count, since = object.Data["n"], time.Now()
		}
	})
	every(100*time.Millisecond, func() {
		began := time.Now()
		if status, _, err := cluster.Get(t, p.Address+"/livez", ""); err != nil || status != http.StatusOK {
			t.Errorf("/livez: got %d, %v, want 200", status, err)
		}
		w.health = max(w.health, time.Since(began))
	})
	every(20*time.Millisecond, func() { w.anonymous = max(w.anonymous, memory(t, p.Process.Pid, "RssAnon")) })
	go func() {
		watching.Wait()
		result <- w
	}()
	return result
}

var lax = &tls.Config{InsecureSkipVerify: true}

// crowd has n clients do something at the same time.
func crowd(n int, do func(i int)) {
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { do(i) })
	}
	all.Wait()
}

// slowClients send a header a character at a time, and read their answer as slowly.
func slowClients(ctx context.Context, t *testing.T, host string) string {
	var connected atomic.Int32
	crowd(200, func(int) {
		conn, err := tls.Dial("tcp", host, lax)
		if err != nil {
			t.Errorf("a slow client: %v", err)
			return
		}
		defer conn.Close()
		connected.Add(1)
		for _, c := range "GET /metrics HTTP/1.1\r\nHost: localhost\r\nX-Slow: " + strings.Repeat("a", 10000) {
			if _, err := io.WriteString(conn, string(c)); err != nil {
				return // it was thrown out
			}
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
				return
			}
		}
	})
	return fmt.Sprintf("%d clients that send 10 characters a second", connected.Load())
}

// largeHeaders send headers of 1 MB, again and again, on 50 connections at a time.
func largeHeaders(ctx context.Context, t *testing.T, host string) string {
	var sent, refused atomic.Int32
	request := []byte("GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Large: " + strings.Repeat("a", 1<<20) + "\r\n\r\n")
	crowd(50, func(int) {
		for ctx.Err() == nil {
			conn, err := tls.Dial("tcp", host, lax)
			if err != nil {
				t.Errorf("a client with large headers: %v", err)
				return
			}
			_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
			_, _ = io.Copy(conn, bytes.NewReader(request)) // it may be thrown out meanwhile
			response, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err == nil {
				_ = response.Body.Close()
			}
			if err != nil || response.StatusCode == http.StatusRequestHeaderFieldsTooLarge {
				refused.Add(1)
			}
			sent.Add(1)
			_ = conn.Close()
		}
	})
	if sent.Load() == 0 || refused.Load() != sent.Load() {
		t.Errorf("%d of %d large headers were refused, want all", refused.Load(), sent.Load())
	}
	return fmt.Sprintf("%d requests with headers of 1 MB, %d refused", sent.Load(), refused.Load())
}

// halfOpen connects and says nothing: half of the clients before TLS, half after.
func halfOpen(ctx context.Context, t *testing.T, host string) string {
	var connected atomic.Int32
	crowd(500, func(i int) {
		conn, err := net.Dial("tcp", host)
		if err != nil {
			t.Errorf("a half-open connection: %v", err)
			return
		}
		defer conn.Close()
		if i%2 == 0 {
			if err := tls.Client(conn, lax).HandshakeContext(ctx); err != nil && ctx.Err() == nil {
				t.Errorf("a half-open connection: %v", err)
			}
		}
		connected.Add(1)
		<-ctx.Done()
	})
	return fmt.Sprintf("%d connections that say nothing", connected.Load())
}

// burst sends 10,000 requests as fast as it can, to open and to guarded paths.
func burst(ctx context.Context, t *testing.T, host string) string {
	return flood(ctx, t, host, func(i int) (path, token string) { return []string{"/livez", "/metrics", "/nothing"}[i%3], "" })
}

// inventedTokens has the API server asked about 10,000 tokens, if it were for them.
func inventedTokens(ctx context.Context, t *testing.T, host string) string {
	return flood(ctx, t, host, func(i int) (path, token string) { return "/metrics", fmt.Sprintf("invented-%d", i) })
}

func flood(_ context.Context, t *testing.T, host string, what func(i int) (path, token string)) string {
	const requests, clients = 10000, 100
	transport := &http.Transport{TLSClientConfig: lax, MaxIdleConnsPerHost: clients}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: 30 * time.Second}
	var next atomic.Int32
	var mu sync.Mutex
	answers := map[int]int{}
	began := time.Now()
	crowd(clients, func(int) {
		for i := int(next.Add(1)); i <= requests; i = int(next.Add(1)) {
			path, token := what(i)
			request, err := http.NewRequest(http.MethodGet, "https://"+host+path, nil)
			if err != nil {
				t.Error(err)
				return
			}
			if token != "" {
				request.Header.Set("Authorization", "Bearer "+token)
			}
			status := 0
			if response, err := client.Do(request); err == nil {
				_, _ = io.Copy(io.Discard, response.Body)
				_ = response.Body.Close()
				status = response.StatusCode
			}
			mu.Lock()
			answers[status]++
			mu.Unlock()
		}
	})
	if answers[0] > 0 {
		t.Errorf("%d of %d requests got no answer", answers[0], requests)
	}
	return fmt.Sprintf("%d requests in %v, answers %v", requests, time.Since(began).Round(10*time.Millisecond), answers)
}

// TestSilentAPIServerHoldsUpNothing stops the API server, so that it takes connections and
// never answers.
func TestSilentAPIServerHoldsUpNothing(t *testing.T) {
	const namespace = "silent"
	shared.Namespace(t, namespace)
	viewer := account(t, namespace, "viewer", "get")
	p := launch(t, namespace)
	shared.Fault(t, "component", "apiserver", "stop")
	resumed := false
	resume := func() {
		if !resumed {
			resumed = true
			shared.Fault(t, "component", "apiserver", "cont")
		}
	}
	defer resume()
	var guarded sync.WaitGroup
	began := time.Now()
	var slowest atomic.Int64
	for range 10 {
		guarded.Go(func() {
			client := anyCertificate(nil)
			client.Timeout = 20 * time.Second
			request, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, p.Address+"/metrics", nil)
			request.Header.Set("Authorization", "Bearer "+viewer)
			response, err := client.Do(request)
			if err != nil {
				t.Errorf("a guarded request: %v", err)
				return
			}
			_ = response.Body.Close()
			slowest.Store(max(slowest.Load(), int64(time.Since(began))))
			if response.StatusCode != http.StatusServiceUnavailable {
				t.Errorf("a guarded request: got %d, want 503", response.StatusCode)
			}
		})
	}
	for range 20 {
		asked := time.Now()
		if status, _ := get(t, p.Address+"/livez", viewer); status != http.StatusOK || time.Since(asked) > time.Second {
			t.Errorf("/livez: got %d after %v, want 200 within 1 s", status, time.Since(asked))
		}
	}
	guarded.Wait()
	if took := time.Duration(slowest.Load()); took > 11*time.Second {
		t.Errorf("a guarded request took %v, want at most 10 s", took)
	}
	t.Logf("guarded requests got 503 after at most %v", time.Duration(slowest.Load()).Round(10*time.Millisecond))
	resume()
	cluster.Eventually(t, 30*time.Second, "it serves again", func() error {
		if status, body := get(t, p.Address+"/metrics", viewer); status != http.StatusOK {
			return fmt.Errorf("got %d: %.100s", status, body)
		}
		return nil
	})
	if err := shared.AwaitAPIServer(); err != nil {
		t.Fatal(err)
	}
}
