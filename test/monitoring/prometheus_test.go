// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package monitoring

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/incumbent-io/incumbent/test/cluster"
)

// faster is how many times faster than in a cluster everything goes: Prometheus scrapes
// every half second instead of every 30 s, and a minute in a rule is a second.
const faster = 60

// step is the time between two scrapes.
const step = 30 * time.Second / faster

// rulesFile takes the groups out of the PrometheusRule.
func rulesFile(t *testing.T, name string, change func(string) string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(shared.Root, "manifests/components/monitoring/rules.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	_, groups, ok := strings.Cut(string(content), "\nspec:\n")
	if !ok {
		t.Fatal("rules.yaml has no spec")
	}
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(change(groups)), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

var minutes = regexp.MustCompile(`(for: |\[)(\d+)m`)

// hastened makes seconds of minutes.
func hastened(rules string) string { return minutes.ReplaceAllString(rules, "${1}${2}s") }

// prometheus is a real one, which scrapes the managers that it is told of.
type prometheus struct {
	address string
	targets string // file of the targets

	mu   sync.Mutex
	pods map[string]target
}

type target struct {
	Targets []string          `json:"targets"`
	Labels  map[string]string `json:"labels"`
}

func startPrometheus(t *testing.T) *prometheus {
	t.Helper()
	folder := t.TempDir()
	port := cluster.FreePort(t)
	p := &prometheus{address: "http://127.0.0.1:" + port, targets: filepath.Join(folder, "targets.json"), pods: map[string]target{}}
	p.write(t)
	config := fmt.Sprintf(`
global: {scrape_interval: %[1]v, scrape_timeout: 400ms, evaluation_interval: %[1]v}
rule_files: [%[2]q]
scrape_configs:
  - job_name: incumbent
    scheme: https
    tls_config: {insecure_skip_verify: true}
    authorization: {credentials_file: %[4]q}
    file_sd_configs: [{files: [%[3]q], refresh_interval: 1s}]
`, step, rulesFile(t, "rules.yaml", hastened), p.targets, tokenOfPrometheus(t, folder))
	path := filepath.Join(folder, "prometheus.yaml")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(folder, "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(shared.Root, "bin/prometheus"), "--config.file="+path,
		"--storage.tsdb.path="+filepath.Join(folder, "data"), "--web.listen-address=127.0.0.1:"+port, "--scrape.discovery-reload-interval=100ms")
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		if content, err := os.ReadFile(log.Name()); err == nil && t.Failed() {
			t.Logf("Prometheus:\n%s", content[max(0, len(content)-3000):])
		}
	})
	cluster.Eventually(t, 20*time.Second, "a Prometheus that is ready", func() error {
		_, err := p.get(t.Context(), "/-/ready", nil)
		return err
	})
	return p
}

// tokenOfPrometheus makes the account that the component lets in, and writes a token of
// it into the folder.
func tokenOfPrometheus(t *testing.T, folder string) (path string) {
	t.Helper()
	shared.Namespace(t, "monitoring")
	shared.Kubectl(t, "-n", "monitoring", "create", "serviceaccount", "prometheus-k8s")
	shared.Kubectl(t, "apply", "-f", "manifests/components/monitoring/metrics-reader.yaml", "--validate=strict")
	path = filepath.Join(folder, "token")
	if err := os.WriteFile(path, []byte(shared.Kubectl(t, "-n", "monitoring", "create", "token", "prometheus-k8s")), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// scrape has a manager scraped as the Pod of a namespace, until forget.
func (p *prometheus) scrape(t *testing.T, namespace, pod string, process *cluster.Process) (forget func()) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pods[namespace+"/"+pod] = target{Targets: []string{strings.TrimPrefix(process.Address, "https://")}, Labels: map[string]string{"namespace": namespace, "pod": pod, "instance": pod}}
	p.write(t)
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.pods, namespace+"/"+pod)
		p.write(t)
	}
}

func (p *prometheus) write(t *testing.T) {
	t.Helper()
	content, err := json.Marshal(slices.Collect(maps.Values(p.pods)))
	if len(p.pods) == 0 {
		content = []byte("[]")
	}
	if err == nil {
		err = os.WriteFile(p.targets+".new", content, 0o600)
	}
	if err == nil {
		err = os.Rename(p.targets+".new", p.targets)
	}
	if err != nil {
		t.Error(err)
	}
}

func (p *prometheus) get(ctx context.Context, path string, query url.Values) ([]series, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, p.address+path+"?"+query.Encode(), nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", path, response.Status)
	}
	if query == nil {
		return nil, nil
	}
	var answer struct {
		Data struct{ Result []series }
	}
	err = json.NewDecoder(response.Body).Decode(&answer)
	return answer.Data.Result, err
}

// series is a result of a query.
type series struct {
	Metric map[string]string
	Values [][2]any // of a range: Unix seconds, value as text
}

func (p *prometheus) query(t *testing.T, expression string) []series {
	t.Helper()
	result, err := p.get(t.Context(), "/api/v1/query", url.Values{"query": {expression}})
	if err != nil {
		t.Fatalf("query %s: %v", expression, err)
	}
	return result
}

// awaitScrape waits until a Pod has been scraped. Prometheus looks for new targets
// every five seconds.
func (p *prometheus) awaitScrape(t *testing.T, namespace, pod string) {
	t.Helper()
	cluster.Eventually(t, 20*time.Second, "a scrape of "+pod, func() error {
		if len(p.query(t, fmt.Sprintf(`up{namespace=%q,pod=%q} == 1`, namespace, pod))) == 0 {
			return fmt.Errorf("%s/%s has not been scraped", namespace, pod)
		}
		return nil
	})
}

// firing returns the alerts of a namespace that have fired so far, "" for those of none.
func (p *prometheus) firing(t *testing.T, namespace string) (names []string) {
	t.Helper()
	for _, s := range p.query(t, fmt.Sprintf(`last_over_time(ALERTS{alertstate="firing",namespace=%q}[1h])`, namespace)) {
		names = append(names, s.Metric["alertname"])
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// await waits until an alert fires.
func (p *prometheus) await(t *testing.T, limit time.Duration, namespace, alert string) {
	t.Helper()
	took := cluster.Eventually(t, limit, alert, func() error {
		if firing := p.firing(t, namespace); !slices.Contains(firing, alert) {
			return fmt.Errorf("these have fired: %q", firing)
		}
		return nil
	})
	t.Logf("%s: %s fires after %.1f s, %.0f min in a cluster", namespace, alert, took.Seconds(), took.Seconds()*faster/60)
}
