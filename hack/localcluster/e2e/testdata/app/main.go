// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

// app is the program that the tests run as a container: it shows what a container sees, and fails on request.
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

func main() {
	command, args := "serve", []string(nil)
	if len(os.Args) > 1 {
		command, args = os.Args[1], os.Args[2:]
	}
	switch command {
	case "serve":
		serve(args)
	case "exit": // CODE [TEXT]: print the text and end
		fmt.Println(strings.Join(args[1:], " "))
		code, err := strconv.Atoi(args[0])
		check(err)
		os.Exit(code)
	case "cat": // FILE...: print files
		for _, name := range args {
			content, err := os.ReadFile(name)
			check(err)
			_, err = os.Stdout.Write(content)
			check(err)
		}
	case "write": // FILE TEXT
		check(os.WriteFile(args[0], []byte(args[1]), 0o644))
	case "echo": // copy the input to the output
		_, err := io.Copy(os.Stdout, os.Stdin)
		check(err)
	default:
		fmt.Fprintln(os.Stderr, "unknown command", command)
		os.Exit(2)
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// serve answers on POD_IP, with HTTP on port 8080 and HTTPS on 8443. SIGTERM ends it after SHUTDOWN_DELAY (default 0).
func serve(args []string) {
	var healthy, ready, hang atomic.Bool
	healthy.Store(true)
	ready.Store(true)
	mux := http.NewServeMux()
	verdict := func(b *atomic.Bool) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if hang.Load() {
				<-r.Context().Done()
				return
			}
			if !b.Load() {
				http.Error(w, "no", http.StatusInternalServerError)
			}
		}
	}
	set := func(b *atomic.Bool, value bool) http.HandlerFunc {
		return func(http.ResponseWriter, *http.Request) { b.Store(value) }
	}
	mux.HandleFunc("/healthz", verdict(&healthy))
	mux.HandleFunc("/readyz", verdict(&ready))
	mux.HandleFunc("/set/unhealthy", set(&healthy, false))
	mux.HandleFunc("/set/unready", set(&ready, false))
	mux.HandleFunc("/set/ready", set(&ready, true))
	mux.HandleFunc("/set/hang", set(&hang, true))
	mux.HandleFunc("/facts", func(w http.ResponseWriter, _ *http.Request) { writeFacts(w, args) })
	mux.HandleFunc("/api/", func(w http.ResponseWriter, r *http.Request) {
		body, err := callAPIServer(r.URL.Path)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		_, _ = w.Write(body)
	})
	ip := os.Getenv("POD_IP")
	plain, err := net.Listen("tcp", net.JoinHostPort(ip, "8080"))
	check(err)
	secure, err := net.Listen("tcp", net.JoinHostPort(ip, "8443"))
	check(err)
	go func() { check(http.Serve(plain, mux)) }()
	go func() { check(http.Serve(tls.NewListener(secure, selfSigned()), mux)) }()

	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	fmt.Println("serving on", ip)
	fmt.Fprintln(os.Stderr, "a line on stderr")
	<-stop
	fmt.Println("SIGTERM")
	if delay, err := time.ParseDuration(os.Getenv("SHUTDOWN_DELAY")); err == nil {
		time.Sleep(delay)
	}
	fmt.Println("bye")
}

func writeFacts(w io.Writer, args []string) {
	hostname, _ := os.Hostname()
	_, proc := os.Stat("/proc/self/stat")
	_, null := os.ReadFile("/dev/null")
	_ = json.NewEncoder(w).Encode(map[string]any{
		"env": os.Environ(), "args": args, "hostname": hostname, "uid": os.Getuid(), "gid": os.Getgid(), "pid": os.Getpid(),
		"proc": proc == nil, "null": null == nil,
	})
}

// callAPIServer does what in-cluster configuration does: the address of the environment, the CA and token of the service account.
func callAPIServer(path string) ([]byte, error) {
	const account = "/var/run/secrets/kubernetes.io/serviceaccount/"
	ca, err := os.ReadFile(account + "ca.crt")
	if err != nil {
		return nil, err
	}
	token, err := os.ReadFile(account + "token")
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	client := &http.Client{
		Timeout:   2 * time.Second,
		Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: pool}},
	}
	host := net.JoinHostPort(os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT"))
	request, err := http.NewRequest(http.MethodGet, "https://"+host+path, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+string(token))
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	return []byte(fmt.Sprintf("%d %s", response.StatusCode, body)), nil
}

func selfSigned() *tls.Config {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	check(err)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}
