// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package serving_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	cliflag "k8s.io/component-base/cli/flag"

	"github.com/incumbent-io/incumbent/pkg/serving"
)

func TestStopsListeningWhenItsContextEnds(t *testing.T) {
	server, err := serving.Listen(defaults(t, nil))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(ctx, echo) }()
	// The first request waits for the certificate: the port is bound.
	if status, body := send(t, browser(&tls.Config{}), "GET", "https://"+server.Address().String()+"/livez", ""); status != 200 || body != "/livez" {
		t.Errorf("got %d %q, want 200 /livez", status, body)
	}
	stop()
	if err := <-ended; err != nil {
		t.Errorf("Serve: %v", err)
	}
	if connection, err := net.Dial("tcp", server.Address().String()); err == nil {
		_ = connection.Close()
		t.Error("the port is still served after the end")
	}
}

func TestListenNamesWhatIsWrong(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing")
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	port := taken.Addr().(*net.TCPAddr).Port
	for name, tc := range map[string]struct {
		change func(*serving.Config)
		want   string
	}{
		"a port in use": {func(c *serving.Config) {
			_ = c.SecureServing.Listener.Close()
			c.SecureServing.Listener, c.SecureServing.BindAddress, c.SecureServing.BindPort = nil, net.IPv4(127, 0, 0, 1), port
		}, "--bind-address=127.0.0.1 --secure-port=" + strconv.Itoa(port)},
		"no port": {func(c *serving.Config) {
			_ = c.SecureServing.Listener.Close()
			c.SecureServing.Listener = nil
		}, "--secure-port=0"},
		"a missing certificate": {func(c *serving.Config) {
			c.SecureServing.CertFile, c.SecureServing.KeyFile = missing, missing
		}, missing},
		"a missing kubeconfig":     {func(c *serving.Config) { c.Authentication.Kubeconfig = missing }, "--authentication-kubeconfig=" + missing},
		"another kubeconfig":       {func(c *serving.Config) { c.Authorization.Kubeconfig = missing }, "--authorization-kubeconfig=" + missing},
		"a missing client CA":      {func(c *serving.Config) { c.Authentication.ClientCAFile = missing }, "--client-ca-file=" + missing},
		"a missing front proxy CA": {func(c *serving.Config) { c.Authentication.FrontProxy.ClientCAFile = missing }, "--requestheader-client-ca-file=" + missing},
		"no options":               {func(c *serving.Config) { c.Authorization = nil }, "Defaults"},
	} {
		t.Run(name, func(t *testing.T) {
			config := defaults(t, nil)
			listener := config.SecureServing.Listener
			defer func() { _ = listener.Close() }()
			tc.change(&config)
			if _, err := serving.Listen(config); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want it to contain %q", err, tc.want)
			}
		})
	}
}

func TestReplacedCertificateFilesAreServed(t *testing.T) {
	for name, put := range map[string]func(t *testing.T, dir string, certificate, key []byte){
		"files that are replaced":  replaceFiles,
		"a Secret that is mounted": replaceSecret,
	} {
		t.Run(name, func(t *testing.T) {
			ca, dir := newAuthority(t), t.TempDir()
			issue := func(name string) {
				certificate, key := ca.issue(t, name)
				put(t, dir, certificate, key)
			}
			issue("first.example")
			config := defaults(t, nil)
			config.SecureServing.CertFile = filepath.Join(dir, "tls.crt")
			config.SecureServing.KeyFile = filepath.Join(dir, "tls.key")
			address := serve(t, config, echo)
			served := func() string {
				connection, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true})
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = connection.Close() }()
				return connection.ConnectionState().PeerCertificates[0].Subject.CommonName
			}
			if got := served(); got != "first.example" {
				t.Errorf("at first: got the certificate of %s, want first.example", got)
			}
			for _, next := range []string{"second.example", "third.example"} {
				issue(next)
				eventually(t, "the certificate of "+next, func() bool { return served() == next })
			}
		})
	}
}

// replaceFiles puts each file in the place of the last at once.
func replaceFiles(t *testing.T, dir string, certificate, key []byte) {
	for name, content := range map[string][]byte{"tls.crt": certificate, "tls.key": key} {
		next := filepath.Join(dir, "next")
		must(t, os.WriteFile(next, content, 0o600))
		must(t, os.Rename(next, filepath.Join(dir, name)))
	}
}

// replaceSecret does what the kubelet does in the volume of a Secret: the files are
// links through a link to a directory, and that link is replaced.
func replaceSecret(t *testing.T, dir string, certificate, key []byte) {
	data, err := os.MkdirTemp(dir, "..version")
	must(t, err)
	must(t, os.WriteFile(filepath.Join(data, "tls.crt"), certificate, 0o600))
	must(t, os.WriteFile(filepath.Join(data, "tls.key"), key, 0o600))
	current, next := filepath.Join(dir, "..data"), filepath.Join(dir, "..data_tmp")
	before, _ := os.Readlink(current)
	must(t, os.Symlink(data, next))
	must(t, os.Rename(next, current))
	if before != "" {
		must(t, os.RemoveAll(before))
		return
	}
	for _, name := range []string{"tls.crt", "tls.key"} {
		must(t, os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)))
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestCertificateDirectoryKeepsTheCertificate(t *testing.T) {
	dir := t.TempDir()
	var before []byte
	for range 2 {
		t.Run("start", func(t *testing.T) {
			config := defaults(t, nil)
			config.SecureServing.CertDirectory = dir
			url := "https://" + serve(t, config, echo)
			if status, body := send(t, browser(&tls.Config{}), "GET", url+"/livez", ""); status != 200 {
				t.Errorf("got %d %q, want 200", status, body)
			}
		})
		written, err := os.ReadFile(filepath.Join(dir, "test.crt"))
		if err != nil {
			t.Fatal(err)
		}
		if before != nil && string(before) != string(written) {
			t.Error("the second start has made another certificate")
		}
		before = written
	}
}

func TestPlainHTTPIsToldToUseHTTPS(t *testing.T) {
	address := serve(t, defaults(t, nil), echo)
	response, err := http.Get("http://" + address + "/livez")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	body, _ := io.ReadAll(response.Body)
	if response.StatusCode != 400 || !strings.Contains(string(body), "HTTPS server") {
		t.Errorf("got %d %q, want 400 and a word about HTTPS", response.StatusCode, body)
	}
}

func TestOldTLSIsRefused(t *testing.T) {
	address := serve(t, defaults(t, nil), echo)
	for version, want := range map[uint16]bool{tls.VersionTLS10: false, tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true} {
		connection, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true, MinVersion: version, MaxVersion: version})
		if err == nil {
			_ = connection.Close()
		}
		if got := err == nil; got != want {
			t.Errorf("%s: accepted %v (%v), want %v", tls.VersionName(version), got, err, want)
		}
	}
}

func TestOversizedRequestsAreRefused(t *testing.T) {
	config := defaults(t, nil)
	config.Authorization.AlwaysAllowPaths = []string{"/*"}
	address := serve(t, config, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
		}
	}))
	exchange := func(headers string, body int) string {
		connection, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = connection.Close() }()
		go func() { // the server may answer, and hang up, before it has all
			_, _ = fmt.Fprintf(connection, "PUT / HTTP/1.1\r\nHost: x\r\n%sContent-Length: %d\r\n\r\n", headers, body)
			_, _ = io.WriteString(connection, strings.Repeat("x", body))
		}()
		status, err := bufio.NewReader(connection).ReadString('\n')
		if err != nil {
			return "cut"
		}
		return strings.TrimSpace(status)
	}
	if got := exchange("", 64<<10); !strings.Contains(got, " 200 ") {
		t.Errorf("a body of 64 KiB: got %q, want 200", got)
	}
	if got := exchange("", 64<<10+1); !strings.Contains(got, " 413 ") {
		t.Errorf("a larger body: got %q, want 413", got)
	}
	if got := exchange("X: "+strings.Repeat("x", 60<<10)+"\r\n", 0); !strings.Contains(got, " 200 ") {
		t.Errorf("a header of 60 KiB: got %q, want 200", got)
	}
	for _, size := range []int{70 << 10, 140 << 10, 1 << 20} {
		if got := exchange("X: "+strings.Repeat("x", size)+"\r\n", 0); got != "cut" && !strings.Contains(got, " 431 ") {
			t.Errorf("a header of %d bytes: got %q, want 431 or that it is cut", size, got)
		}
	}

	// HTTP/2 compresses headers, but not these.
	request, err := http.NewRequest("GET", "https://"+address+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("X", strings.Repeat("~", 140<<10))
	if response, err := browser(&tls.Config{}).Do(request); err == nil {
		t.Errorf("a large header by HTTP/2: got %s, want it cut", response.Status)
		_ = response.Body.Close()
	}
}

// TestCertificateIsChosenByTheNameThatTheClientWants has further certificates for names
// that are given and for names of their own.
func TestCertificateIsChosenByTheNameThatTheClientWants(t *testing.T) {
	ca, dir := newAuthority(t), t.TempDir()
	files := func(name string) (certFile, keyFile string) {
		certificate, key := ca.issue(t, name)
		certFile, keyFile = filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")
		must(t, os.WriteFile(certFile, certificate, 0o600))
		must(t, os.WriteFile(keyFile, key, 0o600))
		return certFile, keyFile
	}
	config := defaults(t, nil)
	config.SecureServing.CertFile, config.SecureServing.KeyFile = files("default.example")
	for name, names := range map[string][]string{
		"own.example":   nil, // those in the certificate
		"given.example": {"a.given.example", "own2.example", "127.0.0.1"},
		"wild.example":  {"*.wild.example", "*.given.example"},
		"own2.example":  nil,
	} {
		certFile, keyFile := files(name)
		config.SecureServing.SNICertKeys = append(config.SecureServing.SNICertKeys, cliflag.NamedCertKey{Names: names, CertFile: certFile, KeyFile: keyFile})
	}
	address := serve(t, config, echo)
	for wanted, want := range map[string]string{
		"other.example":     "default.example",
		"own.example":       "own.example",
		"OWN.example":       "own.example",
		"a.given.example":   "given.example", // a whole name wins
		"b.given.example":   "wild.example",
		"a.wild.example":    "wild.example",
		"a.b.wild.example":  "default.example",
		"wild.example":      "default.example", // a wildcard stands for one label
		"own2.example":      "given.example",   // a given name wins
		"":                  "given.example",   // the address that the client has come to
		"something.default": "default.example",
	} {
		connection, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true, ServerName: wanted})
		if err != nil {
			t.Fatal(err)
		}
		if got := connection.ConnectionState().PeerCertificates[0].Subject.CommonName; got != want {
			t.Errorf("%q: got the certificate of %s, want that of %s", wanted, got, want)
		}
		_ = connection.Close()
	}
}

// TestClientsAreToldWhoseCertificatesCount lets a browser choose among its own.
func TestClientsAreToldWhoseCertificatesCount(t *testing.T) {
	ca := newAuthority(t)
	for name, tc := range map[string]struct {
		file string
		want int // names of CAs, or -1: no certificate is asked for
	}{
		"a CA": {filepath.Join(t.TempDir(), "ca.crt"), 1},
		"none": {"", -1},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.file != "" {
				must(t, os.WriteFile(tc.file, ca.pem, 0o600))
			}
			config := defaults(t, nil)
			config.Authentication.ClientCAFile = tc.file
			got := -1
			connection, err := tls.Dial("tcp", serve(t, config, echo), &tls.Config{
				InsecureSkipVerify: true,
				GetClientCertificate: func(asked *tls.CertificateRequestInfo) (*tls.Certificate, error) {
					got = len(asked.AcceptableCAs)
					return &tls.Certificate{}, nil
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			_ = connection.Close()
			if got != tc.want {
				t.Errorf("got %d CAs, want %d", got, tc.want)
			}
		})
	}
}

// TestIdleServerOnlyAccepts counts goroutines: none is there to watch or to tick.
func TestIdleServerOnlyAccepts(t *testing.T) {
	before := runtime.NumGoroutine()
	config := defaults(t, (&reviewers{}).start(t))
	between := runtime.NumGoroutine() - before
	url := "https://" + serve(t, config, echo)
	send(t, browser(&tls.Config{}), "GET", url+"/livez", "")
	eventually(t, "no goroutine but Serve and what accepts", func() bool { return runtime.NumGoroutine()-before-between <= 2 })
}
