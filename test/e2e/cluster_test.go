// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

// Package e2e runs the shipped binary on a real control plane, as its users do: it
// starts a local cluster, applies the manifests, and does to it what happens to
// clusters. `go test` in this folder builds everything that it needs.
package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// cluster is the local cluster that all tests of this package share.
type cluster struct {
	root       string // the repository
	folder     string // holds all that follows
	data       string // the cluster's data folder
	kubeconfig string
	binaries   string // folder of binaries built for the tests
	rest       *rest.Config
	client     kubernetes.Interface
	process    *exec.Cmd
	output     bytes.Buffer // of the process; read only once it has ended
}

var shared *cluster

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) (code int) {
	c, err := start()
	if err != nil {
		fmt.Fprintln(os.Stderr, "the local cluster does not start:", err)
		return 1
	}
	shared = c
	code = m.Run()
	if code == 0 && flag.Lookup("test.run").Value.String() == "" {
		// What no single test sees: over a run of all tests, the manager did what its
		// RBAC rules allow and used all of them.
		if err := checkAudit(c); err != nil {
			fmt.Fprintln(os.Stderr, "FAIL: audit log:", err)
			code = 1
		}
	}
	if err := c.stop(); err != nil {
		fmt.Fprintln(os.Stderr, "FAIL: the local cluster does not stop cleanly:", err)
		code = 1
	}
	return code
}

func start() (*cluster, error) {
	root, err := filepath.Abs("../..")
	if err != nil {
		return nil, err
	}
	folder, err := os.MkdirTemp("", "incumbent-e2e-")
	if err != nil {
		return nil, err
	}
	data := filepath.Join(folder, "cluster")
	c := &cluster{root: root, folder: folder, data: data, kubeconfig: filepath.Join(folder, "kubeconfig"), binaries: filepath.Join(folder, "bin")}
	for _, command := range [][]string{
		{"make", "build"},
		{"go", "build", "-o", c.binaries + "/", "./test/e2e/stubborn", "./test/e2e/faulty"},
	} {
		build := exec.Command(command[0], command[1:]...)
		build.Dir = root
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		build.Stdout, build.Stderr = os.Stdout, os.Stderr
		if err := build.Run(); err != nil {
			return nil, fmt.Errorf("%q: %w", command, err)
		}
	}
	c.process = exec.Command(filepath.Join(root, "bin/localcluster"), "up",
		"--data", data, "--kubeconfig", c.kubeconfig,
		"--image", "incumbent-io/manager="+filepath.Join(root, "bin/manager"),
		"--image", "incumbent-io/stubborn="+filepath.Join(c.binaries, "stubborn"))
	c.process.Stdout, c.process.Stderr = &c.output, &c.output
	if err := c.process.Start(); err != nil {
		return nil, err
	}
	if err := c.awaitReady(); err != nil {
		_ = c.process.Process.Signal(syscall.SIGTERM)
		_ = c.process.Wait()
		return nil, fmt.Errorf("%w\n%s", err, c.output.String())
	}
	return c, nil
}

func (c *cluster) awaitReady() error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	return poll(ctx, func() error {
		if c.client == nil {
			config, err := clientcmd.BuildConfigFromFlags("", c.kubeconfig)
			if err != nil {
				return err
			}
			config.QPS = -1
			if c.client, err = kubernetes.NewForConfig(config); err != nil {
				return err
			}
			c.rest = config
		}
		_, err := c.client.CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{})
		return err
	})
}

// awaitAPIServer waits until the API server says that it is ready.
func (c *cluster) awaitAPIServer() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return poll(ctx, func() error {
		return c.client.CoreV1().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
	})
}

// stop ends the cluster and makes sure that nothing of it is left.
func (c *cluster) stop() error {
	if err := c.process.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- c.process.Wait() }()
	select {
	case err := <-ended:
		if err != nil {
			return fmt.Errorf("%w\n%s", err, c.output.String())
		}
	case <-time.After(time.Minute):
		_ = c.process.Process.Kill()
		return errors.New("it was still running a minute after SIGTERM")
	}
	left, err := processesOf(c.folder)
	if err != nil {
		return err
	}
	if len(left) > 0 {
		return fmt.Errorf("processes left behind: %q", left)
	}
	return os.RemoveAll(c.folder)
}

// processesOf returns the command lines of all processes that have the folder in
// theirs, or as their root or working directory.
func processesOf(folder string) (list []string, err error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		dir := filepath.Join("/proc", entry.Name())
		command, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil || entry.Name() == fmt.Sprint(os.Getpid()) {
			continue // not a process, or one that has just ended
		}
		root, _ := os.Readlink(filepath.Join(dir, "root"))
		work, _ := os.Readlink(filepath.Join(dir, "cwd"))
		if strings.Contains(string(command)+root+work, folder) {
			list = append(list, strings.ReplaceAll(string(command), "\x00", " "))
		}
	}
	return list, nil
}

// poll calls f, at first often, until it returns nil. If ctx ends before, it returns
// f's last error.
func poll(ctx context.Context, f func() error) error {
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// eventually waits until f returns nil, and fails the test with f's last error if
// that takes longer than the limit. It returns how long it took.
func eventually(t *testing.T, limit time.Duration, what string, f func() error) time.Duration {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	began := time.Now()
	if err := poll(ctx, f); err != nil {
		t.Fatalf("%s: not within %v: %v", what, limit, err)
	}
	return time.Since(began)
}

// kubectl runs kubectl as a user would and returns what it prints.
func (c *cluster) kubectl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := c.tool(t, "kubectl", args...)
	if err != nil {
		t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// fault injects a fault with the local cluster's own command.
func (c *cluster) fault(t *testing.T, args ...string) string {
	t.Helper()
	out, err := c.tool(t, "localcluster", append([]string{"fault", "--data", c.data}, args...)...)
	if err != nil {
		t.Fatalf("fault %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func (c *cluster) tool(t *testing.T, name string, args ...string) (string, error) {
	t.Helper()
	return c.runWith(t.Context(), name, args...)
}

// run is for cleaning up, when the test's own context has ended.
func (c *cluster) run(name string, args ...string) (string, error) {
	return c.runWith(context.Background(), name, args...)
}

func (c *cluster) runWith(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(c.root, "bin", name), args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.kubeconfig)
	cmd.Dir = c.root
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// namespace makes a namespace for the test and removes it afterwards.
func (c *cluster) namespace(t *testing.T, name string) {
	t.Helper()
	c.kubectl(t, "create", "namespace", name)
	eventually(t, 10*time.Second, "service account of namespace "+name, func() error {
		_, err := c.client.CoreV1().ServiceAccounts(name).Get(t.Context(), "default", metav1.GetOptions{})
		return err
	})
	t.Cleanup(func() {
		err := c.client.CoreV1().Namespaces().Delete(context.Background(), name, metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			t.Errorf("remove namespace %s: %v", name, err)
		}
	})
}

// insecure accepts the managers' self-signed certificates.
var insecure = &http.Client{Transport: &http.Transport{
	TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
	DisableKeepAlives: true,
}}

// get fetches a page of a manager over HTTPS with a self-signed certificate.
func get(t *testing.T, url string) (status int, body string, err error) {
	t.Helper()
	return getAs(t, url, "")
}

// getAs fetches a page with a token, "" for none.
func getAs(t *testing.T, url, token string) (status int, body string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
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
	var content bytes.Buffer
	_, err = content.ReadFrom(response.Body)
	return response.StatusCode, content.String(), err
}
