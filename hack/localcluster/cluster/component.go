// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"

	"github.com/incumbent-io/incumbent/hack/localcluster/process"
)

// The names of the components, on the command line and in the logs folder.
const (
	Etcd              = "etcd"
	APIServer         = "apiserver"
	ControllerManager = "kcm"
	Scheduler         = "scheduler"
)

// ComponentCommand is the hidden subcommand of the program that runs a component: ComponentCommand NAME ARGS...
const ComponentCommand = "__component"

// component is one child process of the control plane, which faults may kill, stop and start again.
//
//	        start            stop
//	down ----------> running ------> stopped
//	 ^                | ^              | |
//	 |   kill, death  | +-----cont-----+ |
//	 +----------------+------------------+ kill
type component struct {
	name       string
	executable string
	args       []string
	logFile    string
	spawner    *process.Spawner
	died       func(c *component, err error) // called when it ends although nothing asked for it

	mu      sync.Mutex
	process *childProcess // nil while down
}

type childProcess struct {
	pid     int
	asked   bool // kill was asked for, so its end is no news
	stopped bool
	done    chan struct{}
}

var (
	errRunning = errors.New("is running already")
	errDown    = errors.New("is not running")
)

func (c *component) start() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.process != nil {
		return fmt.Errorf("%s %w", c.name, errRunning)
	}
	log, err := os.OpenFile(c.logFile, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(c.executable, append([]string{ComponentCommand, c.name}, c.args...)...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := c.spawner.Start(cmd); err != nil {
		return fmt.Errorf("start %s: %w", c.name, err)
	}
	child := &childProcess{pid: cmd.Process.Pid, done: make(chan struct{})}
	c.process = child
	go func() {
		err := cmd.Wait()
		c.mu.Lock()
		c.process = nil
		asked := child.asked
		c.mu.Unlock()
		close(child.done)
		if !asked {
			c.died(c, err)
		}
	}()
	return nil
}

// kill ends the process with SIGKILL and returns when it is gone. Nothing starts it again.
func (c *component) kill() error {
	c.mu.Lock()
	child := c.process
	if child == nil {
		c.mu.Unlock()
		return fmt.Errorf("%s %w", c.name, errDown)
	}
	child.asked = true
	err := syscall.Kill(child.pid, syscall.SIGKILL)
	c.mu.Unlock()
	if err != nil {
		return err
	}
	<-child.done
	return nil
}

func (c *component) restart() error {
	if err := c.kill(); err != nil && !errors.Is(err, errDown) {
		return err
	}
	return c.start()
}

// freeze sends SIGSTOP or SIGCONT.
func (c *component) freeze(stop bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.process == nil {
		return fmt.Errorf("%s %w", c.name, errDown)
	}
	signal := syscall.SIGCONT
	if stop {
		signal = syscall.SIGSTOP
	}
	c.process.stopped = stop
	return syscall.Kill(c.process.pid, signal)
}

// ComponentStatus is what `fault status` tells of a component.
type ComponentStatus struct {
	Name  string `json:"name"`
	State string `json:"state"` // down, running, stopped
	PID   int    `json:"pid,omitempty"`
	Log   string `json:"log"`
}

func (c *component) status() ComponentStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := ComponentStatus{Name: c.name, State: "down", Log: c.logFile}
	if c.process != nil {
		s.State, s.PID = "running", c.process.pid
		if c.process.stopped {
			s.State = "stopped"
		}
	}
	return s
}

// logTail returns the last lines of the component's log, indented.
func (c *component) logTail(lines int) string {
	content, err := os.ReadFile(c.logFile)
	if err != nil {
		return ""
	}
	all := bytes.Split(bytes.TrimRight(content, "\n"), []byte("\n"))
	if len(all) > lines {
		all = all[len(all)-lines:]
	}
	var b strings.Builder
	for _, line := range all {
		fmt.Fprintf(&b, "    %s\n", line)
	}
	return b.String()
}
