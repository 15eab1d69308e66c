// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"

	"k8s.io/component-base/version"

	"github.com/incumbent-io/incumbent/hack/localcluster/netfault"
	"github.com/incumbent-io/incumbent/hack/localcluster/node"
)

// The control socket serves, as plain HTTP, answered with text or JSON:
//
//	POST /components/{name}/{kill,stop,cont,restart,start}
//	POST /pods/{namespace}/{name}/{kill,stop,cont}?container=
//	POST /pods/{namespace}/{name}/net/{mode}?duration=
//	GET  /pods/{namespace}/{name}/pid?container=
//	GET  /status

// Status is the answer of `fault status`.
type Status struct {
	PID        int               `json:"pid"`
	Components []ComponentStatus `json:"components"`
	Pods       []node.PodStatus  `json:"pods"`
}

type control struct {
	server   *http.Server
	listener net.Listener
}

func (c *cluster) listen() (*control, error) {
	var listener *net.UnixListener
	err := withSocket(c.data.path, func(addr *net.UnixAddr) (err error) {
		listener, err = net.ListenUnix("unix", addr)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	// The address leads through a file descriptor that is closed by now.
	listener.SetUnlinkOnClose(false)
	if err := os.Chmod(c.data.file("control.sock"), 0o600); err != nil {
		listener.Close()
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /components/{name}/{action}", answer(c.componentFault))
	mux.HandleFunc("POST /pods/{namespace}/{name}/{action}", answer(c.podFault))
	mux.HandleFunc("POST /pods/{namespace}/{name}/net/{mode}", answer(c.netFault))
	mux.HandleFunc("GET /pods/{namespace}/{name}/pid", answer(c.podPID))
	mux.HandleFunc("GET /status", answer(c.status))
	return &control{server: &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}, listener: listener}, nil
}

// serve returns when the control socket is closed.
func (s *control) serve() { _ = s.server.Serve(s.listener) }

func (s *control) close() { s.server.Close() }

// answer turns an error into status 400: each one is a request that cannot be done as things are.
func answer(f func(*http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		result, err := f(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		if text, ok := result.(string); ok {
			fmt.Fprintln(w, text)
			return
		}
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		_ = encoder.Encode(result) // The client is gone if this fails.
	}
}

func (c *cluster) componentFault(r *http.Request) (any, error) {
	name, action := r.PathValue("name"), r.PathValue("action")
	component, ok := c.components[name]
	if !ok {
		return nil, fmt.Errorf("unknown component %q; there are %s", name, strings.Join(startOrder, ", "))
	}
	var err error
	switch action {
	case "kill":
		err = component.kill()
	case "start":
		err = component.start()
	case "restart":
		err = component.restart()
	case "stop":
		err = component.freeze(true)
	case "cont":
		err = component.freeze(false)
	default:
		err = fmt.Errorf("unknown action %q for a component; there are kill, stop, cont, restart, start", action)
	}
	if err != nil {
		return nil, err
	}
	return fmt.Sprintf("component %s: %s done", name, action), nil
}

func (c *cluster) podFault(r *http.Request) (any, error) {
	signals := map[string]syscall.Signal{"kill": syscall.SIGKILL, "stop": syscall.SIGSTOP, "cont": syscall.SIGCONT}
	action := r.PathValue("action")
	signal, ok := signals[action]
	if !ok {
		return nil, fmt.Errorf("unknown action %q for a Pod; there are kill, stop, cont, net, pid", action)
	}
	pid, err := c.nodes.Signal(r.PathValue("namespace"), r.PathValue("name"), r.FormValue("container"), signal)
	if err != nil {
		return nil, err
	}
	return fmt.Sprintf("pod %s/%s: %s sent to process %d", r.PathValue("namespace"), r.PathValue("name"), signalName(signal), pid), nil
}

func signalName(s syscall.Signal) string {
	switch s {
	case syscall.SIGKILL:
		return "SIGKILL"
	case syscall.SIGSTOP:
		return "SIGSTOP"
	default:
		return "SIGCONT"
	}
}

func (c *cluster) netFault(r *http.Request) (any, error) {
	fault, err := netfault.Parse(r.PathValue("mode"), r.FormValue("duration"))
	if err != nil {
		return nil, err
	}
	if err := c.nodes.SetNetworkFault(r.PathValue("namespace"), r.PathValue("name"), fault); err != nil {
		return nil, err
	}
	return fmt.Sprintf("pod %s/%s: network to the API server: %s", r.PathValue("namespace"), r.PathValue("name"), fault), nil
}

func (c *cluster) podPID(r *http.Request) (any, error) {
	pid, err := c.nodes.PID(r.PathValue("namespace"), r.PathValue("name"), r.FormValue("container"))
	if err != nil {
		return nil, err
	}
	return fmt.Sprint(pid), nil
}

func (c *cluster) status(*http.Request) (any, error) {
	s := Status{PID: os.Getpid(), Pods: c.nodes.Status()}
	for _, name := range startOrder {
		s.Components = append(s.Components, c.components[name].status())
	}
	return s, nil
}

// Call sends a request to the control socket of the cluster in the data folder, and returns its answer.
func Call(ctx context.Context, dataDir, method, path string) (string, error) {
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (conn net.Conn, err error) {
			err = withSocket(dataDir, func(addr *net.UnixAddr) (err error) {
				var dialer net.Dialer
				conn, err = dialer.DialContext(ctx, "unix", addr.Name)
				return err
			})
			return conn, err
		},
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://localcluster"+path, nil)
	if err != nil {
		return "", err
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
			return "", fmt.Errorf("no local cluster runs in %s: start one with `localcluster up`, or name its folder with --data", dataDir)
		}
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return "", err
	}
	body = bytes.TrimRight(body, "\n")
	if response.StatusCode != http.StatusOK {
		return "", errors.New(string(body))
	}
	return string(body), nil
}

func kubeletVersion() string { return version.Get().GitVersion }
