// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

//go:build linux

package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"

	"github.com/incumbent-io/incumbent/hack/localcluster/netfault"
	"github.com/incumbent-io/incumbent/hack/localcluster/process"
)

// Config says what nodes to play. All fields are required.
type Config struct {
	Client kubernetes.Interface
	// Count is the number of nodes; they are named localcluster-0 and so on.
	Count int
	// Network is the second byte of all addresses: 127.<Network>.0.x for nodes, 127.<Network>.1.x and on for Pods.
	Network byte
	// APIServer is the address (host:port) that the Pods' proxies lead to.
	APIServer string
	// Port is that of the endpoint for logs, exec and port-forward, on each node's address.
	Port int
	// CertFile and KeyFile serve that endpoint; it accepts one client: the one with a certificate of ClientCAFile that names ClientName.
	CertFile, KeyFile, ClientCAFile, ClientName string
	Images                                      *Images
	// PodsDir holds a folder for each Pod while it is here, LogsDir the logs of all.
	PodsDir, LogsDir string
	Spawner          *process.Spawner
	// Executable is a program that links package containerinit; it is the launcher of the containers.
	Executable string
	// KubeletVersion is the version that the nodes report.
	KubeletVersion string
}

// Nodes plays the nodes. See New and Run.
type Nodes struct {
	config    Config
	launcher  *launcher
	addresses *addressPool
	objects   *objectCache
	recorder  map[string]record.EventRecorder // by name of the node
	events    record.EventBroadcaster
	server    *http.Server
	listeners []net.Listener

	mu      sync.Mutex
	workers map[types.UID]*worker
	// ended holds the Pods whose worker has let them vanish, until the watch tells that they have: what it tells of them
	// in between is old.
	ended   map[types.UID]bool
	closing bool
	running sync.WaitGroup
}

// New checks what this machine allows and opens the nodes' endpoint. Nothing is told to the API server before Run.
func New(config Config) (*Nodes, error) {
	if err := os.MkdirAll(config.PodsDir, 0o700); err != nil {
		return nil, err
	}
	launcher, err := newLauncher(config.Spawner, config.Executable, config.PodsDir)
	if err != nil {
		return nil, err
	}
	n := &Nodes{
		config:    config,
		launcher:  launcher,
		addresses: &addressPool{network: config.Network, used: map[string]bool{}},
		objects:   newObjectCache(config.Client),
		recorder:  map[string]record.EventRecorder{},
		events:    record.NewBroadcaster(),
		workers:   map[types.UID]*worker{},
		ended:     map[types.UID]bool{},
	}
	for i := range config.Count {
		source := corev1.EventSource{Component: "kubelet", Host: nodeName(i)}
		n.recorder[nodeName(i)] = n.events.NewRecorder(scheme.Scheme, source)
	}
	return n, n.listen()
}

func nodeName(i int) string { return fmt.Sprintf("localcluster-%d", i) }

// Run plays the nodes until ctx ends, and returns when no process of a Pod is left.
func (n *Nodes) Run(ctx context.Context) {
	defer n.events.Shutdown()
	n.events.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: n.config.Client.CoreV1().Events("")})

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var parts sync.WaitGroup
	for _, l := range n.listeners {
		parts.Go(func() { _ = n.server.ServeTLS(l, "", "") })
	}
	for i := range n.config.Count {
		parts.Go(func() { n.keepRegistered(ctx, i) })
	}
	bound := fields.OneTermNotEqualSelector("spec.nodeName", "")
	parts.Go(func() {
		follow(ctx, n.config.Client, "pods", corev1.NamespaceAll, bound, &corev1.Pod{}, follower{
			set:    func(o any) { n.seen(ctx, o.(*corev1.Pod)) },
			remove: func(o any) { n.deleted(o.(*corev1.Pod).UID) },
			reset:  func(list []any) { n.all(ctx, list) },
		})
	})

	<-ctx.Done()
	n.mu.Lock()
	n.closing = true
	n.mu.Unlock()
	n.running.Wait()
	n.server.Close()
	n.objects.close()
	parts.Wait()
}

// seen hands the newest form of a Pod to its worker.
func (n *Nodes) seen(ctx context.Context, pod *corev1.Pod) {
	if n.recorder[pod.Spec.NodeName] == nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if w := n.workers[pod.UID]; w != nil {
		w.update(pod)
		return
	}
	// A Pod that ended stays so, unless it waits for its node to confirm that it may vanish.
	ended := pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
	if n.closing || n.ended[pod.UID] || ended && pod.DeletionTimestamp == nil {
		return
	}
	w := newWorker(n, pod)
	n.workers[pod.UID] = w
	n.running.Go(func() {
		w.run(ctx)
		n.mu.Lock()
		delete(n.workers, pod.UID)
		if !w.isGone() {
			n.ended[pod.UID] = true
		}
		n.mu.Unlock()
	})
}

func (n *Nodes) deleted(uid types.UID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.ended, uid)
	if w := n.workers[uid]; w != nil {
		w.gone()
	}
}

// all takes the list of all Pods: those that are not in it have vanished while nothing was watched.
func (n *Nodes) all(ctx context.Context, list []any) {
	exists := map[types.UID]bool{}
	for _, o := range list {
		pod := o.(*corev1.Pod)
		exists[pod.UID] = true
		n.seen(ctx, pod)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for uid, w := range n.workers {
		if !exists[uid] {
			w.gone()
		}
	}
	for uid := range n.ended {
		if !exists[uid] {
			delete(n.ended, uid)
		}
	}
}

// find returns the worker of a Pod by its name.
func (n *Nodes) find(namespace, name string) (*worker, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, w := range n.workers {
		// A Pod of the same name may follow while the old one, already deleted by force, is still being cleaned up.
		if w.namespace == namespace && w.name == name && !w.isGone() {
			return w, nil
		}
	}
	return nil, fmt.Errorf("pod %s/%s runs on no node of this cluster", namespace, name)
}

// Signal sends a signal to the process of a container, and returns its id. An empty container is the Pod's first.
func (n *Nodes) Signal(namespace, pod, container string, signal syscall.Signal) (int, error) {
	pid, err := n.PID(namespace, pod, container)
	if err != nil {
		return 0, err
	}
	return pid, syscall.Kill(pid, signal)
}

// PID returns the id of a container's process.
func (n *Nodes) PID(namespace, pod, container string) (int, error) {
	w, err := n.find(namespace, pod)
	if err != nil {
		return 0, err
	}
	c, err := w.container(container)
	if err != nil {
		return 0, err
	}
	pid := c.pid()
	if pid == 0 {
		return 0, fmt.Errorf("container %q of pod %s/%s is not running", c.spec.Name, namespace, pod)
	}
	return pid, nil
}

// SetNetworkFault changes the fault of the network between a Pod and the API server.
func (n *Nodes) SetNetworkFault(namespace, pod string, fault netfault.Fault) error {
	w, err := n.find(namespace, pod)
	if err != nil {
		return err
	}
	return w.setNetworkFault(fault)
}

// PodStatus is what `fault status` tells of a Pod.
type PodStatus struct {
	Namespace  string            `json:"namespace"`
	Name       string            `json:"name"`
	UID        types.UID         `json:"uid"`
	Node       string            `json:"node"`
	IP         string            `json:"ip,omitempty"`
	Phase      corev1.PodPhase   `json:"phase"`
	Network    string            `json:"network"`
	Containers []ContainerStatus `json:"containers"`
}

// ContainerStatus is what `fault status` tells of a container.
type ContainerStatus struct {
	Name         string `json:"name"`
	PID          int    `json:"pid,omitempty"`
	RestartCount int32  `json:"restartCount"`
	Ready        bool   `json:"ready"`
}

// Status lists the Pods that have a worker, by namespace and name.
func (n *Nodes) Status() []PodStatus {
	n.mu.Lock()
	workers := make([]*worker, 0, len(n.workers))
	for _, w := range n.workers {
		workers = append(workers, w)
	}
	n.mu.Unlock()
	list := make([]PodStatus, 0, len(workers))
	for _, w := range workers {
		list = append(list, w.report())
	}
	slices.SortFunc(list, func(a, b PodStatus) int {
		return strings.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name)
	})
	return list
}

// sleep waits, and reports whether it slept to the end.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Address returns the address of the i-th node.
func Address(network byte, i int) net.IP { return net.IPv4(127, network, 0, byte(i+1)) }

// addressPool gives each Pod an address. Addresses go round, so that the one of a Pod that is gone is not soon another's.
type addressPool struct {
	network byte

	mu   sync.Mutex
	last int
	used map[string]bool
}

var errNoAddress = errors.New("no address is left for another Pod")

func (p *addressPool) take() (string, error) {
	const size = 255 * 254 // 127.x.1.1 to 127.x.255.254
	p.mu.Lock()
	defer p.mu.Unlock()
	for range size {
		address := fmt.Sprintf("127.%d.%d.%d", p.network, 1+p.last/254, 1+p.last%254)
		p.last = (p.last + 1) % size
		if !p.used[address] {
			p.used[address] = true
			return address, nil
		}
	}
	return "", errNoAddress
}

func (p *addressPool) release(address string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.used, address)
}

var platform = struct{ os, arch string }{runtime.GOOS, runtime.GOARCH}
