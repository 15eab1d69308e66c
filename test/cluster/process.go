// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package cluster

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Process is a manager that runs as a process of its own, outside the cluster.
type Process struct {
	*exec.Cmd
	Address string     // https://127.0.0.1:PORT
	Ended   chan error // gets what Wait returned

	mu     sync.Mutex
	output bytes.Buffer
}

// Write implements io.Writer for the output of the process.
func (p *Process) Write(data []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.output.Write(data)
}

// Log returns all that the process has printed.
func (p *Process) Log() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.output.String()
}

// Launch starts the program (see Program) on a free port, with env added to the
// environment. It is not told of the cluster: pass --kubeconfig. If it does not end
// before, it is killed with the test, whose failure shows the end of its log.
func (c *Cluster) Launch(t testing.TB, program string, env []string, args ...string) *Process {
	t.Helper()
	port := FreePort(t)
	p := &Process{Address: "https://127.0.0.1:" + port, Ended: make(chan error, 1)}
	p.Cmd = exec.Command(c.Program(program), append([]string{"--bind-address=127.0.0.1", "--secure-port=" + port}, args...)...)
	p.Env = append(os.Environ(), env...)
	p.Stdout, p.Stderr = p, p
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.Ended <- p.Wait() }()
	t.Cleanup(func() {
		_ = p.Process.Kill() // an error means that it has ended
		if t.Failed() {
			log := p.Log()
			t.Logf("the end of the log of %s:\n%s", program, log[max(0, len(log)-20000):])
		}
	})
	return p
}

// given are the ports that FreePort has returned.
var given sync.Map

// FreePort returns a TCP port of 127.0.0.1 that nobody listens on, another one each time.
// It is below those of the local cluster, whose API server may be away just then, and those
// from which the kernel takes the ports of outgoing connections, one of which could be
// faster than who is to listen.
func FreePort(t testing.TB) string {
	t.Helper()
	for range 100 {
		port := strconv.Itoa(10000 + rand.IntN(10000))
		if _, taken := given.LoadOrStore(port, true); taken {
			continue
		}
		if listener, err := net.Listen("tcp", "127.0.0.1:"+port); err == nil {
			listener.Close()
			return port
		}
	}
	t.Fatal("found no free port on 127.0.0.1")
	return ""
}

// Terminate asks the process to stop, expects that it does within 10 s and with exit
// code 0, and returns how long that took.
func (p *Process) Terminate(t testing.TB) time.Duration {
	t.Helper()
	began := time.Now()
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-p.Ended:
		if err != nil {
			t.Errorf("after SIGTERM: got %v, want exit code 0", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("it still runs 10 s after SIGTERM")
	}
	return time.Since(began)
}

// AwaitLog waits until the log has the text.
func (p *Process) AwaitLog(t testing.TB, limit time.Duration, text string) {
	t.Helper()
	Eventually(t, limit, fmt.Sprintf("%q in the log", text), func() error {
		if !strings.Contains(p.Log(), text) {
			return errors.New("it is not there")
		}
		return nil
	})
}

// AwaitController waits until /healthz says of the controller what is wanted, such as
// running or blocked, and returns how long that took.
func (p *Process) AwaitController(t testing.TB, limit time.Duration, controller, want string) time.Duration {
	t.Helper()
	return Eventually(t, limit, controller+" "+want, func() error {
		_, body, err := Get(t, p.Address+"/healthz?verbose", "")
		if err != nil {
			return err
		}
		for line := range strings.Lines(body) {
			if strings.HasPrefix(line[min(3, len(line)):], controller+" ") {
				if strings.Contains(line, want) {
					return nil
				}
				return errors.New(line)
			}
		}
		return fmt.Errorf("no check of %s in:\n%s", controller, body)
	})
}

// insecure accepts the managers' self-signed certificates.
var insecure = &http.Client{
	Timeout: 10 * time.Second,
	Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
		DisableKeepAlives: true,
	},
}

// Get fetches a page over HTTPS, whatever the certificate, with a bearer token or ""
// for none.
func Get(t testing.TB, url, token string) (status int, body string, err error) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := insecure.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	return response.StatusCode, string(content), err
}
