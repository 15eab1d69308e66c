// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package serving_test

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

func TestManyRequestsOnOneConnectionAreNotOneLargeRequest(t *testing.T) {
	config := defaults(t, nil)
	config.Authorization.AlwaysAllowPaths = []string{"/*"}
	address := serve(t, config, echo)
	conn, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DialTLSContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil }}}
	defer client.CloseIdleConnections()
	for range 40 { // 400 KiB in all
		request, err := http.NewRequest("GET", "https://"+address+"/x", nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("X-Large", strings.Repeat("a", 10<<10))
		response, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, response.Body)
		_ = response.Body.Close()
	}
}

func TestConnectionsAreLimitedAndComeBack(t *testing.T) {
	address := serve(t, defaults(t, nil), echo)
	client := browser(&tls.Config{})
	var open []net.Conn
	defer func() {
		for _, conn := range open {
			_ = conn.Close()
		}
	}()
	send(t, client, "GET", "https://"+address+"/livez", "") // the certificate is made meanwhile
	for range 1000 {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, conn)
	}
	refused := func() bool {
		_, err := client.Get("https://" + address + "/livez")
		return err != nil
	}
	eventually(t, "the thousand to be counted, and one more to be refused", refused)
	for _, conn := range open {
		_ = conn.Close()
	}
	eventually(t, "their places to be free", func() bool { return !refused() })
}
