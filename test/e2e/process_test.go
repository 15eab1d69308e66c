// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/incumbent-io/incumbent/test/cluster"
)

// launch starts bin/manager. The test ends it if it does not end before.
func launch(t *testing.T, args ...string) *cluster.Process {
	t.Helper()
	return shared.Launch(t, "manager", nil, args...)
}

func TestMistakesEndInOneClearLine(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing")
	for _, tc := range []struct {
		args []string
		want []string
	}{
		{[]string{"--controllers=-object-ttl"}, []string{`"-object-ttl" only disables`, `did you mean "*,-object-ttl"?`}},
		{[]string{"--controllers=nosuch"}, []string{`unknown controller "nosuch"`, "leader-label, object-ttl"}},
		{[]string{"--controllers=object-tll"}, []string{`did you mean "object-ttl"?`}},
		{[]string{"--leader-elect-lease-duration=900ms"}, []string{"--leader-elect-lease-duration", "900ms", "whole number of seconds"}},
		{[]string{"--leader-elect-renew-deadline=20s"}, []string{"20s", "raise the lease duration or lower the renew deadline"}},
		{[]string{"--kubeconfig=" + missing}, []string{missing, "pass the path of a readable kubeconfig file"}},
		{nil, []string{"no API server to talk to", "--kubeconfig=PATH"}},
		{[]string{"--nosuch"}, []string{"unknown flag: --nosuch", "--help"}},
		{[]string{"nosuch"}, []string{`unknown command "nosuch"`}},
		{[]string{"--object-ttl-resources=pods"}, []string{"pods", "v1/configmaps"}},
		{[]string{"controllers", "-o", "xml"}, []string{`--output="xml"`, "table or json"}},
	} {
		t.Run(strings.Join(tc.args, " "), func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), filepath.Join(shared.Root, "bin/manager"), tc.args...)
			var stdout, stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			err := cmd.Run()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != 1 {
				t.Errorf("got %v, want exit code 1", err)
			}
			text := stderr.String()
			for _, want := range tc.want {
				if !strings.Contains(text, want) {
					t.Errorf("got %q, want it to contain %q", text, want)
				}
			}
			if strings.Count(text, "\n") != 1 || strings.Contains(text, "goroutine") || stdout.Len() > 0 {
				t.Errorf("got stderr %q and stdout %q, want one line on stderr", text, stdout.String())
			}
		})
	}
}

func TestControllersAreListedWithoutACluster(t *testing.T) {
	out, err := shared.Run(t.Context(), "manager", "controllers", "--controllers=*,-object-ttl")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"NAME", "object-ttl", "no", "disabled by --controllers", "leader-label", "yes", "enabled by default"} {
		if !strings.Contains(out, want) {
			t.Errorf("the table lacks %q:\n%s", want, out)
		}
	}
	out, err = shared.Run(t.Context(), "manager", "controllers", "-o", "json")
	var rows []struct {
		Name    string
		Enabled bool
		Reason  string
	}
	if err == nil {
		err = json.Unmarshal([]byte(out), &rows)
	}
	gates := map[string]string{}
	for _, row := range rows {
		gates[row.Name] = fmt.Sprint(row.Enabled, ", ", row.Reason)
	}
	want := map[string]string{
		"config-propagation": "false, disabled by default", "config-rollout": "false, disabled by default",
		"leader-label": "true, enabled by default", "object-ttl": "true, enabled by default",
	}
	if diff := cmp.Diff(want, gates); err != nil || diff != "" {
		t.Errorf("%v, gates (-want +got):\n%s", err, diff)
	}
}

func TestHelpHasSections(t *testing.T) {
	out, err := shared.Run(t.Context(), "manager", "--help")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Generic flags:", "Leader election flags:", "--leader-elect-lease-duration", "--controllers", "--feature-gates", "--logging-format", "--version", "Object-ttl controller flags:", "--object-ttl-resources"} {
		if !strings.Contains(out, want) {
			t.Errorf("--help lacks %q:\n%s", want, out)
		}
	}
	out, err = shared.Run(t.Context(), "manager", "--version")
	if err != nil || !strings.Contains(out, "v") {
		t.Errorf("--version: got %q (%v)", out, err)
	}
}

// TestUnreachableServerIsRetriedAndReported starts the manager without an API server
// behind its kubeconfig.
func TestUnreachableServerIsRetriedAndReported(t *testing.T) {
	config := clientcmdapi.NewConfig()
	config.Clusters["c"] = &clientcmdapi.Cluster{Server: "https://127.0.0.1:" + cluster.FreePort(t)}
	config.Contexts["c"] = &clientcmdapi.Context{Cluster: "c"}
	config.CurrentContext = "c"
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		t.Fatal(err)
	}
	p := launch(t, "--kubeconfig="+path)
	cluster.Eventually(t, 10*time.Second, "a /readyz that says why", func() error {
		status, body, err := cluster.Get(t, p.Address+"/readyz", "")
		if err == nil && (status != 500 || !strings.Contains(body, "connection refused")) {
			err = fmt.Errorf("got %d %q", status, body)
		}
		return err
	})
	if status, _, err := cluster.Get(t, p.Address+"/livez", ""); status != 200 {
		t.Errorf("/livez: got %d (%v), want 200", status, err)
	}
	p.AwaitLog(t, 10*time.Second, "connection refused")
	p.Terminate(t)
	if log := p.Log(); strings.Contains(log, "goroutine ") || strings.Count(log, "\n") > 60 {
		t.Errorf("the log has a stack or too many lines:\n%s", log)
	}
}

// TestForbiddenLeaseIsReportedUntilItIsAllowed starts the manager as an account
// without any rights, and grants them later.
func TestForbiddenLeaseIsReportedUntilItIsAllowed(t *testing.T) {
	const namespace = "forbidden"
	shared.Namespace(t, namespace)
	const account = "manager"
	path := shared.KubeconfigFor(t, namespace, account)

	p := launch(t, "--kubeconfig="+path, "--controllers=leader-label") // which is skipped: no Pod
	cluster.Eventually(t, 10*time.Second, "a /readyz that says why", func() error {
		status, body, err := cluster.Get(t, p.Address+"/readyz", "")
		if err == nil && (status != 500 || !strings.Contains(body, "forbidden")) {
			err = fmt.Errorf("got %d %q", status, body)
		}
		return err
	})
	p.AwaitLog(t, 10*time.Second, "forbidden")
	shared.Kubectl(t, "-n", namespace, "create", "rolebinding", "manager", "--clusterrole=cluster-admin", "--serviceaccount="+namespace+":"+account)
	took := cluster.Eventually(t, 15*time.Second, "a leader", func() error {
		object, err := shared.Client.CoordinationV1().Leases(namespace).Get(t.Context(), lease, metav1.GetOptions{})
		if err == nil && (object.Spec.HolderIdentity == nil || *object.Spec.HolderIdentity == "") {
			err = errors.New("the lease has no holder")
		}
		return err
	})
	t.Logf("led %v after it was allowed to", took)
	cluster.Eventually(t, 10*time.Second, "a /readyz that is well again", func() error {
		status, body, err := cluster.Get(t, p.Address+"/readyz", "")
		if err == nil && status != 200 {
			err = fmt.Errorf("got %d %q", status, body)
		}
		return err
	})
	p.Terminate(t)
	object, err := shared.Client.CoordinationV1().Leases(namespace).Get(t.Context(), lease, metav1.GetOptions{})
	if err != nil || object.Spec.HolderIdentity != nil && *object.Spec.HolderIdentity != "" {
		t.Errorf("after SIGTERM: got holder %v (%v), want the lease released", object.Spec.HolderIdentity, err)
	}
}

func TestWithoutElectionControllersRunAtOnce(t *testing.T) {
	shared.Namespace(t, "unelected")
	p := launch(t, "--kubeconfig="+shared.Kubeconfig, "--leader-elect=false", "--controllers=object-ttl")
	p.AwaitLog(t, 10*time.Second, "Leader election is off: nothing")
	maps := shared.Client.CoreV1().ConfigMaps("unelected")
	object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "old", Annotations: map[string]string{"incumbent.io/expires-at": "2020-01-01T00:00:00Z"}}}
	if _, err := maps.Create(t.Context(), object, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	cluster.Eventually(t, 10*time.Second, "the end of an expired ConfigMap", func() error {
		_, err := maps.Get(t.Context(), "old", metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("it is still there (%v)", err)
	})
	if _, err := shared.Client.CoordinationV1().Leases("default").Get(t.Context(), lease, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("lease: got %v, want none", err)
	}
	p.Terminate(t)
}

// TestControllerThatDoesNotStopKeepsTheLeaseUnreleased asks a manager to stop whose
// controller does not: it exits with code 1, after the drain timeout or at once at the
// second signal, names the straggler, and leaves the lease to expire.
func TestControllerThatDoesNotStopKeepsTheLeaseUnreleased(t *testing.T) {
	for name, tc := range map[string]struct {
		timeout string
		signals int
	}{
		"drain-timeout": {timeout: "1s", signals: 1},
		"second-signal": {timeout: "1h", signals: 2},
	} {
		t.Run(name, func(t *testing.T) {
			p := shared.Launch(t, "stubborn", nil, "--kubeconfig="+shared.Kubeconfig,
				"--leader-elect-resource-name="+name, "--drain-timeout="+tc.timeout)
			p.AwaitLog(t, 15*time.Second, "The stubborn controller runs")
			for n := range tc.signals {
				if n > 0 {
					p.AwaitLog(t, 10*time.Second, "a second signal stops at once")
				}
				if err := p.Process.Signal(syscall.SIGTERM); err != nil {
					t.Fatal(err)
				}
			}
			select {
			case err := <-p.Ended:
				var exit *exec.ExitError
				if !errors.As(err, &exit) || exit.ExitCode() != 1 {
					t.Errorf("got %v, want exit code 1", err)
				}
			case <-time.After(20 * time.Second):
				t.Fatal("it still runs")
			}
			if log := p.Log(); !strings.Contains(log, "still running: stubborn") || strings.Contains(log, "goroutine ") {
				t.Errorf("the log does not name the straggler, or has a stack:\n%s", log)
			}
			object, err := shared.Client.CoordinationV1().Leases("default").Get(t.Context(), name, metav1.GetOptions{})
			if err != nil || object.Spec.HolderIdentity == nil || *object.Spec.HolderIdentity == "" {
				t.Errorf("the lease: got %v (%v), want it still held", object.Spec.HolderIdentity, err)
			}
		})
	}
}

func TestPortInUseIsReported(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	cmd := exec.CommandContext(t.Context(), filepath.Join(shared.Root, "bin/manager"), "--kubeconfig="+shared.Kubeconfig, "--leader-elect-resource-name=port-in-use", "--bind-address=127.0.0.1", "--secure-port="+port)
	cmd.Env = os.Environ()
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "address already in use") || !strings.Contains(string(out), "--secure-port="+port) {
		t.Errorf("got %v and:\n%s\nwant a failure that names the flag and the reason", err, out)
	}
}
