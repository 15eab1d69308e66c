// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/incumbent-io/incumbent/test/cluster"
)

// entry is one line of a log: its keys, with the message under "msg".
type entry map[string]string

// parseJSON reads a log in JSON. Every line must be one object in which no key comes
// twice.
func parseJSON(t *testing.T, log string) (entries []entry) {
	t.Helper()
	for line := range strings.Lines(log) {
		decoder := json.NewDecoder(strings.NewReader(line))
		e := entry{}
		if token, err := decoder.Token(); err != nil || token != json.Delim('{') {
			t.Fatalf("not an object (%v): %s", err, line)
		}
		for decoder.More() {
			key, err := decoder.Token()
			var value json.RawMessage
			if err == nil {
				err = decoder.Decode(&value)
			}
			name := fmt.Sprint(key)
			if _, twice := e[name]; err != nil || twice {
				t.Fatalf("key %s (comes twice: %v, %v): %s", name, twice, err, line)
			}
			var text string
			if json.Unmarshal(value, &text) != nil {
				text = string(value)
			}
			e[name] = text
		}
		if _, err := decoder.Token(); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if rest, _ := io.ReadAll(decoder.Buffered()); len(bytes.TrimSpace(rest)) > 0 {
			t.Fatalf("more than an object: %s", line)
		}
		entries = append(entries, e)
	}
	return entries
}

var (
	textLine = regexp.MustCompile(`^[IWEF]\d{4} \d\d:\d\d:\d\d\.\d{6} +\d+ [\w.]+:\d+\] ("(?:[^"\\]|\\.)*"|.*?)((?: \w+=(?:"(?:[^"\\]|\\.)*"|<|\S*))*)$`)
	textPair = regexp.MustCompile(`(\w+)=("(?:[^"\\]|\\.)*"|\S*)`)
)

// parseText reads a log in klog's text format. Every line must have its header, or
// belong to a value of several lines, which is indented.
func parseText(t *testing.T, log string) (entries []entry) {
	t.Helper()
	unquote := func(text string) string {
		if plain, err := strconv.Unquote(text); err == nil {
			return plain
		}
		return text
	}
	for line := range strings.Lines(log) {
		line = strings.TrimSuffix(line, "\n")
		if strings.HasPrefix(line, "\t") || strings.HasPrefix(line, " >") {
			continue
		}
		parts := textLine.FindStringSubmatch(line)
		if parts == nil {
			t.Fatalf("not a line of a log: %s", line)
		}
		e := entry{"msg": unquote(parts[1])}
		for _, pair := range textPair.FindAllStringSubmatch(parts[2], -1) {
			e[pair[1]] = unquote(pair[2])
		}
		entries = append(entries, e)
	}
	return entries
}

// story is what a log tells of leading, in the order of the log: the messages with the
// keys that matter, the manager's own at -v=0. Processes are called by their Pod's name,
// and epochs by their order.
func story(entries []entry, epochs map[string]string) (lines []string) {
	for _, e := range entries {
		if e["logger"] != "incumbent" || e["v"] != "" && e["v"] != "0" {
			continue
		}
		text := e["msg"]
		for _, key := range []string{"epoch", "reason", "previous", "holder", "op"} {
			value, there := e[key]
			if !there || e["msg"] == "Controller gate" {
				continue
			}
			if key == "epoch" {
				value = epochs[value]
			}
			name, _, _ := strings.Cut(value, "_") // an identity begins with the Pod's name
			text += fmt.Sprintf(" %s=%s", key, name)
		}
		lines = append(lines, text)
	}
	return lines
}

// settled leaves out of a story what depends on the pace of the machine.
func settled(lines []string) []string {
	lines = slices.DeleteFunc(slices.Clone(lines), func(line string) bool {
		return strings.HasPrefix(line, "Caches are ") || strings.HasPrefix(line, "Starting before the informers")
	})
	for i, line := range lines {
		if strings.HasPrefix(line, "Lease requests work again") {
			lines[i] = "Lease requests work again" // whichever comes first
		}
	}
	lines = slices.Compact(lines) // a long outage is logged again after 10 s
	for i := len(lines) - 2; i >= 0; i-- {
		if strings.HasPrefix(lines[i], "Lease request failed, retrying") && lines[i+1] == "Lease requests work again" {
			lines = slices.Delete(lines, i, i+2) // one request of a short timeout
		}
	}
	return lines
}

// numbered gives the epochs in the logs names by their order.
func numbered(logs ...[]entry) map[string]string {
	all := map[string]string{}
	for _, e := range slices.Concat(logs...) {
		if epoch := e["epoch"]; epoch != "" {
			all[epoch] = ""
		}
	}
	for i, epoch := range slices.Sorted(maps.Keys(all)) {
		all[epoch] = strconv.Itoa(i + 1)
	}
	return all
}

// wire lies between a manager and the API server. While it is cut, nothing arrives, as
// when a network drops packets.
type wire struct {
	mu  sync.Mutex
	ok  *sync.Cond
	cut bool
}

func (w *wire) set(cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = cut
	w.ok.Broadcast()
}

func (w *wire) pass() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.cut {
		w.ok.Wait()
	}
}

// newWire returns a wire, and the path of a kubeconfig whose requests go through it.
func newWire(t *testing.T) (w *wire, kubeconfig string) {
	t.Helper()
	config, err := clientcmd.LoadFromFile(shared.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	context := config.Contexts[config.CurrentContext]
	server, err := url.Parse(config.Clusters[context.Cluster].Server)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w = &wire{}
	w.ok = sync.NewCond(&w.mu)
	t.Cleanup(func() { w.set(false); _ = listener.Close() })
	go func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return // the test has ended
			}
			far, err := net.Dial("tcp", server.Host)
			if err != nil {
				_ = near.Close()
				continue
			}
			go w.carry(near, far)
			go w.carry(far, near)
		}
	}()
	config.Clusters[context.Cluster].Server = "https://" + listener.Addr().String()
	kubeconfig = filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*config, kubeconfig); err != nil {
		t.Fatal(err)
	}
	return w, kubeconfig
}

func (w *wire) carry(from, to net.Conn) {
	defer from.Close()
	defer to.Close()
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		w.pass()
		if _, failed := to.Write(buffer[:n]); failed != nil || err != nil {
			return
		}
	}
}

// TestHandOverIsReadableFromEitherSide lets the lease go from hand to hand, by a
// release, a crash and a cut wire, and compares what each process logs at -v=0 with the
// whole story. In JSON the processes log all that they can, and each line is checked.
func TestHandOverIsReadableFromEitherSide(t *testing.T) {
	for format, tc := range map[string]struct {
		verbosity int
		parse     func(*testing.T, string) []entry
	}{
		"text": {0, parseText},
		"json": {10, parseJSON},
	} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			namespace := "logs-" + format
			shared.Namespace(t, namespace)
			start := func(name, kubeconfig string) *cluster.Process {
				pod, err := shared.Client.CoreV1().Pods(namespace).Create(t.Context(), &corev1.Pod{
					ObjectMeta: metav1.ObjectMeta{Name: name},
					Spec:       corev1.PodSpec{SchedulerName: "nobody", Containers: []corev1.Container{{Name: "manager", Image: "none"}}},
				}, metav1.CreateOptions{})
				if err != nil {
					t.Fatal(err)
				}
				env := []string{"POD_NAME=" + name, "POD_NAMESPACE=" + namespace, "POD_UID=" + string(pod.UID)}
				return shared.Launch(t, "manager", env, "--kubeconfig="+kubeconfig, "--controllers=object-ttl",
					"--leader-elect-lease-duration=6s", "--leader-elect-renew-deadline=4s", "--leader-elect-retry-period=1s",
					"--logging-format="+format, fmt.Sprintf("-v=%d", tc.verbosity))
			}
			await := func(p *cluster.Process, n int, text string) {
				cluster.Eventually(t, 30*time.Second, fmt.Sprintf("%d x %q", n, text), func() error {
					if got := strings.Count(p.Log(), text); got < n {
						return fmt.Errorf("%d in:\n%s", got, p.Log())
					}
					return nil
				})
			}
			wireOfB, throughWire := newWire(t)
			first := start("a", shared.Kubeconfig)
			await(first, 1, "Running controllers")
			second := start("b", throughWire)
			await(second, 1, "New leader observed")
			first.Terminate(t)
			await(second, 1, "Running controllers")
			third := start("c", shared.Kubeconfig)
			await(third, 1, "New leader observed")
			wireOfB.set(true)
			await(second, 1, "Lost the lease")
			await(third, 1, "Running controllers")
			wireOfB.set(false)
			await(second, 2, "New leader observed")
			if err := third.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			await(second, 2, "Running controllers")
			second.Terminate(t)

			a, b, c := tc.parse(t, first.Log()), tc.parse(t, second.Log()), tc.parse(t, third.Log())
			epochs := numbered(a, b, c)
			starting := []string{"Starting", "Controller gate", "Competing for the lease"}
			for _, side := range []struct {
				name      string
				got, want []string
			}{
				{"a", story(a, epochs), []string{
					"Became leader epoch=1 reason=no lease previous=",
					"Running controllers epoch=1",
					"Stopping: controllers drain, then the lease is released; a second signal stops at once",
					"Released the lease epoch=1 reason=asked to stop",
					"Manager ended",
				}},
				{"b", story(b, epochs), []string{
					"New leader observed epoch=1 previous= holder=a",
					"Became leader epoch=2 reason=released previous=a",
					"Running controllers epoch=2",
					"Lease request failed, retrying op=write",
					"Renew deadline passed, stopping the controllers of this term epoch=2",
					"Lost the lease epoch=2 reason=renew deadline passed holder=b",
					"Lease requests work again",
					"New leader observed epoch=3 previous=b holder=c",
					"Became leader epoch=4 reason=expired previous=c",
					"Running controllers epoch=4",
					"Stopping: controllers drain, then the lease is released; a second signal stops at once",
					"Released the lease epoch=4 reason=asked to stop",
					"Manager ended",
				}},
				{"c", story(c, epochs), []string{
					"New leader observed epoch=2 previous= holder=b",
					"Became leader epoch=3 reason=expired previous=b",
					"Running controllers epoch=3",
				}},
			} {
				if diff := cmp.Diff(append(slices.Clone(starting), side.want...), settled(side.got)); diff != "" {
					t.Errorf("the log of %s (-want +got):\n%s", side.name, diff)
				}
			}
		})
	}
}

// TestFailuresOfControllersAreOneLineEach reads what failing controllers log.
func TestFailuresOfControllersAreOneLineEach(t *testing.T) {
	const namespace = "failures"
	shared.Namespace(t, namespace)
	config := filepath.Join(t.TempDir(), "config.yaml")
	writeFile(t, config, fileHeader+`controllers: ["*", "-hangs-on-stop"]`)
	p := launchFaulty(t, namespace, "--config="+config, "--logging-format=json")
	p.AwaitController(t, 20*time.Second, "healthy-1", "running")
	poisoned := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "poison"}}
	if _, err := shared.Client.CoreV1().ConfigMaps(namespace).Create(t.Context(), poisoned, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	p.AwaitController(t, 20*time.Second, "handler-panics", "backoff")
	p.AwaitController(t, 20*time.Second, "index-fails", "backoff")
	p.AwaitController(t, 20*time.Second, "lacks-permission", "blocked")
	writeFile(t, config, fileHeader+`controllers: ["*", "-hangs-on-stop", "-healthy-2"]`)
	p.AwaitLog(t, 10*time.Second, "Controller is disabled")
	writeFile(t, config, fileHeader+`controllers: ["*", "-hangs-on-stop", "-nosuch"]`)
	p.AwaitLog(t, 10*time.Second, "New configuration is not used")
	p.Terminate(t)

	entries := parseJSON(t, p.Log())
	find := func(message, controller string) (found []entry) {
		for _, e := range entries {
			if e["msg"] == message && e["controller"] == controller {
				found = append(found, e)
			}
		}
		return found
	}
	const failed = "Controller failed; it is restarted alone"
	for _, tc := range []struct {
		message, controller, err string
		stack, inTerm            bool
		most                     int
	}{
		{message: failed, controller: "error", err: "out of luck", inTerm: true, most: 9},
		{message: failed, controller: "panics", err: "panic: out of my mind", stack: true, inTerm: true, most: 9},
		{message: failed, controller: "handler-panics", err: "panicked: cannot stomach this", stack: true, inTerm: true, most: 9},
		{message: failed, controller: "index-fails", err: "no index for this", inTerm: true, most: 9},
		{message: "Controller completed", controller: "returns-early", inTerm: true, most: 1},
		{message: "Controller is blocked; it starts by itself once this is there", controller: "needs-crd", most: 1},
		{message: "Controller is blocked; it starts by itself once this is there", controller: "lacks-permission", most: 1},
		{message: "Controller is disabled", controller: "healthy-2", most: 1},
		{message: "New configuration is not used; the running one stays", err: "nosuch", most: 1},
		{message: "Configuration file taken over", most: 1},
	} {
		found := find(tc.message, tc.controller)
		if len(found) < 1 || len(found) > tc.most {
			t.Errorf("%s %s: %d lines, want 1 to %d", tc.controller, tc.message, len(found), tc.most)
		}
		for _, e := range found {
			_, stack := e["stack"]
			if !strings.Contains(e["err"], tc.err) || strings.Contains(e["err"], "\n") || stack != tc.stack ||
				(e["epoch"] != "") != tc.inTerm || tc.controller != "" && e["lease"] == "" {
				t.Errorf("%s %s: got %v", tc.controller, tc.message, e)
			}
			if caller := e["caller"]; !strings.HasPrefix(caller, "runner/") && !strings.HasPrefix(caller, "manager/") {
				t.Errorf("%s %s: it is said to be logged by %s", tc.controller, tc.message, caller)
			}
		}
	}
	for _, e := range entries {
		for key, value := range e {
			if key != "stack" && strings.Contains(value, "goroutine ") && strings.Contains(value, ".go:") {
				t.Errorf("a stack under the key %s: %v", key, e)
			}
		}
	}
}

// TestVerbosityBySourceFileIsLive changes vmodule in the configuration file. Renewals
// are logged at level 5.
func TestVerbosityBySourceFileIsLive(t *testing.T) {
	const namespace, renewed = "vmodule", `"Renewed the lease"`
	shared.Namespace(t, namespace)
	config := filepath.Join(t.TempDir(), "config.yaml")
	set := func(pattern string) {
		writeFile(t, config, fmt.Sprintf("%slogging: {vmodule: [{filePattern: %q, verbosity: 5}]}", fileHeader, pattern))
	}
	set("nosuchfile")
	p := launch(t, "--kubeconfig="+shared.Kubeconfig, "--leader-elect-resource-namespace="+namespace, "--config="+config,
		"--controllers=object-ttl", "--leader-elect-lease-duration=6s", "--leader-elect-renew-deadline=4s", "--leader-elect-retry-period=500ms")
	p.AwaitController(t, 20*time.Second, "object-ttl", "running")
	set("engine")
	p.AwaitLog(t, 10*time.Second, renewed)
	set("nosuchfile")
	cluster.Eventually(t, 10*time.Second, "silence", func() error {
		before := strings.Count(p.Log(), renewed)
		time.Sleep(2 * time.Second) // four renewals
		if strings.Count(p.Log(), renewed) != before {
			return errors.New("renewals are still logged")
		}
		return nil
	})
	log := p.Log()
	if strings.Contains(log, `"Reading the lease"`) || strings.Contains(log, "reflector.go") {
		t.Errorf("other files became verbose, too:\n%s", log)
	}
	p.Terminate(t)
}
