// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package faults

import (
	"context"
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
	"testing"

	"github.com/incumbent-io/incumbent/test/cluster"
)

// stage is the local cluster that all scenarios share, and what watches it.
type stage struct {
	*cluster.Cluster
	faults  *http.Client // of the fault injector
	watcher *observer
	room    *room
}

var (
	shared *stage
	report = &tables{}
	// trials is how often a scenario is tried in the long campaign, 0 in the short.
	trials int
)

func TestMain(m *testing.M) {
	flag.Parse()
	if text := os.Getenv("TRIALS"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			fmt.Fprintf(os.Stderr, "TRIALS=%q: want a number of trials, for instance 20\n", text)
			os.Exit(2)
		}
		trials = n
	}
	// Trials wait most of their time. What bounds how many run is the room for Pods.
	if err := flag.Set("test.parallel", "1000"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	config := cluster.Config{Programs: []string{"./test/faults/ours", "./test/faults/stock"}}
	os.Exit(cluster.Main(config, func(c *cluster.Cluster) int {
		code, err := run(m, c)
		if err != nil {
			fmt.Fprintln(os.Stderr, "FAIL:", err)
			return 1
		}
		return code
	}))
}

// run runs the tests, prints their report and writes it to the file REPORT.
func run(m *testing.M, c *cluster.Cluster) (code int, err error) {
	if shared, err = newStage(c); err != nil {
		return 0, err
	}
	code = m.Run()
	shared.watcher.stop()
	text := report.markdown()
	fmt.Print(text)
	if path := os.Getenv("REPORT"); path != "" {
		err = os.WriteFile(path, []byte(text), 0o644)
	}
	return code, err
}

// times returns long in the long campaign with TRIALS=20, in proportion with another
// number, and short in the short campaign.
func times(short, long int) int {
	if trials == 0 {
		return short
	}
	return max(min(1, long), (long*trials+10)/20)
}

func newStage(running *cluster.Cluster) (*stage, error) {
	c := &stage{Cluster: running, room: newRoom(maxPods)}
	c.faults = &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(c.Data, "control.sock"))
		},
	}}
	if err := c.versions(); err != nil {
		return nil, err
	}
	c.watcher = observe(c)
	return c, nil
}

// versions asks for what the report names.
func (c *stage) versions() error {
	server, err := c.Client.Discovery().ServerVersion()
	if err != nil {
		return err
	}
	list := exec.Command("go", "list", "-m", "-f", "{{.Version}}", "k8s.io/client-go")
	list.Dir = c.Root
	client, err := list.Output()
	report.server, report.client = server.GitVersion, strings.TrimSpace(string(client))
	return err
}

// control asks the fault injector for something, as `localcluster fault` does.
func (c *stage) control(ctx context.Context, method, path string) (string, error) {
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
func (c *stage) component(t *testing.T, name, action string) {
	t.Helper()
	if _, err := c.control(context.Background(), http.MethodPost, "/components/"+name+"/"+action); err != nil {
		t.Fatal(err)
	}
}

// answers waits until the API server answers and is ready.
func (c *stage) answers(t *testing.T) {
	t.Helper()
	if err := c.AwaitAPIServer(); err != nil {
		t.Fatalf("the API server is not back: %v", err)
	}
}
