// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

//go:build linux

package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
)

const (
	streamIdleTimeout     = 4 * time.Hour
	streamCreationTimeout = 30 * time.Second
)

// listen opens the endpoint of each node, by which the API server reaches logs, exec and port-forward. It accepts the API server only.
func (n *Nodes) listen() error {
	cert, err := tls.LoadX509KeyPair(n.config.CertFile, n.config.KeyFile)
	if err != nil {
		return err
	}
	ca, err := os.ReadFile(n.config.ClientCAFile)
	if err != nil {
		return err
	}
	clients := x509.NewCertPool()
	if !clients.AppendCertsFromPEM(ca) {
		return fmt.Errorf("%s holds no certificate", n.config.ClientCAFile)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", n.serveLogs)
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		mux.HandleFunc(method+" /exec/{namespace}/{pod}/{container}", n.serveExec)
		mux.HandleFunc(method+" /exec/{namespace}/{pod}/{uid}/{container}", n.serveExec)
		mux.HandleFunc(method+" /portForward/{namespace}/{pod}", n.servePortForward)
		mux.HandleFunc(method+" /portForward/{namespace}/{pod}/{uid}", n.servePortForward)
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "a process node serves logs, exec and port-forward only", http.StatusNotImplemented)
	})
	n.server = &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 10 * time.Second,
		// Exec and port-forward take the connection over, which HTTP/2 does not allow.
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
		TLSConfig: &tls.Config{
			MinVersion:   tls.VersionTLS12,
			Certificates: []tls.Certificate{cert},
			ClientAuth:   tls.RequireAndVerifyClientCert,
			ClientCAs:    clients,
			VerifyConnection: func(s tls.ConnectionState) error {
				if name := s.PeerCertificates[0].Subject.CommonName; name != n.config.ClientName {
					return fmt.Errorf("the client %q is not the API server", name)
				}
				return nil
			},
		},
	}
	for i := range n.config.Count {
		address := &net.TCPAddr{IP: Address(n.config.Network, i), Port: n.config.Port}
		listener, err := net.ListenTCP("tcp", address)
		if err != nil {
			for _, l := range n.listeners {
				l.Close()
			}
			return fmt.Errorf("endpoint of %s: %w", nodeName(i), err)
		}
		n.listeners = append(n.listeners, listener)
	}
	return nil
}

// target finds the container that a request is about, or answers that there is none.
func (n *Nodes) target(w http.ResponseWriter, r *http.Request) (*worker, *container) {
	worker, err := n.find(r.PathValue("namespace"), r.PathValue("pod"))
	if err == nil && r.PathValue("uid") != "" && r.PathValue("uid") != string(worker.uid) {
		err = fmt.Errorf("pod %s/%s has another UID", worker.namespace, worker.name)
	}
	var c *container
	if err == nil {
		c, err = worker.container(r.PathValue("container"))
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return nil, nil
	}
	return worker, c
}

func (n *Nodes) serveLogs(w http.ResponseWriter, r *http.Request) {
	worker, c := n.target(w, r)
	if c == nil {
		return
	}
	query, err := parseLogQuery(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	worker.mu.Lock()
	log := c.log
	if r.FormValue("previous") == "true" {
		log = c.previous
		if c.process == nil && c.status.State.Terminated == nil {
			log = c.log // Waiting for its restart: the newest process is the previous one.
		}
	}
	waiting := c.status.State.Waiting
	worker.mu.Unlock()
	if log == nil {
		message := fmt.Sprintf("previous terminated container %q in pod %q not found", c.spec.Name, worker.name)
		if r.FormValue("previous") != "true" && waiting != nil {
			message = fmt.Sprintf("container %q in pod %q is waiting to start: %s", c.spec.Name, worker.name, waiting.Reason)
		}
		http.Error(w, message, http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	out := flushingWriter{w, http.NewResponseController(w)}
	if query.follow {
		// The reader sees that it is connected before there is a line.
		w.WriteHeader(http.StatusOK)
		_ = out.control.Flush()
	}
	_ = log.copyTo(r.Context(), out, query) // The reader is gone if this fails.
}

// flushingWriter sends each line at once.
type flushingWriter struct {
	http.ResponseWriter
	control *http.ResponseController
}

func (f flushingWriter) Write(p []byte) (int, error) {
	n, err := f.ResponseWriter.Write(p)
	if err == nil {
		err = f.control.Flush()
	}
	return n, err
}

func parseLogQuery(r *http.Request) (logQuery, error) {
	q := logQuery{
		follow: r.FormValue("follow") == "true", timestamps: r.FormValue("timestamps") == "true", tailLines: -1, limitBytes: -1,
	}
	if s := r.FormValue("stream"); s != "" && s != "All" {
		q.stream = s
	}
	if text := r.FormValue("sinceTime"); text != "" {
		at, err := time.Parse(time.RFC3339, text)
		if err != nil {
			return q, fmt.Errorf("sinceTime: %w", err)
		}
		q.since = at
	}
	var seconds int64 = -1
	for name, field := range map[string]*int64{"tailLines": &q.tailLines, "limitBytes": &q.limitBytes, "sinceSeconds": &seconds} {
		if text := r.FormValue(name); text != "" {
			value, err := strconv.ParseInt(text, 10, 64)
			if err != nil || value < 0 {
				return q, fmt.Errorf("%s: %q is not a number of at least 0", name, text)
			}
			*field = value
		}
	}
	if seconds >= 0 {
		q.since = time.Now().Add(-time.Duration(seconds) * time.Second)
	}
	return q, nil
}

func (n *Nodes) serveExec(w http.ResponseWriter, r *http.Request) {
	_, c := n.target(w, r)
	if c == nil {
		return
	}
	options, err := remotecommand.NewOptions(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	remotecommand.ServeExec(w, r, executor{c}, "", "", c.spec.Name, r.Form["command"], options,
		streamIdleTimeout, streamCreationTimeout, remotecommand.SupportedStreamingProtocols)
}

// executor runs commands in one container.
type executor struct{ c *container }

var _ remotecommand.Executor = executor{}

// ExecInContainer implements remotecommand.Executor. There are no terminals here: with a TTY, stderr joins stdout.
func (e executor) ExecInContainer(ctx context.Context, _, _, _ string, argv []string, in io.Reader, out, err io.WriteCloser,
	_ bool, _ <-chan remotecommand.TerminalSize, _ time.Duration) error {
	if len(argv) == 0 {
		return errors.New("no command was given")
	}
	streams := [2]io.Writer{io.Discard, io.Discard}
	if out != nil {
		streams = [2]io.Writer{out, out}
	}
	if err != nil {
		streams[1] = err
	}
	return e.c.exec(ctx, argv, in, streams[0], streams[1])
}

func (n *Nodes) servePortForward(w http.ResponseWriter, r *http.Request) {
	worker, c := n.target(w, r)
	if c == nil {
		return
	}
	options, err := portforward.NewV4Options(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	portforward.ServePortForward(w, r, forwarder{worker.facts().podIP}, worker.name, string(worker.uid), options,
		streamIdleTimeout, streamCreationTimeout, portforward.SupportedProtocols)
}

// forwarder connects to the ports of one Pod.
type forwarder struct{ ip string }

var _ portforward.PortForwarder = forwarder{}

// PortForward implements portforward.PortForwarder.
func (f forwarder) PortForward(ctx context.Context, _, _ string, port int32, stream io.ReadWriteCloser) error {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(f.ip, strconv.Itoa(int(port))))
	if err != nil {
		return err
	}
	defer conn.Close()
	go func() {
		_, _ = io.Copy(conn, stream)
		// The client has said all; the Pod may still answer.
		_ = conn.(*net.TCPConn).CloseWrite()
	}()
	_, err = io.Copy(stream, conn)
	return err
}
