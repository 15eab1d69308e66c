// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

// Package monitoring runs the alerts and the dashboard of manifests/components/monitoring
// on a real Prometheus that scrapes managers in trouble. Everything goes 60 times faster
// than in a cluster; then promtool runs the rules as they are shipped over what was
// recorded, played at its true pace.
package monitoring

import (
	"context"
	"fmt"
	"net"
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

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/incumbent-io/incumbent/test/cluster"
)

var shared *cluster.Cluster

func TestMain(m *testing.M) {
	os.Exit(cluster.Main(cluster.Config{Programs: []string{"./test/e2e/faulty"}}, func(c *cluster.Cluster) int {
		shared = c
		build := exec.Command("make", "bin/prometheus")
		build.Dir, build.Stdout, build.Stderr = c.Root, os.Stdout, os.Stderr
		if err := build.Run(); err != nil {
			fmt.Fprintln(os.Stderr, "FAIL: Prometheus cannot be built:", err)
			return 1
		}
		return m.Run()
	}))
}

// trouble is a fault in a namespace of its own, and the alerts that it is for.
type trouble struct {
	alerts []string
	cause  func(t *testing.T, p *prometheus, namespace string)
	// beside are alerts that tell of the same fault from another side.
	beside []string
}

// alone are the alerts of a single replica.
var alone = []string{"IncumbentNoStandby"}

var troubles = map[string]trouble{
	"nobody-leads": {
		alerts: []string{"IncumbentNoLeader", "IncumbentLeaseStale", "IncumbentNoStandby"}, cause: nobodyLeads,
		beside: []string{"IncumbentControllerNotRunning"},
	},
	"two-lead": {alerts: []string{"IncumbentTwoLeaders"}, cause: twoLead},
	"flapping": {alerts: []string{"IncumbentLeaderFlapping"}, cause: flap, beside: alone},
	"paused": {
		alerts: []string{"IncumbentFenceRefusals"}, cause: pause,
		beside: append(alone, "IncumbentNoLeader", "IncumbentLeaseStale", "IncumbentControllerNotRunning", "IncumbentReplicaNotScraped"),
	},
	"controllers": {
		alerts: []string{"IncumbentControllerBackoff", "IncumbentControllerBlocked", "IncumbentControllerStuck", "IncumbentControllerNotRunning", "IncumbentQueueBacklog"},
		cause:  breakControllers, beside: alone,
	},
	"config":     {alerts: []string{"IncumbentConfigNotCurrent"}, cause: breakConfig, beside: alone},
	"conversion": {alerts: []string{"IncumbentCacheOutOfDate"}, cause: breakConversion, beside: append(alone, "IncumbentControllerNotRunning")},
	// It can ask nobody any more who may scrape it.
	"cut-off": {
		alerts: []string{"IncumbentReplicaNotScraped"}, cause: cutOff,
		beside: append(alone, "IncumbentNoLeader", "IncumbentLeaseStale"),
	},
}

// TestAlerts causes every trouble at the same time, beside a fleet that is updated
// again and again and has none.
func TestAlerts(t *testing.T) {
	p := startPrometheus(t)
	p.await(t, 20*time.Second, "", "IncumbentDown") // nothing is scraped yet
	began := time.Now()
	tested := map[string]bool{"IncumbentDown": true}
	t.Run("troubles", func(t *testing.T) {
		t.Run("update", func(t *testing.T) {
			t.Parallel()
			rollingUpdate(t, p, "update")
			if fired := p.firing(t, "update"); len(fired) > 0 {
				t.Errorf("in rolling updates these fired: %q", fired)
			}
		})
		for name, trouble := range troubles {
			for _, alert := range trouble.alerts {
				tested[alert] = true
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				shared.Namespace(t, name)
				trouble.cause(t, p, name)
				for _, alert := range trouble.alerts {
					p.await(t, 40*time.Second, name, alert)
				}
				for _, fired := range p.firing(t, name) {
					if !slices.Contains(trouble.alerts, fired) && !slices.Contains(trouble.beside, fired) {
						t.Errorf("%s fired, too", fired)
					}
				}
				if name == "controllers" {
					expectDashboard(t, p, name)
				}
			})
		}
	})
	content, err := os.ReadFile(rulesFile(t, "rules.yaml", func(s string) string { return s }))
	if err != nil {
		t.Fatal(err)
	}
	for _, alert := range regexp.MustCompile(`- alert: (\w+)`).FindAllStringSubmatch(string(content), -1) {
		if !tested[alert[1]] {
			t.Errorf("the alert %s has no fault here that it is for", alert[1])
		}
	}
	replay(t, p, began)
}

// start starts a manager in the namespace, scraped as that Pod.
func start(t *testing.T, p *prometheus, namespace, pod, program string, args ...string) (process *cluster.Process, forget func()) {
	t.Helper()
	process = shared.Launch(t, program, []string{"FAULTY_NAMESPACE=" + namespace}, append([]string{
		"--kubeconfig=" + shared.Kubeconfig, "--leader-elect-resource-namespace=" + namespace,
	}, args...)...)
	forget = p.scrape(t, namespace, pod, process)
	t.Cleanup(forget)
	return process, forget
}

// rollingUpdate replaces one of three replicas after the other, twice over, each once
// Prometheus knows the new one: that takes seconds here as in a cluster, where they are
// not a sixtieth of the update.
func rollingUpdate(t *testing.T, p *prometheus, namespace string) {
	t.Helper()
	shared.Namespace(t, namespace)
	type replica struct {
		process *cluster.Process
		forget  func()
	}
	var fleet []replica
	n := 0
	add := func() {
		n++
		process, forget := start(t, p, namespace, fmt.Sprintf("manager-%d", n), "manager")
		cluster.Eventually(t, 20*time.Second, "a ready replica", func() error {
			status, body, err := cluster.Get(t, process.Address+"/readyz", "")
			if err == nil && status != 200 {
				err = fmt.Errorf("%d %s", status, body)
			}
			return err
		})
		p.awaitScrape(t, namespace, fmt.Sprintf("manager-%d", n))
		fleet = append(fleet, replica{process, forget})
	}
	for range 3 {
		add()
	}
	for range 2 {
		time.Sleep(5 * time.Second) // five minutes in a cluster
		for range 3 {
			add()
			fleet[0].process.Terminate(t)
			fleet[0].forget() // a Pod that is gone is no target any more
			fleet = fleet[1:]
		}
	}
	time.Sleep(5 * time.Second)
}

// nobodyLeads has a stranger hold the lease for an hour.
func nobodyLeads(t *testing.T, p *prometheus, namespace string) {
	holder, duration, now := "a-stranger", int32(3600), metav1.NowMicro()
	lease := &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Name: "incumbent"},
		Spec:       coordinationv1.LeaseSpec{HolderIdentity: &holder, LeaseDurationSeconds: &duration, AcquireTime: &now, RenewTime: &now},
	}
	if _, err := shared.Client.CoordinationV1().Leases(namespace).Create(t.Context(), lease, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	start(t, p, namespace, "manager-1", "manager")
}

// twoLead has two replicas hold a lease of the same name each, in two namespaces.
func twoLead(t *testing.T, p *prometheus, namespace string) {
	start(t, p, namespace, "manager-1", "manager")
	shared.Namespace(t, namespace+"-2")
	start(t, p, namespace, "manager-2", "manager", "--leader-elect-resource-namespace="+namespace+"-2")
}

// flap restarts whoever leads, again and again.
func flap(t *testing.T, p *prometheus, namespace string) {
	var pods [2]*cluster.Process
	for i := range pods {
		pods[i], _ = start(t, p, namespace, fmt.Sprint("manager-", i), "manager")
		p.awaitScrape(t, namespace, fmt.Sprint("manager-", i))
	}
	for n := range 12 {
		i := n % 2
		pods[i].Terminate(t)
		address := pods[i].Address // a container that is restarted keeps it
		pods[i] = shared.Launch(t, "manager", nil, "--kubeconfig="+shared.Kubeconfig, "--leader-elect-resource-namespace="+namespace,
			"--secure-port="+address[strings.LastIndex(address, ":")+1:])
		pods[i].Address = address
		pods[i].AwaitController(t, 20*time.Second, "object-ttl", "")
		time.Sleep(time.Second)
	}
}

// pause freezes a leader until another leads. A goroutine of it, which heeds no context,
// writes on when it wakes.
func pause(t *testing.T, p *prometheus, namespace string) {
	paused, _ := start(t, p, namespace, "manager-1", "faulty", "--controllers=outlives")
	paused.AwaitController(t, 20*time.Second, "outlives", "running")
	p.awaitScrape(t, namespace, "manager-1") // with nothing refused
	next, _ := start(t, p, namespace, "manager-2", "faulty", "--controllers=outlives")
	if err := paused.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	next.AwaitController(t, 40*time.Second, "outlives", "running")
	if err := paused.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
}

// breakControllers runs controllers that go wrong.
func breakControllers(t *testing.T, p *prometheus, namespace string) {
	for n := range 250 {
		object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("object-", n)}}
		if _, err := shared.Client.CoreV1().ConfigMaps(namespace).Create(t.Context(), object, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	config := filepath.Join(t.TempDir(), "config.yaml")
	configure(t, config, "error", "needs-crd", "lazy", "never-warm", "hangs-on-stop")
	process, _ := start(t, p, namespace, "manager-1", "faulty", "--config="+config, "--drain-timeout=1s")
	process.AwaitController(t, 20*time.Second, "hangs-on-stop", "running")
	configure(t, config, "error", "needs-crd", "lazy", "never-warm")
}

// configure writes a configuration file that enables the controllers.
func configure(t *testing.T, path string, controllers ...string) {
	t.Helper()
	content := "apiVersion: config.incumbent.io/v1alpha1\nkind: ManagerConfiguration\ncontrollers: [" + strings.Join(controllers, ", ") + "]\n"
	if err := os.WriteFile(path+".new", []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// breakConfig makes a mistake in the configuration file.
func breakConfig(t *testing.T, p *prometheus, namespace string) {
	config := filepath.Join(t.TempDir(), "config.yaml")
	configure(t, config, "object-ttl")
	process, _ := start(t, p, namespace, "manager-1", "manager", "--config="+config)
	process.AwaitController(t, 20*time.Second, "object-ttl", "running")
	configure(t, config, "object-tll")
}

// breakConversion serves a resource in a version to which nobody converts what is stored.
func breakConversion(t *testing.T, p *prometheus, namespace string) {
	const definition = "test/monitoring/testdata/gadgets.yaml"
	shared.Kubectl(t, "create", "-f", definition)
	t.Cleanup(func() {
		if out, err := shared.Run(context.Background(), "kubectl", "delete", "-f", definition, "--wait=false"); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
	shared.Kubectl(t, "wait", "--for=condition=Established", "--timeout=20s", "crd/gadgets.faulty.example.com")
	cluster.Eventually(t, 20*time.Second, "a gadget", func() error {
		out, err := shared.Run(t.Context(), "kubectl", "-n", namespace, "apply", "-f", "test/monitoring/testdata/gadget.yaml")
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	start(t, p, namespace, "manager-1", "faulty", "--controllers=reads-gadgets")
}

// cutOff closes the connections to the API server, and takes no new ones.
func cutOff(t *testing.T, p *prometheus, namespace string) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var connections []net.Conn
	go func() {
		for {
			from, err := listener.Accept()
			if err != nil {
				return
			}
			to, err := net.Dial("tcp", strings.TrimPrefix(shared.REST.Host, "https://"))
			if err != nil {
				from.Close()
				continue
			}
			mu.Lock()
			connections = append(connections, from, to)
			mu.Unlock()
			go pipe(from, to)
			go pipe(to, from)
		}
	}()
	config, err := clientcmd.LoadFromFile(shared.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range config.Clusters {
		c.Server = "https://" + listener.Addr().String()
	}
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		t.Fatal(err)
	}
	process, _ := start(t, p, namespace, "manager-1", "manager", "--kubeconfig="+path)
	process.AwaitController(t, 20*time.Second, "object-ttl", "running")
	listener.Close()
	mu.Lock()
	defer mu.Unlock()
	for _, connection := range connections {
		connection.Close()
	}
}

func pipe(to, from net.Conn) {
	_, _ = to.(*net.TCPConn).ReadFrom(from) // until either is closed
	to.Close()
}
