// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package faults

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// cluster is the local cluster that all scenarios share.
type cluster struct {
	folder  string // holds everything of it
	data    string // the cluster's data folder
	rest    *rest.Config
	client  kubernetes.Interface
	faults  *http.Client // of the fault injector
	process *exec.Cmd
	output  bytes.Buffer // of the process; read only once it has ended
	watcher *observer
	room    *room
}

var (
	shared *cluster
	report = &tables{}
	// trials is how often a scenario is tried in the long campaign, 0 in the short.
	trials int
)

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	flag.Parse()
	if text := os.Getenv("TRIALS"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			fmt.Fprintf(os.Stderr, "TRIALS=%q: want a number of trials, for instance 20\n", text)
			return 2
		}
		trials = n
	}
	// Trials wait most of their time. What bounds how many run is the room for Pods.
	if err := flag.Set("test.parallel", "1000"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	c, err := start()
	if err != nil {
		fmt.Fprintln(os.Stderr, "the local cluster does not start:", err)
		return 1
	}
	shared = c
	code := m.Run()
	text := report.markdown()
	fmt.Print(text)
	if path := os.Getenv("REPORT"); path != "" {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			fmt.Fprintln(os.Stderr, "FAIL: report:", err)
			code = 1
		}
	}
	if err := c.stop(); err != nil {
		fmt.Fprintln(os.Stderr, "FAIL: the local cluster does not stop cleanly:", err)
		code = 1
	}
	return code
}

// times returns long in the long campaign with TRIALS=20, in proportion with another
// number, and short in the short campaign.
func times(short, long int) int {
	if trials == 0 {
		return short
	}
	return max(min(1, long), (long*trials+10)/20)
}

func start() (*cluster, error) {
	root, err := filepath.Abs("../..")
	if err != nil {
		return nil, err
	}
	folder, err := os.MkdirTemp("", "faults-")
	if err != nil {
		return nil, err
	}
	binaries := filepath.Join(folder, "bin") + string(filepath.Separator)
	for _, command := range [][]string{
		{"make", "bin/localcluster"},
		{"go", "build", "-o", binaries, "./test/faults/ours", "./test/faults/stock"},
	} {
		build := exec.Command(command[0], command[1:]...)
		build.Dir = root
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		build.Stdout, build.Stderr = os.Stdout, os.Stderr
		if err := build.Run(); err != nil {
			return nil, fmt.Errorf("%q: %w", command, err)
		}
	}
	c := &cluster{folder: folder, data: filepath.Join(folder, "cluster"), room: newRoom(maxPods)}
	c.faults = &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(c.data, "control.sock"))
		},
	}}
	kubeconfig := filepath.Join(folder, "kubeconfig")
	c.process = exec.Command(filepath.Join(root, "bin/localcluster"), "up", "--data", c.data, "--kubeconfig", kubeconfig,
		"--image", "faults/ours="+binaries+"ours", "--image", "faults/stock="+binaries+"stock")
	c.process.Stdout, c.process.Stderr = &c.output, &c.output
	if err := c.process.Start(); err != nil {
		return nil, err
	}
	err = c.awaitReady(kubeconfig)
	if err == nil {
		err = c.versions(root)
	}
	if err != nil {
		_ = c.process.Process.Signal(syscall.SIGTERM)
		_ = c.process.Wait()
		return nil, fmt.Errorf("%w\n%s", err, c.output.String())
	}
	c.watcher = observe(c)
	return c, nil
}

// versions asks for what the report names.
func (c *cluster) versions(root string) error {
	server, err := c.client.Discovery().ServerVersion()
	if err != nil {
		return err
	}
	list := exec.Command("go", "list", "-m", "-f", "{{.Version}}", "k8s.io/client-go")
	list.Dir = root
	client, err := list.Output()
	report.server, report.client = server.GitVersion, strings.TrimSpace(string(client))
	return err
}

func (c *cluster) awaitReady(kubeconfig string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	return poll(ctx, func() error {
		if c.client == nil {
			config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
			if err != nil {
				return err
			}
			config.QPS = -1
			c.rest = config
			if c.client, err = kubernetes.NewForConfig(config); err != nil {
				return err
			}
		}
		_, err := c.client.CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{})
		return err
	})
}

// stop ends the cluster. Its processes end with it.
func (c *cluster) stop() error {
	c.watcher.stop()
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
	return os.RemoveAll(c.folder)
}

// control asks the fault injector for something, as `localcluster fault` does.
func (c *cluster) control(ctx context.Context, method, path string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, method, "http://localcluster"+path, nil)
	if err != nil {
		return "", err
	}
	response, err := c.faults.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", path, body)
	}
	return strings.TrimSpace(string(body)), err
}

// component makes a component of the control plane fail.
func (c *cluster) component(t *testing.T, name, action string) {
	t.Helper()
	if _, err := c.control(context.Background(), http.MethodPost, "/components/"+name+"/"+action); err != nil {
		t.Fatal(err)
	}
}

// answers waits until the API server answers and is ready.
func (c *cluster) answers(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if err := poll(ctx, func() error {
		once, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		return c.client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(once).Error()
	}); err != nil {
		t.Fatalf("the API server is not back: %v", err)
	}
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
		case <-time.After(20 * time.Millisecond):
		}
	}
}
