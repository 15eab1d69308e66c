// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package serving_test

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	genericoptions "k8s.io/apiserver/pkg/server/options"

	"github.com/incumbent-io/incumbent/pkg/serving"
)

func loopback(port int) serving.Config {
	options := genericoptions.NewSecureServingOptions()
	options.BindAddress = net.IPv4(127, 0, 0, 1)
	options.BindPort = port
	options.ServerCert = genericoptions.GeneratableKeyCert{PairName: "test"}
	return serving.Config{Secure: options}
}

func freePort(t *testing.T) (net.Listener, int) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	return listener, listener.Addr().(*net.TCPAddr).Port
}

func TestServesHTTPSUntilItsContextEnds(t *testing.T) {
	taken, port := freePort(t)
	if err := taken.Close(); err != nil {
		t.Fatal(err)
	}
	server, err := serving.Listen(loopback(port))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- server.Serve(ctx, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }))
	}()

	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
		DisableKeepAlives: true,
	}}
	response, err := client.Get("https://" + server.Address().String()) // waits for the certificate: the port is bound
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(response.Body)
	if err != nil || string(body) != "hello" {
		t.Errorf("got %q (%v), want hello", body, err)
	}
	_ = response.Body.Close()

	stop()
	if err := <-ended; err != nil {
		t.Errorf("Serve: %v", err)
	}
	if _, err := net.Dial("tcp", server.Address().String()); err == nil {
		t.Error("the port is still served after the end")
	}
}

func TestPortInUseNamesTheFlags(t *testing.T) {
	_, port := freePort(t)
	_, err := serving.Listen(loopback(port))
	if want := "--bind-address=127.0.0.1 --secure-port=" + strconv.Itoa(port); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want it to contain %q", err, want)
	}
}
