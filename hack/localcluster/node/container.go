// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

//go:build linux

package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilexec "k8s.io/utils/exec"
	"k8s.io/utils/ptr"

	"github.com/incumbent-io/incumbent/hack/localcluster/containerinit"
)

// container runs one container of a Pod: one process after another, as its restart policy says.
//
//	          start               exit, and a restart is due
//	waiting ---------> running ------------------------------> waiting (CrashLoopBackOff)
//	 ^  |                 |                                       |
//	 |  | cannot start    | exit, and none is due                 | back-off is over
//	 +--+                 v                                       v
//	                  terminated                                running
//
// The state is the one in status, for all to see; there is no other.
type container struct {
	worker *worker
	spec   *corev1.Container
	init   bool

	// Guarded by worker.mu.
	status   corev1.ContainerStatus
	process  *containerProcess // nil unless one runs
	log      *logFile          // of the newest process
	previous *logFile          // of the one before
}

// containerProcess is one process of a container.
type containerProcess struct {
	cmd     *exec.Cmd
	spec    containerinit.Spec
	env     []string
	started metav1.Time
	exited  chan struct{}
	end     *corev1.ContainerStateTerminated // set before exited is closed
}

func newContainer(w *worker, spec *corev1.Container, init bool) *container {
	c := &container{worker: w, spec: spec, init: init}
	reason := "ContainerCreating"
	if !init && len(w.pod.Spec.InitContainers) > 0 {
		reason = "PodInitializing"
	}
	c.status = corev1.ContainerStatus{
		Name: spec.Name, Image: spec.Image, Started: ptr.To(false),
		State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason}},
	}
	return c
}

// change changes the status and has it written.
func (c *container) change(f func(s *corev1.ContainerStatus)) {
	c.worker.mu.Lock()
	f(&c.status)
	c.worker.mu.Unlock()
	kick(c.worker.dirty)
}

func (c *container) wait(reason, message string) {
	c.change(func(s *corev1.ContainerStatus) {
		s.State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}
	})
}

func (c *container) pid() int {
	if p := c.current(); p != nil {
		return p.cmd.Process.Pid
	}
	return 0
}

func (c *container) current() *containerProcess {
	c.worker.mu.Lock()
	defer c.worker.mu.Unlock()
	return c.process
}

// run returns when the container needs no further restart, or ctx has ended and its process with it. It reports
// whether the last process ended well.
func (c *container) run(ctx context.Context) bool {
	var b backoff
	for {
		p := c.startEventually(ctx)
		if p == nil {
			return false
		}
		if p.cmd != nil {
			c.supervise(ctx, p)
		}
		ok := p.end.ExitCode == 0
		c.change(func(s *corev1.ContainerStatus) {
			s.State = corev1.ContainerState{Terminated: p.end}
			s.Ready, s.Started = c.init && ok, ptr.To(false)
		})
		if ctx.Err() != nil || !restarts(c.worker.pod.Spec.RestartPolicy, c.init, ok) {
			return ok
		}
		if wait := b.wait(p.end.FinishedAt.Time); wait > 0 {
			message := fmt.Sprintf("back-off %s restarting failed container=%s pod=%s_%s(%s)",
				wait, c.spec.Name, c.worker.name, c.worker.namespace, c.worker.uid)
			c.change(func(s *corev1.ContainerStatus) {
				s.State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff", Message: message}}
				s.LastTerminationState = corev1.ContainerState{Terminated: p.end}
			})
			c.event(corev1.EventTypeWarning, "BackOff", "Back-off restarting failed container %s in pod %s_%s(%s)",
				c.spec.Name, c.worker.name, c.worker.namespace, c.worker.uid)
			if !sleep(ctx, time.Until(p.end.FinishedAt.Add(wait))) {
				return ok
			}
		}
		b.restarted(time.Now())
		c.worker.mu.Lock()
		c.status.RestartCount++
		c.status.LastTerminationState = corev1.ContainerState{Terminated: p.end}
		c.worker.mu.Unlock()
	}
}

// restarts tells whether a container that ended is started again.
func restarts(policy corev1.RestartPolicy, init, ok bool) bool {
	switch policy {
	case corev1.RestartPolicyNever:
		return false
	case corev1.RestartPolicyOnFailure:
		return !ok
	default:
		return !init || !ok
	}
}

// startError is a reason for which a container cannot be started yet.
type startError struct {
	reason string
	err    error
}

func (e *startError) Error() string { return e.err.Error() }

// startEventually starts a process, trying every second while something is missing. It returns nil when ctx ends.
// A process that could not become the container's program has no cmd.
func (c *container) startEventually(ctx context.Context) *containerProcess {
	last := ""
	for {
		p, err := c.start(ctx)
		if err == nil {
			return p
		}
		if ctx.Err() != nil {
			return nil
		}
		reason := "CreateContainerError"
		var why *startError
		if errors.As(err, &why) {
			reason = why.reason
		}
		if last != err.Error() {
			last = err.Error()
			c.event(corev1.EventTypeWarning, "Failed", "Error: %s: %s", reason, err)
		} else if reason == "ErrImagePull" {
			reason = "ImagePullBackOff"
		}
		c.wait(reason, err.Error())
		// Shorter than a kubelet's: whoever adds an image or a ConfigMap waits in front of the terminal.
		if !sleep(ctx, time.Second) {
			return nil
		}
	}
}

func (c *container) start(ctx context.Context) (*containerProcess, error) {
	w := c.worker
	id, err := containerIdentity(w.pod, c.spec)
	if err != nil {
		return nil, &startError{"CreateContainerConfigError", err}
	}
	program, err := w.nodes.config.Images.Resolve(c.spec.Image)
	if err != nil {
		return nil, &startError{"ErrImagePull", err}
	}
	env, err := containerEnvironment(ctx, w.newestPod(), c.spec, w.facts(), w.baseEnvironment(), w.nodes.readObject)
	if err != nil {
		return nil, &startError{"CreateContainerConfigError", err}
	}
	argv, err := c.layProgram(program, env)
	if err != nil {
		return nil, &startError{"CreateContainerError", err}
	}
	c.event(corev1.EventTypeNormal, "Pulled", "Container image %q is the program %s", c.spec.Image, program)
	messages, err := c.makeTerminationLog()
	if err != nil {
		return nil, &startError{"CreateContainerError", err}
	}

	w.mu.Lock()
	attempt := c.status.RestartCount
	w.mu.Unlock()
	log, err := newLogFile(filepath.Join(w.logsDir, c.spec.Name, strconv.Itoa(int(attempt))+".log"))
	if err != nil {
		return nil, err
	}
	stdout, stderr := log.stream("stdout"), log.stream("stderr")
	p := &containerProcess{
		spec: containerinit.Spec{
			Root: w.root, Hostname: w.hostname(), WorkingDir: c.spec.WorkingDir,
			UID: id.uid, GID: id.gid, Groups: id.groups, NoNewPrivs: !allowsEscalation(c.spec),
		},
		env: env.list(), started: metav1.Now(), exited: make(chan struct{}),
	}
	if err := c.makeWorkingDir(id); err != nil {
		log.close()
		return nil, &startError{"CreateContainerError", err}
	}
	c.event(corev1.EventTypeNormal, "Created", "Container created")
	cmd, err := w.nodes.launcher.start(command{spec: p.spec, argv: argv, env: p.env, stdout: stdout, stderr: stderr})
	containerID := fmt.Sprintf("process://%s/%s/%d", w.uid, c.spec.Name, attempt)
	if err != nil {
		log.close()
		c.event(corev1.EventTypeWarning, "Failed", "Error: failed to start container %q: %v", c.spec.Name, err)
		p.end = &corev1.ContainerStateTerminated{
			ExitCode: 128, Reason: "StartError", Message: err.Error(), StartedAt: p.started, FinishedAt: metav1.Now(), ContainerID: containerID,
		}
		close(p.exited)
	} else {
		p.cmd = cmd
		go func() {
			_ = cmd.Wait() // What it would tell is in ProcessState.
			if !w.nodes.launcher.isolation.Namespaces {
				// Without a PID namespace, children of the process would outlive it.
				_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			}
			stdout.flush()
			stderr.flush()
			log.close()
			p.end = ended(cmd.ProcessState, p.started, containerID)
			p.end.Message = c.terminationMessage(messages, log, p.end.ExitCode != 0)
			w.mu.Lock()
			c.process = nil
			close(p.exited)
			w.mu.Unlock()
		}()
		c.event(corev1.EventTypeNormal, "Started", "Container started")
	}
	c.change(func(s *corev1.ContainerStatus) {
		c.previous, c.log = c.log, log
		s.ContainerID, s.ImageID = containerID, "process://"+program
		if p.cmd == nil {
			return
		}
		if !isClosed(p.exited) {
			c.process = p
		}
		s.State = corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: p.started}}
		s.Started = ptr.To(c.spec.StartupProbe == nil)
		s.Ready = !c.init && c.spec.StartupProbe == nil && c.spec.ReadinessProbe == nil
	})
	return p, nil
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func allowsEscalation(c *corev1.Container) bool {
	return c.SecurityContext == nil || c.SecurityContext.AllowPrivilegeEscalation == nil || *c.SecurityContext.AllowPrivilegeEscalation
}

// layProgram puts the image's program where the command expects it, and returns the arguments of the process. The image's
// entrypoint is /<name of the program>; a command names any other place, unless a file of the Pod is there.
func (c *container) layProgram(program string, env *environment) ([]string, error) {
	expanded := func(list []string) []string {
		result := make([]string, len(list))
		for i, text := range list {
			result[i] = expand(text, env.get)
		}
		return result
	}
	argv := expanded(c.spec.Command)
	if len(argv) == 0 {
		argv = []string{"/" + filepath.Base(program)}
	}
	place := argv[0]
	switch {
	case !strings.Contains(place, "/"):
		place = "/bin/" + place // found through PATH
	case !path.IsAbs(place):
		place = path.Join("/", c.spec.WorkingDir, place)
	}
	return append(argv, expanded(c.spec.Args)...), c.worker.layProgram(place, program)
}

func (c *container) makeWorkingDir(id identity) error {
	if c.spec.WorkingDir == "" {
		return nil
	}
	dir, err := within(c.worker.root, c.spec.WorkingDir)
	if err != nil {
		return err
	}
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return nil
	}
	return os.Chown(dir, id.uid, id.gid)
}

// makeTerminationLog makes the empty file that the container may leave a last message in, and returns its path in the host's view.
func (c *container) makeTerminationLog() (string, error) {
	file, err := within(c.worker.root, c.spec.TerminationMessagePath)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return "", err
	}
	if err := os.WriteFile(file, nil, 0o666); err != nil {
		return "", err
	}
	return file, os.Chmod(file, 0o666)
}

func (c *container) terminationMessage(file string, log *logFile, failed bool) string {
	const maxMessage, maxLogLines, maxLogBytes = 4096, 80, 2048
	if f, err := os.Open(file); err == nil {
		defer f.Close()
		if content, err := io.ReadAll(io.LimitReader(f, maxMessage)); err == nil && len(content) > 0 {
			return string(content)
		}
	}
	if failed && c.spec.TerminationMessagePolicy == corev1.TerminationMessageFallbackToLogsOnError {
		return log.tail(maxLogLines, maxLogBytes)
	}
	return ""
}

// ended describes the end of a process. A signal n counts as exit code 128+n, as in a shell.
func ended(state *os.ProcessState, started metav1.Time, containerID string) *corev1.ContainerStateTerminated {
	end := &corev1.ContainerStateTerminated{Reason: "Completed", StartedAt: started, FinishedAt: metav1.Now(), ContainerID: containerID}
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		end.ExitCode = 128 + int32(status.Signal())
	} else {
		end.ExitCode = int32(state.ExitCode())
	}
	if end.ExitCode != 0 {
		end.Reason = "Error"
	}
	return end
}

// supervise probes the process and stops it when a probe or the end of ctx asks for it. It returns when the process has ended.
func (c *container) supervise(ctx context.Context, p *containerProcess) {
	probing, cancel := context.WithCancel(ctx)
	var probes sync.WaitGroup
	defer probes.Wait()
	defer cancel()

	type stop struct {
		message string
		grace   *int64
	}
	// Room for each probe and the hook, so that none waits for a reader that is gone.
	stops := make(chan stop, 4)
	unhealthy := func(message string) { c.event(corev1.EventTypeWarning, "Unhealthy", "%s", message) }
	restart := func(kind probeKind, probe *corev1.Probe) {
		stops <- stop{
			message: fmt.Sprintf("Container %s failed %s probe, will be restarted", c.spec.Name, strings.ToLower(string(kind))),
			grace:   probe.TerminationGracePeriodSeconds,
		}
	}
	afterStart := func() {
		if probe := c.spec.LivenessProbe; probe != nil {
			probes.Go(func() {
				c.runProbe(probing, livenessProbe, probe, func(ok bool) bool {
					if !ok {
						restart(livenessProbe, probe)
					}
					return ok
				}, unhealthy)
			})
		}
		if probe := c.spec.ReadinessProbe; probe != nil {
			probes.Go(func() {
				c.runProbe(probing, readinessProbe, probe, func(ok bool) bool {
					c.setReady(probing, ok)
					return true
				}, unhealthy)
			})
		}
	}
	probes.Go(func() {
		if c.spec.Lifecycle != nil && c.spec.Lifecycle.PostStart != nil {
			if err := c.runHook(probing, c.spec.Lifecycle.PostStart); err != nil && probing.Err() == nil {
				c.event(corev1.EventTypeWarning, "FailedPostStartHook", "PostStartHook failed: %v", err)
				stops <- stop{message: "FailedPostStartHook"}
				return
			}
		}
		if probe := c.spec.StartupProbe; probe != nil {
			c.runProbe(probing, startupProbe, probe, func(ok bool) bool {
				if !ok {
					restart(startupProbe, probe)
					return false
				}
				c.change(func(s *corev1.ContainerStatus) {
					s.Started = ptr.To(true)
					s.Ready = c.spec.ReadinessProbe == nil
				})
				afterStart()
				return false
			}, unhealthy)
			return
		}
		afterStart()
	})

	select {
	case <-p.exited:
	case s := <-stops:
		c.event(corev1.EventTypeNormal, "Killing", "%s", s.message)
		grace := c.worker.grace()
		if s.grace != nil {
			grace = time.Duration(*s.grace) * time.Second
		}
		c.stop(p, grace)
	case <-ctx.Done():
		cancel()
		c.change(func(s *corev1.ContainerStatus) { s.Ready = false })
		if !isClosed(c.worker.killNow) {
			c.event(corev1.EventTypeNormal, "Killing", "Stopping container %s", c.spec.Name)
		}
		c.stop(p, c.worker.grace())
	}
}

// setReady notes the verdict of the readiness probe, unless the process is being stopped.
func (c *container) setReady(probing context.Context, ready bool) {
	c.worker.mu.Lock()
	changed := probing.Err() == nil && c.status.Ready != ready
	if changed {
		c.status.Ready = ready
	}
	c.worker.mu.Unlock()
	if changed {
		kick(c.worker.dirty)
	}
}

// stop ends a process: the preStop hook, SIGTERM, and SIGKILL when the grace period is over or the Pod has to end at once.
func (c *container) stop(p *containerProcess, grace time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	go func() {
		select {
		case <-p.exited:
		case <-c.worker.killNow:
		case <-ctx.Done():
		}
		cancel()
	}()
	if c.spec.Lifecycle != nil && c.spec.Lifecycle.PreStop != nil && ctx.Err() == nil {
		if err := c.runHook(ctx, c.spec.Lifecycle.PreStop); err != nil && !isClosed(p.exited) && !isClosed(c.worker.killNow) {
			c.event(corev1.EventTypeWarning, "FailedPreStopHook", "PreStopHook failed: %v", err)
		}
	}
	if !isClosed(c.worker.killNow) {
		_ = p.cmd.Process.Signal(syscall.SIGTERM) // It fails when the process has just ended.
		if left := 2 * time.Second; ctx.Err() != nil && grace > 0 {
			// A hook that used up the grace period leaves a little to the process, as with a kubelet.
			select {
			case <-p.exited:
			case <-c.worker.killNow:
			case <-time.After(left):
			}
		}
	}
	<-ctx.Done()
	if !isClosed(p.exited) {
		_ = p.cmd.Process.Kill()
	}
	<-p.exited
}

// exec runs another program in the container's root, as the container's user and with its environment.
func (c *container) exec(ctx context.Context, argv []string, stdin io.Reader, stdout, stderr io.Writer) error {
	p := c.current()
	if p == nil {
		return fmt.Errorf("container %q is not running", c.spec.Name)
	}
	run := command{spec: p.spec, argv: argv, env: p.env, stdout: stdout, stderr: stderr}
	if stdin != nil {
		// A pipe of our own: the end of the process must not wait for more input.
		reader, writer, err := os.Pipe()
		if err != nil {
			return err
		}
		defer reader.Close()
		run.stdin = reader
		go func() {
			_, _ = io.Copy(writer, stdin)
			writer.Close()
		}()
	}
	cmd, err := c.worker.nodes.launcher.start(run)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })()
	// The namespaces of the two processes differ, so this one has to be told when the container ends.
	done := make(chan struct{})
	defer close(done)
	go func() {
		select {
		case <-p.exited:
			_ = cmd.Process.Kill()
		case <-done:
		}
	}()
	err = cmd.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code := int(ended(exit.ProcessState, p.started, "").ExitCode)
		return utilexec.CodeExitError{Err: fmt.Errorf("command terminated with exit code %d", code), Code: code}
	}
	return err
}

func (c *container) event(kind, reason, format string, args ...any) {
	c.worker.event(c.spec, c.init, kind, reason, format, args...)
}
