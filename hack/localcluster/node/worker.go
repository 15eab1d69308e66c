// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

//go:build linux

package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/reference"
	"k8s.io/klog/v2"

	"github.com/incumbent-io/incumbent/hack/localcluster/netfault"
)

// worker runs one Pod, from when it is bound to a node until it has vanished from the API.
//
//	preparing ---> running ---> ended (Succeeded or Failed)
//	    |             |           |
//	    +-------------+-----------+---- deletionTimestamp ----> terminating ---> deleted
//
// It goes to "gone" from anywhere when the Pod vanishes (deleted by force) or the nodes end: its processes are
// killed at once.
type worker struct {
	nodes           *Nodes
	pod             *corev1.Pod // as it was first seen; for what never changes
	namespace, name string
	uid             types.UID
	root, logsDir   string

	dirty   chan struct{} // the status may have changed
	stopRun context.CancelFunc
	running context.Context // ends when the containers have to stop
	killNow chan struct{}   // closed when processes have to end without grace
	volumes *volumes

	// Set by prepare, before any container starts.
	ip    string
	proxy *netfault.Proxy

	containers []*container // init containers first

	mu          sync.Mutex
	newest      *corev1.Pod
	started     metav1.Time
	prepared    bool
	finished    bool // no container will run again
	terminating bool
	isKilled    bool
	vanished    bool
	graceTime   time.Duration
	laid        map[string]bool       // paths at which programs were laid
	written     *corev1.PodStatus     // the status that the API server has confirmed
	conditions  []corev1.PodCondition // of the newest status
}

func newWorker(n *Nodes, pod *corev1.Pod) *worker {
	w := &worker{
		nodes: n, pod: pod, namespace: pod.Namespace, name: pod.Name, uid: pod.UID,
		root:    filepath.Join(n.config.PodsDir, string(pod.UID)),
		logsDir: filepath.Join(n.config.LogsDir, fmt.Sprintf("%s_%s_%s", pod.Namespace, pod.Name, pod.UID)),
		dirty:   make(chan struct{}, 1), killNow: make(chan struct{}),
		newest: pod, started: metav1.Now(), laid: map[string]bool{}, conditions: pod.Status.Conditions,
	}
	w.running, w.stopRun = context.WithCancel(context.Background())
	if seconds := pod.Spec.TerminationGracePeriodSeconds; seconds != nil {
		w.graceTime = time.Duration(*seconds) * time.Second
	}
	group := -1
	if s := pod.Spec.SecurityContext; s != nil && s.FSGroup != nil && os.Geteuid() == 0 {
		group = int(*s.FSGroup)
	}
	w.volumes = newVolumes(n.config.Client, n.objects, w.root, group)
	for i := range pod.Spec.InitContainers {
		w.containers = append(w.containers, newContainer(w, &pod.Spec.InitContainers[i], true))
	}
	for i := range pod.Spec.Containers {
		w.containers = append(w.containers, newContainer(w, &pod.Spec.Containers[i], false))
	}
	w.update(pod)
	return w
}

// update takes the newest form of the Pod.
func (w *worker) update(pod *corev1.Pod) {
	w.mu.Lock()
	w.newest = pod
	w.mu.Unlock()
	kick(w.volumes.changed) // the downward API may tell its labels
	if pod.DeletionTimestamp != nil {
		grace := time.Duration(0)
		if pod.DeletionGracePeriodSeconds != nil {
			grace = time.Duration(*pod.DeletionGracePeriodSeconds) * time.Second
		}
		w.terminate(grace)
	}
}

// terminate begins to stop the containers, or shortens the time that they have.
func (w *worker) terminate(grace time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.terminating {
		w.terminating, w.graceTime = true, grace
		w.stopRun()
		kick(w.dirty)
		return
	}
	if grace < w.graceTime {
		w.graceTime = grace
		time.AfterFunc(grace, w.kill)
	}
}

// kill makes all processes end at once.
func (w *worker) kill() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.isKilled {
		w.isKilled = true
		close(w.killNow)
	}
}

// gone is called when the Pod has vanished from the API.
func (w *worker) gone() {
	w.mu.Lock()
	w.vanished = true
	w.mu.Unlock()
	w.kill()
	w.stopRun()
}

func (w *worker) isGone() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.vanished
}

func (w *worker) grace() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.graceTime
}

func (w *worker) newestPod() *corev1.Pod {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.newest
}

// run returns when nothing of the Pod is left on this machine. The end of ctx is the end of the nodes.
func (w *worker) run(ctx context.Context) {
	logger := klog.LoggerWithValues(klog.FromContext(ctx), "pod", klog.KRef(w.namespace, w.name), "podUID", w.uid)
	ctx = klog.NewContext(ctx, logger)
	defer context.AfterFunc(ctx, func() { w.kill(); w.stopRun() })()
	defer w.cleanUp(logger)

	writing, stopWriting := context.WithCancel(ctx)
	var writer sync.WaitGroup
	writer.Go(func() { w.writeStatuses(writing) })
	kick(w.dirty)

	if w.prepare(klog.NewContext(w.running, logger)) {
		updating, stopUpdating := context.WithCancel(ctx)
		var updater sync.WaitGroup
		updater.Go(func() { w.updateVolumes(updating) })
		w.runContainers(w.running)
		stopUpdating()
		updater.Wait()
	}
	w.volumes.tearDown()
	w.finish()
	// A Pod that ended by itself stays in the API until somebody deletes it; the running context tells when.
	<-w.running.Done()
	w.finish() // A container that was never started counts as ended only now.
	stopWriting()
	writer.Wait()
	if ctx.Err() == nil && !w.isGone() {
		w.confirmDeletion(ctx)
	}
}

// prepare lays out what the containers need. It reports false when the Pod has to stop before that is complete.
func (w *worker) prepare(ctx context.Context) bool {
	if ctx.Err() != nil {
		return false
	}
	if what := unsupported(w.pod); len(what) > 0 {
		return w.refuse(ctx, fmt.Errorf("a process node does not support %s", strings.Join(what, ", ")))
	}
	if err := w.layOut(); err != nil {
		return w.refuse(ctx, err)
	}
	last := ""
	for {
		_, err := w.volumes.sync(ctx, w.newestPod(), w.facts())
		if err == nil {
			break
		}
		if !errors.Is(err, errNotYet) && err.Error() != last && ctx.Err() == nil {
			last = err.Error()
			w.event(nil, false, corev1.EventTypeWarning, "FailedMount", "MountVolume.SetUp failed: %v", err)
		}
		// Volumes change with their objects; a token that was refused is asked for again.
		select {
		case <-w.volumes.changed:
		case <-time.After(time.Second):
		case <-ctx.Done():
			return false
		}
	}
	w.mu.Lock()
	w.prepared = true
	w.mu.Unlock()
	kick(w.dirty)
	return true
}

func (w *worker) layOut() error {
	ip, err := w.nodes.addresses.take()
	if err != nil {
		return err
	}
	proxy, err := netfault.New(w.nodes.config.APIServer)
	if err != nil {
		w.nodes.addresses.release(ip)
		return err
	}
	w.mu.Lock()
	w.ip, w.proxy = ip, proxy
	w.mu.Unlock()
	hosts := fmt.Sprintf("127.0.0.1 localhost\n%s %s\n", ip, w.hostname())
	if err := makeRoot(w.root, w.nodes.launcher.isolation, []byte(hosts)); err != nil {
		return err
	}
	// An image may have a /tmp that all can write to; one with a read-only root has none.
	if !slices.ContainsFunc(w.pod.Spec.Containers, readOnlyRoot) {
		if err := os.MkdirAll(w.root+"/tmp", 0o777); err != nil {
			return err
		}
		if err := os.Chmod(w.root+"/tmp", 0o777|os.ModeSticky); err != nil {
			return err
		}
	}
	return w.volumes.setUp(w.pod)
}

func readOnlyRoot(c corev1.Container) bool {
	return c.SecurityContext != nil && c.SecurityContext.ReadOnlyRootFilesystem != nil && *c.SecurityContext.ReadOnlyRootFilesystem
}

// refuse says why the Pod cannot run here, and waits for its end.
func (w *worker) refuse(ctx context.Context, err error) bool {
	w.event(nil, false, corev1.EventTypeWarning, "FailedCreatePodSandBox", "%v", err)
	for _, c := range w.containers {
		c.wait("CreateContainerConfigError", err.Error())
	}
	<-ctx.Done()
	return false
}

// unsupported lists what a Pod asks for that would silently be missing.
func unsupported(pod *corev1.Pod) []string {
	var what []string
	for _, v := range pod.Spec.Volumes {
		if v.EmptyDir == nil && v.ConfigMap == nil && v.Secret == nil && v.Projected == nil && v.DownwardAPI == nil {
			what = append(what, fmt.Sprintf("the kind of volume %q", v.Name))
		}
	}
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		for _, m := range c.VolumeMounts {
			if m.SubPath != "" || m.SubPathExpr != "" {
				what = append(what, fmt.Sprintf("the subPath of volume %q in container %q", m.Name, c.Name))
			}
		}
		for kind, p := range map[probeKind]*corev1.Probe{startupProbe: c.StartupProbe, livenessProbe: c.LivenessProbe, readinessProbe: c.ReadinessProbe} {
			if p != nil && p.GRPC != nil {
				what = append(what, fmt.Sprintf("the gRPC %s probe of container %q", strings.ToLower(string(kind)), c.Name))
			}
		}
		if c.RestartPolicy != nil {
			what = append(what, fmt.Sprintf("the restart policy of container %q (a sidecar)", c.Name))
		}
	}
	slices.Sort(what)
	return what
}

// runContainers runs the init containers one after another, then all others, and returns when none will run again.
func (w *worker) runContainers(ctx context.Context) {
	var mains sync.WaitGroup
	defer mains.Wait()
	for _, c := range w.containers {
		if !c.init {
			mains.Go(func() { c.run(ctx) })
			continue
		}
		if !c.run(ctx) {
			return
		}
		if c == w.containers[len(w.pod.Spec.InitContainers)-1] {
			for _, main := range w.containers[len(w.pod.Spec.InitContainers):] {
				main.wait("ContainerCreating", "")
			}
		}
	}
}

// updateVolumes follows changes of the volumes' objects, of the Pod's labels, and renews tokens.
func (w *worker) updateVolumes(ctx context.Context) {
	logger := klog.FromContext(ctx)
	for {
		next, err := w.volumes.sync(ctx, w.newestPod(), w.facts())
		if ctx.Err() != nil {
			return
		}
		pause := time.Hour
		if !next.IsZero() {
			pause = max(time.Until(next), 0)
		}
		if err != nil {
			logger.Info("Volumes are not up to date, will retry", "err", err)
			pause = min(pause, 5*time.Second)
		}
		timer := time.NewTimer(pause)
		select {
		case <-w.volumes.changed:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// finish notes that no container will run again.
func (w *worker) finish() {
	w.mu.Lock()
	w.finished = true
	for _, c := range w.containers {
		c.status.Ready = c.init && c.status.State.Terminated != nil && c.status.State.Terminated.ExitCode == 0
		if w.terminating && c.status.State.Terminated == nil {
			c.status.State = corev1.ContainerState{Terminated: neverRan(c.status)}
		}
	}
	w.mu.Unlock()
	kick(w.dirty)
}

// neverRan is the end of a container that a deletion kept from running (again).
func neverRan(s corev1.ContainerStatus) *corev1.ContainerStateTerminated {
	if last := s.LastTerminationState.Terminated; last != nil {
		return last
	}
	return &corev1.ContainerStateTerminated{
		ExitCode: 137, Reason: "ContainerStatusUnknown", Message: "The container was not running when the pod was terminated",
	}
}

// cleanUp removes the Pod from this machine. Its logs stay.
func (w *worker) cleanUp(logger klog.Logger) {
	w.mu.Lock()
	ip, proxy := w.ip, w.proxy
	w.mu.Unlock()
	if proxy != nil {
		proxy.Close()
		w.nodes.addresses.release(ip)
	}
	if err := os.RemoveAll(w.root); err != nil {
		logger.Error(err, "Could not remove the folder of the Pod", "path", w.root)
	}
}

func (w *worker) facts() podFacts { return podFacts{podIP: w.ip, hostIP: w.hostIP()} }

func (w *worker) hostIP() string {
	for i := range w.nodes.config.Count {
		if nodeName(i) == w.pod.Spec.NodeName {
			return Address(w.nodes.config.Network, i).String()
		}
	}
	return ""
}

func (w *worker) hostname() string {
	if w.pod.Spec.Hostname != "" {
		return w.pod.Spec.Hostname
	}
	const max = 63 // of the kernel; a longer name is cut, as a kubelet does
	return strings.TrimRight(w.name[:min(len(w.name), max)], "-.")
}

// baseEnvironment holds the variables of every container.
func (w *worker) baseEnvironment() map[string]string {
	port := fmt.Sprint(w.proxy.Port())
	return map[string]string{
		"PATH":                          defaultPath,
		"HOSTNAME":                      w.hostname(),
		"HOME":                          "/",
		"KUBERNETES_SERVICE_HOST":       "127.0.0.1",
		"KUBERNETES_SERVICE_PORT":       port,
		"KUBERNETES_SERVICE_PORT_HTTPS": port,
	}
}

// layProgram puts a program at a path in the root, unless a file of the Pod is there.
func (w *worker) layProgram(place, program string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.laid[place] {
		file, err := within(w.root, place)
		if err != nil {
			return err
		}
		if _, err := os.Lstat(file); err == nil {
			return nil
		}
		w.laid[place] = true
	}
	return layProgram(w.root, place, program)
}

// container finds a container by name; an empty name is the first one that is no init container.
func (w *worker) container(name string) (*container, error) {
	for _, c := range w.containers {
		if c.spec.Name == name || name == "" && !c.init {
			return c, nil
		}
	}
	return nil, fmt.Errorf("container %q not found in pod %s/%s", name, w.namespace, w.name)
}

func (w *worker) setNetworkFault(f netfault.Fault) error {
	w.mu.Lock()
	proxy := w.proxy
	w.mu.Unlock()
	if proxy == nil {
		return fmt.Errorf("pod %s/%s has no network yet", w.namespace, w.name)
	}
	proxy.Set(f)
	return nil
}

func (w *worker) report() PodStatus {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := PodStatus{
		Namespace: w.namespace, Name: w.name, UID: w.uid, Node: w.pod.Spec.NodeName, IP: w.ip, Phase: corev1.PodPending,
	}
	if w.written != nil {
		p.Phase = w.written.Phase
	}
	if w.proxy != nil {
		p.Network = w.proxy.Fault().String()
	}
	for _, c := range w.containers {
		s := ContainerStatus{Name: c.spec.Name, RestartCount: c.status.RestartCount, Ready: c.status.Ready}
		if c.process != nil {
			s.PID = c.process.cmd.Process.Pid
		}
		p.Containers = append(p.Containers, s)
	}
	return p
}

// event records an Event about the Pod, or about one of its containers.
func (w *worker) event(c *corev1.Container, init bool, kind, reason, format string, args ...any) {
	ref, err := reference.GetReference(scheme.Scheme, w.pod)
	if err != nil {
		return // Only for a type that the scheme does not know.
	}
	if c != nil {
		field := "containers"
		if init {
			field = "initContainers"
		}
		ref.FieldPath = fmt.Sprintf("spec.%s{%s}", field, c.Name)
	}
	w.nodes.recorder[w.pod.Spec.NodeName].Eventf(ref, kind, reason, format, args...)
}
