// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package manager

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/streaming/pkg/httpstream"
)

// tunnel returns a connection to a port of a Pod that the API server forwards, as
// kubectl port-forward has it: over a websocket, or SPDY where that is not known.
func tunnel(ctx context.Context, config *rest.Config, client kubernetes.Interface, pod *corev1.Pod, port int) (net.Conn, error) {
	url := client.CoreV1().RESTClient().Post().Namespace(pod.Namespace).Resource("pods").Name(pod.Name).SubResource("portforward").URL()
	websocket, err := portforward.NewSPDYOverWebsocketDialerForStreaming(url, config)
	if err != nil {
		return nil, err
	}
	transport, upgrader, err := spdy.RoundTripperFor(config)
	if err != nil {
		return nil, err
	}
	dialer := portforward.NewFallbackDialerForStreaming(websocket,
		spdy.NewDialerForStreaming(upgrader, &http.Client{Transport: transport}, http.MethodPost, url),
		func(err error) bool { return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err) })

	// Dial knows no context; a connection that comes too late is closed.
	type dialled struct {
		connection httpstream.Connection
		err        error
	}
	done := make(chan dialled, 1)
	go func() {
		connection, _, err := dialer.Dial(portforward.PortForwardProtocolV1Name)
		done <- dialled{connection, err}
	}()
	select {
	case d := <-done:
		if d.err != nil {
			return nil, fmt.Errorf("port-forward: %w", d.err)
		}
		return openStreams(d.connection, port)
	case <-ctx.Done():
		go func() {
			if d := <-done; d.connection != nil {
				_ = d.connection.Close()
			}
		}()
		return nil, fmt.Errorf("port-forward: %w", ctx.Err())
	}
}

// openStreams opens the two streams of one forwarded connection: one for the data, and
// one on which the node says what went wrong.
func openStreams(connection httpstream.Connection, port int) (_ net.Conn, err error) {
	defer func() {
		if err != nil {
			_ = connection.Close()
		}
	}()
	header := http.Header{}
	header.Set(corev1.PortHeader, strconv.Itoa(port))
	header.Set(corev1.PortForwardRequestIDHeader, "0")
	header.Set(corev1.StreamType, corev1.StreamTypeError)
	complaints, err := connection.CreateStream(header)
	if err != nil {
		return nil, fmt.Errorf("port-forward: %w", err)
	}
	_ = complaints.Close() // nothing is written to it
	header.Set(corev1.StreamType, corev1.StreamTypeData)
	data, err := connection.CreateStream(header)
	if err != nil {
		return nil, fmt.Errorf("port-forward: %w", err)
	}
	return &forwarded{Stream: data, connection: connection, complaints: complaints}, nil
}

// forwarded is a forwarded connection. It has no deadlines: whoever uses it closes it.
type forwarded struct {
	httpstream.Stream
	connection httpstream.Connection
	complaints io.Reader
}

// Read implements net.Conn. Where the data ends because the node could not connect, the
// error is what the node says.
func (f *forwarded) Read(data []byte) (int, error) {
	n, err := f.Stream.Read(data)
	if errors.Is(err, io.EOF) {
		if complaint, _ := io.ReadAll(f.complaints); len(complaint) > 0 {
			err = fmt.Errorf("port-forward: %s", strings.TrimSpace(string(complaint)))
		}
	}
	return n, err
}

// Close implements net.Conn.
func (f *forwarded) Close() error { return f.connection.Close() }

// LocalAddr implements net.Conn.
func (f *forwarded) LocalAddr() net.Addr { return forwardedAddress{} }

// RemoteAddr implements net.Conn.
func (f *forwarded) RemoteAddr() net.Addr { return forwardedAddress{} }

// SetDeadline implements net.Conn.
func (f *forwarded) SetDeadline(time.Time) error { return nil }

// SetReadDeadline implements net.Conn.
func (f *forwarded) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline implements net.Conn.
func (f *forwarded) SetWriteDeadline(time.Time) error { return nil }

type forwardedAddress struct{}

func (forwardedAddress) Network() string { return "port-forward" }
func (forwardedAddress) String() string  { return "port-forward" }
