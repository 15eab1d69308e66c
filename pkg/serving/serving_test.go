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
	return serving.Config{
		Secure:         options,
		Authentication: &genericoptions.DelegatingAuthenticationOptions{RemoteKubeConfigFileOptional: true, SkipInClusterLookup: true},
		Authorization:  &genericoptions.DelegatingAuthorizationOptions{RemoteKubeConfigFileOptional: true, AlwaysAllowPaths: []string{"/open/*"}},
	}
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
	t.Run("with a certificate in memory", func(t *testing.T) { servesUntilItsContextEnds(t, "") })
	t.Run("with one in --cert-dir", func(t *testing.T) { servesUntilItsContextEnds(t, t.TempDir()) })
}

func servesUntilItsContextEnds(t *testing.T, certDir string) {
	t.Helper()
	taken, port := freePort(t)
	if err := taken.Close(); err != nil {
		t.Fatal(err)
	}
	config := loopback(port)
	config.Secure.ServerCert.CertDirectory = certDir
	server, err := serving.Listen(config)
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
	response, err := client.Get("https://" + server.Address().String() + "/open/page") // waits for the certificate: the port is bound
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(response.Body)
	if err != nil || string(body) != "hello" {
		t.Errorf("got %q (%v), want hello", body, err)
	}
	_ = response.Body.Close()
	for _, path := range []string{"/", "/open", "/open/../closed", "/closed"} {
		response, err := client.Get("https://" + server.Address().String() + path)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if response.StatusCode == http.StatusOK {
			t.Errorf("%s: got 200 without credentials", path)
		}
	}

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
