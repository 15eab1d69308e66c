// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

// Package tutorial follows docs/writing-a-controller.md: what manager init writes is
// built, tested, run, changed and switched as the page says, with its commands.
package tutorial

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/incumbent-io/incumbent/test/cluster"
)

// reader follows the page.
type reader struct {
	t    *testing.T
	root string // of the repository
	page string
	dir  string // of the new manager
	env  []string
}

// do runs a command of the page, in the folder of the new manager.
func (r *reader) do(command string) string {
	r.t.Helper()
	r.promised(command)
	return r.must(command)
}

// must runs a command in the same way that is not on the page.
func (r *reader) must(command string) string {
	r.t.Helper()
	out, err := r.try(command)
	if err != nil {
		r.t.Fatalf("%s: %v\n%s", command, err, out)
	}
	return out
}

// promised fails the test unless the page has the command.
func (r *reader) promised(command string) {
	r.t.Helper()
	if !strings.Contains(r.page, "$ "+command+"\n") && !strings.Contains(r.page, "$ "+command+" ") {
		r.t.Fatalf("the tutorial does not say: $ %s", command)
	}
}

func (r *reader) try(command string) (string, error) {
	ctx, cancel := context.WithTimeout(r.t.Context(), 5*time.Minute)
	defer cancel()
	shell := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", command)
	shell.Dir, shell.Env = r.dir, r.env
	out, err := shell.CombinedOutput()
	return string(out), err
}

// until repeats a command until its output has the text.
func (r *reader) until(limit time.Duration, command, want string) {
	r.t.Helper()
	cluster.Eventually(r.t, limit, command, func() error {
		out, err := r.try(command)
		if err == nil && !strings.Contains(out, want) {
			err = errors.New("it does not say it")
		}
		if err != nil {
			err = fmt.Errorf("want %q: %w:\n%s", want, err, out)
		}
		return err
	})
}

func TestTheTutorialCanBeFollowed(t *testing.T) {
	r := begin(t)
	r.do("make test")
	r.do("make build")
	r.run()
	r.do("kubectl config set-context --current --namespace=acme-manager-system")

	t.Log("section 4: it works, and another leads when the leader goes")
	r.do("kubectl create configmap hello")
	r.do("kubectl annotate configmap hello acme-manager/team-label=world")
	r.until(20*time.Second, "kubectl get configmap hello --show-labels", "acme-manager/team-label=world")
	leader := r.leader("")
	r.must("kubectl delete pod " + strings.Split(leader, "_")[0])
	r.leader(leader)
	r.until(time.Minute, "kubectl get deployment acme-manager", "3/3")
	before := r.processes()

	t.Log("section 7: preflight")
	r.do("bin/acme-manager preflight --kubeconfig=$KUBECONFIG --config=manifests/config.yaml --namespace=acme-manager-system --as=system:serviceaccount:acme-manager-system:acme-manager")

	t.Log("section 6: it is switched off and on")
	r.do(`sed -i 's/\["\*"\]/["*", "-team-label"]/' manifests/config.yaml`)
	if out := r.do("bin/acme-manager controllers --config=manifests/config.yaml"); !strings.Contains(out, "disabled by controllers in manifests/config.yaml") {
		t.Errorf("it is not disabled:\n%s", out)
	}
	r.do("kubectl apply -k manifests")
	r.promised("kubectl logs -l app.kubernetes.io/name=acme-manager --tail=-1 | grep disabled")
	r.until(20*time.Second, "kubectl logs -l app.kubernetes.io/name=acme-manager --tail=-1 | grep disabled", `"Controller is disabled"`)
	r.must("kubectl annotate configmap hello acme-manager/team-label=moon --overwrite")
	time.Sleep(time.Second) // in which a controller that still ran would have written
	r.until(0, "kubectl get configmap hello --show-labels", "acme-manager/team-label=world")
	r.do(`sed -i 's/, "-team-label"//' manifests/config.yaml`)
	r.do(`printf 'controllerOptions:\n  team-label:\n    workers: 4\n' >> manifests/config.yaml`)
	r.do("kubectl apply -k manifests")
	r.until(20*time.Second, "kubectl get configmap hello --show-labels", "acme-manager/team-label=moon")
	if now := r.processes(); now != before {
		t.Errorf("the processes are\n%s\nwant them as before, for nothing was to be restarted:\n%s", now, before)
	}

	t.Log("section 5: it is changed")
	r.change("teamlabel/teamlabel_test.go")
	if out, err := r.try("make test"); err == nil || !strings.Contains(out, "InvalidValue") {
		t.Errorf("the new test does not fail without the change: %v\n%s", err, out)
	}
	r.change("teamlabel/teamlabel.go")
	r.do("make test")
	second := r.leader("")
	r.do("make build && kubectl rollout restart deployment/acme-manager && kubectl rollout status deployment/acme-manager")
	r.do("kubectl annotate configmap hello acme-manager/team-label='two words' --overwrite")
	r.until(20*time.Second, "kubectl get events --field-selector reason=InvalidValue", `"two words" cannot be a label`)
	r.leader(second) // has been replaced, too
}

// begin follows section 1.
func begin(t *testing.T) *reader {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(root, "docs/writing-a-controller.md"))
	if err != nil {
		t.Fatal(err)
	}
	r := &reader{t: t, root: root, page: string(page), dir: root, env: append(os.Environ(), "CGO_ENABLED=0")}
	r.do("make build")
	target := filepath.Join(t.TempDir(), "acme")
	init := "bin/manager init ../acme --name=acme-manager --controller=team-label --replace=."
	r.promised(init)
	r.must(strings.Replace(init, "../acme", target, 1))
	r.dir = target
	return r
}

// run follows section 4: it starts the local cluster, which ends with the test.
func (r *reader) run() {
	r.t.Helper()
	r.promised("make run")
	output := filepath.Join(r.t.TempDir(), "output")
	file, err := os.Create(output)
	if err != nil {
		r.t.Fatal(err)
	}
	defer file.Close()
	running := exec.Command("make", "run")
	running.Dir, running.Env, running.Stdout, running.Stderr = r.dir, r.env, file, file
	running.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // as in a terminal
	if err := running.Start(); err != nil {
		r.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- running.Wait() }()
	r.t.Cleanup(func() { r.interrupt(running.Process.Pid, ended, output) })

	export := regexp.MustCompile(`export KUBECONFIG=(\S+) PATH=(\S+):\$PATH`)
	cluster.Eventually(r.t, 3*time.Minute, "make run says what to try", func() error {
		content, err := os.ReadFile(output)
		if err != nil {
			return err
		}
		said := export.FindStringSubmatch(string(content))
		if said == nil {
			return fmt.Errorf("it says:\n%s", content)
		}
		r.env = append(r.env, "KUBECONFIG="+said[1], "PATH="+said[2]+":"+os.Getenv("PATH"))
		return nil
	})
}

// interrupt is a Ctrl-C, which must end everything.
func (r *reader) interrupt(group int, ended chan error, output string) {
	r.t.Helper()
	if err := syscall.Kill(-group, syscall.SIGINT); err != nil {
		r.t.Errorf("make run has ended by itself: %v", err)
	}
	select {
	case <-ended: // make says that it was interrupted
	case <-time.After(time.Minute):
		r.t.Error("make run still runs a minute after Ctrl-C")
		_ = syscall.Kill(-group, syscall.SIGKILL)
	}
	if content, err := os.ReadFile(output); r.t.Failed() {
		r.t.Logf("make run (%v):\n%s", err, content)
	}
}

// leader waits until somebody other than before holds the lease, and returns who.
func (r *reader) leader(before string) (holder string) {
	r.t.Helper()
	command := `kubectl get lease acme-manager -o jsonpath='{.spec.holderIdentity}{"\n"}'`
	r.promised(command)
	cluster.Eventually(r.t, 30*time.Second, "another leader than "+before, func() error {
		out, err := r.try(command)
		if holder = strings.TrimSpace(out); err == nil && (holder == "" || holder == before) {
			err = fmt.Errorf("the lease is held by %q", holder)
		}
		return err
	})
	return holder
}

// processes returns the Pods with what tells of their restarts.
func (r *reader) processes() string {
	r.t.Helper()
	return r.must(`kubectl get pods -l app.kubernetes.io/name=acme-manager --sort-by=.metadata.name -o jsonpath='{range .items[*]}{.metadata.uid} {.status.containerStatuses[0].restartCount}{"\n"}{end}'`)
}

// change applies the page's patch of a file.
func (r *reader) change(file string) {
	r.t.Helper()
	for _, block := range strings.Split(r.page, "<!-- change -->\n```diff\n")[1:] {
		patch, _, _ := strings.Cut(block, "```")
		if !strings.Contains(patch, "+++ b/"+file+"\n") {
			continue
		}
		apply := exec.CommandContext(r.t.Context(), "git", "apply", "--whitespace=error", "-")
		apply.Dir, apply.Stdin = r.dir, strings.NewReader(patch)
		if out, err := apply.CombinedOutput(); err != nil {
			r.t.Fatalf("the tutorial's change of %s does not apply: %v\n%s", file, err, out)
		}
		return
	}
	r.t.Fatalf("the tutorial has no change of %s", file)
}
