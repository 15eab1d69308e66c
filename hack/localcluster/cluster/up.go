// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/textlogger"

	"github.com/incumbent-io/incumbent/hack/localcluster/node"
	"github.com/incumbent-io/incumbent/hack/localcluster/process"
)

// Config says what cluster to run.
type Config struct {
	// DataDir holds everything of the cluster; default DefaultDataDir.
	DataDir string
	// Kubeconfig is where the administrator's kubeconfig is written; default KubeconfigName in DataDir.
	Kubeconfig string
	// Nodes is the number of process nodes; default 3.
	Nodes int
	// Images maps names of images to programs, each as NAME=PATH.
	Images []string
	// ImagesFile is a file with a line NAME=PATH for each image, read again whenever a container starts.
	ImagesFile string
	// Keep keeps the state of the cluster that ran before in DataDir, instead of starting from an empty one.
	Keep bool
	// Out receives the progress.
	Out io.Writer
}

func (c *Config) complete() {
	if c.DataDir == "" {
		c.DataDir = DefaultDataDir
	}
	if c.Kubeconfig == "" {
		c.Kubeconfig = filepath.Join(c.DataDir, KubeconfigName)
	}
	if c.Nodes == 0 {
		c.Nodes = 3
	}
}

// Validate reports every mistake at once.
func (c Config) Validate() error {
	var errs []error
	if c.Nodes < 0 || c.Nodes > 100 {
		errs = append(errs, fmt.Errorf("--nodes: %d is not between 1 and 100", c.Nodes))
	}
	if _, err := node.NewImages(c.Images, c.ImagesFile); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// cluster is a running cluster.
type cluster struct {
	config     Config
	progress   *progress
	data       *dataDir
	ports      ports
	pki        pki
	client     kubernetes.Interface
	nodes      *node.Nodes
	components map[string]*component
	// failed receives the name of a component that ended although nothing asked for it.
	failed chan string
}

// startOrder is the order in which components start; they stop in reverse.
var startOrder = []string{Etcd, APIServer, ControllerManager, Scheduler}

// Up runs a cluster until ctx ends, and returns when none of its processes is left. It returns an error when the
// cluster did not become ready; a component that dies later is reported on Out and started again.
func Up(ctx context.Context, config Config) error {
	if err := config.Validate(); err != nil {
		return err
	}
	config.complete()
	data, err := openDataDir(config.DataDir, config.Keep)
	if err != nil {
		return err
	}
	defer data.close()
	nodeLog, err := os.OpenFile(data.file("logs", "nodes.log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer nodeLog.Close()
	// What client-go has to say when a fault is injected belongs into the log of the nodes, not between the lines of progress.
	klog.SetLogger(textlogger.NewLogger(textlogger.NewConfig(textlogger.Output(nodeLog))))

	c := &cluster{
		config: config, progress: newProgress(config.Out), data: data,
		pki: pki{data.file("pki")}, components: map[string]*component{}, failed: make(chan string, len(startOrder)),
	}
	// The spawner ends after everything that it started was stopped in order.
	spawnerCtx, stopSpawner := context.WithCancel(context.Background())
	defer stopSpawner()
	spawner := process.NewSpawner(spawnerCtx)

	if err := c.prepare(spawner); err != nil {
		return err
	}
	var running sync.WaitGroup
	nodesCtx, stopNodes := context.WithCancel(ctx)
	defer func() {
		c.progress.say("stopping")
		stopNodes()
		running.Wait()
		for i := range startOrder {
			// The cluster ends like a machine that is switched off: there is nothing to save.
			if err := c.components[startOrder[len(startOrder)-1-i]].kill(); err != nil && !errors.Is(err, errDown) {
				c.progress.say("%v", err)
			}
		}
		c.progress.say("stopped")
	}()

	control, err := c.listen()
	if err != nil {
		return err
	}
	running.Go(control.serve)
	defer control.close()

	err = c.start(ctx, func() { running.Go(func() { c.nodes.Run(nodesCtx) }) })
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	c.welcome()
	c.watch(ctx, &running)
	return nil
}

// watch starts components that die again, as a kubelet does with those of a real cluster, until ctx ends.
func (c *cluster) watch(ctx context.Context, running *sync.WaitGroup) {
	const first, longest = time.Second, 30 * time.Second
	delays := map[string]time.Duration{}
	for {
		select {
		case <-ctx.Done():
			return
		case name := <-c.failed:
			delay := max(first, min(2*delays[name], longest))
			delays[name] = delay
			c.progress.say("%s is started again in %s", name, delay)
			running.Go(func() {
				select {
				case <-time.After(delay):
				case <-ctx.Done():
					return
				}
				// A fault may have started it in the meantime.
				if err := c.components[name].start(); err != nil && !errors.Is(err, errRunning) {
					c.progress.say("%v", err)
				}
			})
		}
	}
}

// prepare writes the cluster's files and builds its parts without starting any.
func (c *cluster) prepare(spawner *process.Spawner) error {
	executable, err := os.Executable()
	if err != nil {
		return err
	}
	if c.ports, err = loadPorts(c.data.file("ports.json")); err != nil {
		return err
	}
	var addresses []net.IP
	for i := range c.config.Nodes {
		addresses = append(addresses, node.Address(c.ports.Network, i))
	}
	// A kept cluster keeps its keys, else the tokens in its Secrets would be worthless.
	if _, err := os.Stat(c.pki.key(keyServiceAccount)); err != nil {
		if err := c.pki.create(addresses); err != nil {
			return err
		}
	}
	arguments, err := controlPlane(c.data, c.pki, c.ports)
	if err != nil {
		return err
	}
	for _, name := range startOrder {
		c.components[name] = &component{
			name: name, executable: executable, args: arguments[name], logFile: c.data.file("logs", name+".log"),
			spawner: spawner, died: c.componentDied,
		}
	}
	if err := writeKubeconfig(c.config.Kubeconfig, serverURL(c.ports), c.pki, certAdmin); err != nil {
		return err
	}
	clientConfig := clientConfig(serverURL(c.ports), c.pki, certNode)
	if c.client, err = kubernetes.NewForConfig(clientConfig); err != nil {
		return err
	}
	images, err := node.NewImages(c.config.Images, c.config.ImagesFile)
	if err != nil {
		return err
	}
	c.nodes, err = node.New(node.Config{
		Client:         c.client,
		Count:          c.config.Nodes,
		Network:        c.ports.Network,
		APIServer:      fmt.Sprintf("127.0.0.1:%d", c.ports.APIServer),
		Port:           kubeletPort,
		CertFile:       c.pki.cert(certKubelet),
		KeyFile:        c.pki.key(certKubelet),
		ClientCAFile:   c.pki.cert(clusterCA),
		ClientName:     kubeletClientName,
		Images:         images,
		PodsDir:        c.data.file("pods"),
		LogsDir:        c.data.file("logs", "pods"),
		Spawner:        spawner,
		Executable:     executable,
		KubeletVersion: kubeletVersion(),
	})
	return err
}

// start brings the components up in order. It fails as soon as one of them dies.
func (c *cluster) start(ctx context.Context, startNodes func()) error {
	c.progress.done("data folder %s", c.config.DataDir)
	ctx, cancel := context.WithTimeoutCause(ctx, 3*time.Minute, errors.New("the cluster was not ready after 3 minutes"))
	defer cancel()
	stages := []struct {
		start []string
		nodes bool
		ready func(context.Context) (bool, error)
		done  string
	}{
		// kube-apiserver would wait for etcd by itself, but pauses for a second after each attempt.
		{start: []string{Etcd}, ready: c.etcdListens, done: "etcd listens"},
		{start: []string{APIServer}, ready: c.apiServerReady, done: "kube-apiserver is ready"},
		{start: []string{ControllerManager, Scheduler}, nodes: true, ready: c.nodesReady,
			done: fmt.Sprintf("kube-controller-manager and kube-scheduler run, %d nodes are Ready", c.config.Nodes)},
		{ready: c.serviceAccountReady, done: "the default ServiceAccount exists"},
	}
	for _, s := range stages {
		for _, name := range s.start {
			if err := c.components[name].start(); err != nil {
				return err
			}
		}
		if s.nodes {
			startNodes()
		}
		if err := c.await(ctx, s.ready); err != nil {
			return fmt.Errorf("not ready (%s): %w", s.done, err)
		}
		c.progress.done("%s", s.done)
	}
	return nil
}

// await polls until ready, a component's death, or the end of ctx.
func (c *cluster) await(ctx context.Context, ready func(context.Context) (bool, error)) error {
	var last error
	err := wait.PollUntilContextCancel(ctx, 50*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		select {
		case name := <-c.failed:
			return false, fmt.Errorf("%s died", name)
		default:
		}
		attempt, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		var ok bool
		ok, last = ready(attempt)
		return ok, nil
	})
	if err != nil && ctx.Err() != nil {
		return errors.Join(context.Cause(ctx), last)
	}
	return err
}

func (c *cluster) etcdListens(ctx context.Context) (bool, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", c.ports.EtcdClient))
	if err != nil {
		return false, err
	}
	return true, conn.Close()
}

func (c *cluster) apiServerReady(ctx context.Context) (bool, error) {
	_, err := c.client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
	return err == nil, err
}

// nodesReady also waits until Pods can be scheduled: a new node is tainted until its readiness has been seen.
func (c *cluster) nodesReady(ctx context.Context) (bool, error) {
	nodes, err := c.client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return false, err
	}
	ready := 0
	for _, n := range nodes.Items {
		for _, condition := range n.Status.Conditions {
			if condition.Type == corev1.NodeReady && condition.Status == corev1.ConditionTrue && len(n.Spec.Taints) == 0 {
				ready++
			}
		}
	}
	return ready >= c.config.Nodes, fmt.Errorf("%d of %d nodes are ready", ready, c.config.Nodes)
}

func (c *cluster) serviceAccountReady(ctx context.Context) (bool, error) {
	_, err := c.client.CoreV1().ServiceAccounts(metav1.NamespaceDefault).Get(ctx, "default", metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return false, err
	}
	return err == nil, err
}

func (c *cluster) componentDied(component *component, err error) {
	reason := "exit status 0"
	if err != nil {
		reason = err.Error()
	}
	c.progress.say("%s died: %s. The end of %s:\n%s", component.name, reason, component.logFile, component.logTail(20))
	select {
	case c.failed <- component.name:
	default:
	}
}

func (c *cluster) welcome() {
	kubectl := "localcluster kubectl"
	if executable, err := os.Executable(); err == nil {
		kubectl = executable + " kubectl"
		if wd, err := os.Getwd(); err == nil {
			if relative, err := filepath.Rel(wd, executable); err == nil && len(relative) < len(executable) {
				kubectl = relative + " kubectl"
				if filepath.Base(relative) == relative {
					kubectl = "./" + kubectl
				}
			}
		}
	}
	kubeconfig, err := filepath.Abs(c.config.Kubeconfig)
	if err != nil {
		kubeconfig = c.config.Kubeconfig
	}
	c.progress.say(`ready: %s

  export KUBECONFIG=%s
  %s get nodes

  logs      %s
  audit log %s
  This is a development tool that listens on the loopback interface only. Ctrl-C stops it.
`, serverURL(c.ports), kubeconfig, kubectl, c.data.file("logs"), c.data.file("audit.log"))
}
