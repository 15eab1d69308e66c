// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

// Package cluster starts a local cluster for the tests of a package, and managers and
// tools beside it. TestMain calls Main, or a test Start. What is started for one test
// ends with it.
//
// One package of tests has one cluster. Its name, as all that it holds, is private to
// it, so packages of tests can run at the same time.
package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// Config says what a cluster is to have.
type Config struct {
	// Programs are packages of the repository, such as ./test/e2e/faulty, that are
	// built for the tests. Each is also the image incumbent-io/NAME of Pods. The
	// manager, and the image incumbent-io/manager, are always there.
	Programs []string
}

// Cluster is a local cluster that runs.
type Cluster struct {
	Root       string // of the repository
	Folder     string // of all that belongs to the cluster; it goes with it
	Data       string // of the control plane; holds audit.log
	Kubeconfig string // the path of an administrator's
	REST       *rest.Config
	Client     kubernetes.Interface // without a limit of its own

	programs string // folder of what was built for the tests
	process  *exec.Cmd
	output   bytes.Buffer // of the process; read only once it has ended
}

// Main runs a package's tests on a cluster, and returns TestMain's exit code: run's, or 1
// if the cluster does not start, or leaves something behind.
func Main(config Config, run func(*Cluster) int) int {
	c, err := start(config)
	if err != nil {
		fmt.Fprintln(os.Stderr, "FAIL: the local cluster does not start:", err)
		return 1
	}
	code := run(c)
	if err := c.stop(); err != nil {
		fmt.Fprintln(os.Stderr, "FAIL: the local cluster does not stop cleanly:", err)
		return 1
	}
	return code
}

// Start starts a cluster for a test and its subtests.
func Start(t testing.TB, config Config) *Cluster {
	t.Helper()
	c, err := start(config)
	if err != nil {
		t.Fatalf("the local cluster does not start: %v", err)
	}
	t.Cleanup(func() {
		if err := c.stop(); err != nil {
			t.Errorf("the local cluster does not stop cleanly: %v", err)
		}
	})
	return c
}

// start builds what is needed, if it is not there yet, and starts the cluster. It
// returns when the cluster can take Pods; the current directory must be two below the
// repository's.
func start(config Config) (*Cluster, error) {
	root, err := filepath.Abs("../..")
	if err != nil {
		return nil, err
	}
	folder, err := os.MkdirTemp("", "incumbent-test-")
	if err != nil {
		return nil, err
	}
	c := &Cluster{
		Root: root, Folder: folder, Data: filepath.Join(folder, "cluster"),
		Kubeconfig: filepath.Join(folder, "kubeconfig"), programs: filepath.Join(folder, "bin"),
	}
	if err := c.build(config.Programs); err != nil {
		return nil, err
	}
	if err := os.WriteFile(c.imagesFile(), nil, 0o600); err != nil {
		return nil, err
	}
	args := []string{"up", "--data", c.Data, "--kubeconfig", c.Kubeconfig, "--images-file", c.imagesFile(), "--image", "incumbent-io/manager=" + c.Program("manager")}
	for _, program := range config.Programs {
		name := filepath.Base(program)
		args = append(args, "--image", "incumbent-io/"+name+"="+c.Program(name))
	}
	c.process = exec.Command(c.Program("localcluster"), args...)
	c.process.Stdout, c.process.Stderr = &c.output, &c.output
	if err := c.process.Start(); err != nil {
		return nil, err
	}
	if err := c.awaitReady(); err != nil {
		_ = c.process.Process.Signal(syscall.SIGTERM)
		_ = c.process.Wait()
		return nil, fmt.Errorf("%w\n%s", err, c.output.String())
	}
	return c, nil
}

func (c *Cluster) build(programs []string) error {
	commands := [][]string{{"make", "build"}}
	if len(programs) > 0 {
		commands = append(commands, append([]string{"go", "build", "-tags=grpcnotrace", "-trimpath", "-ldflags=-s -w", "-o", c.programs + "/"}, programs...))
	}
	for _, command := range commands {
		build := exec.Command(command[0], command[1:]...)
		build.Dir = c.Root
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		build.Stdout, build.Stderr = os.Stdout, os.Stderr
		if err := build.Run(); err != nil {
			return fmt.Errorf("%q: %w", command, err)
		}
	}
	return nil
}

// Program returns the path of a program: manager, localcluster, kubectl, or one of
// Config.Programs by the last element of its path. An absolute path is itself.
func (c *Cluster) Program(name string) string {
	switch {
	case name == "manager", name == "localcluster", name == "kubectl":
		return filepath.Join(c.Root, "bin", name)
	case filepath.IsAbs(name):
		return name
	}
	return filepath.Join(c.programs, name)
}

// imagesFile holds what AddImage adds.
func (c *Cluster) imagesFile() string { return filepath.Join(c.Folder, "images") }

// AddImage makes the program at the path the image of that name, without a tag, for
// containers that start from now on. It must be linked statically.
func (c *Cluster) AddImage(t testing.TB, name, path string) {
	t.Helper()
	file, err := os.OpenFile(c.imagesFile(), os.O_APPEND|os.O_WRONLY, 0)
	if err == nil {
		_, err = fmt.Fprintf(file, "%s=%s\n", name, path)
		err = errors.Join(err, file.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (c *Cluster) awaitReady() error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	return Poll(ctx, func() error {
		if c.Client == nil {
			config, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig)
			if err != nil {
				return err
			}
			config.QPS = -1
			if c.Client, err = kubernetes.NewForConfig(config); err != nil {
				return err
			}
			c.REST = config
		}
		_, err := c.Client.CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{})
		return err
	})
}

// AwaitAPIServer waits, for two minutes at most, until the API server says that it is
// ready.
func (c *Cluster) AwaitAPIServer() error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	return Poll(ctx, func() error {
		once, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		return c.Client.CoreV1().RESTClient().Get().AbsPath("/readyz").Do(once).Error()
	})
}

// stop ends the cluster and makes sure that nothing of it is left.
func (c *Cluster) stop() error {
	if err := c.process.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- c.process.Wait() }()
	select {
	case err := <-ended:
		if err != nil {
			return fmt.Errorf("%w\n%s", err, c.output.String())
		}
	case <-time.After(time.Minute):
		_ = c.process.Process.Kill()
		return errors.New("it was still running a minute after SIGTERM")
	}
	left, err := processesOf(c.Folder)
	if err != nil {
		return err
	}
	if len(left) > 0 {
		return fmt.Errorf("processes left behind: %q", left)
	}
	return os.RemoveAll(c.Folder)
}

// processesOf returns the command lines of all processes that have the folder in
// theirs, or as their root or working directory.
func processesOf(folder string) (list []string, err error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		dir := filepath.Join("/proc", entry.Name())
		command, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil || entry.Name() == fmt.Sprint(os.Getpid()) {
			continue // not a process, or one that has just ended
		}
		root, _ := os.Readlink(filepath.Join(dir, "root"))
		work, _ := os.Readlink(filepath.Join(dir, "cwd"))
		if strings.Contains(string(command)+root+work, folder) {
			list = append(list, strings.ReplaceAll(string(command), "\x00", " "))
		}
	}
	return list, nil
}

// Run runs a program (see Program) in the repository's folder, with the kubeconfig of
// the cluster, and returns all that it prints.
func (c *Cluster) Run(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, c.Program(name), args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.Kubeconfig)
	cmd.Dir = c.Root
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// Kubectl runs kubectl as a user would and returns what it prints.
func (c *Cluster) Kubectl(t testing.TB, args ...string) string {
	t.Helper()
	return c.must(t, "kubectl", args...)
}

// Fault injects a fault with the local cluster's own command.
func (c *Cluster) Fault(t testing.TB, args ...string) string {
	t.Helper()
	return c.must(t, "localcluster", append([]string{"fault", "--data", c.Data}, args...)...)
}

func (c *Cluster) must(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := c.Run(t.Context(), name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return out
}

// Namespace makes a namespace for the test and removes it afterwards.
func (c *Cluster) Namespace(t testing.TB, name string) {
	t.Helper()
	object := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if _, err := c.Client.CoreV1().Namespaces().Create(t.Context(), object, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		err := c.Client.CoreV1().Namespaces().Delete(context.Background(), name, metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			t.Errorf("remove namespace %s: %v", name, err)
		}
	})
	Eventually(t, 30*time.Second, "service account of namespace "+name, func() error {
		_, err := c.Client.CoreV1().ServiceAccounts(name).Get(t.Context(), "default", metav1.GetOptions{})
		return err
	})
}

// KubeconfigFor makes a service account without any rights, and returns the path of a
// kubeconfig of its own.
func (c *Cluster) KubeconfigFor(t testing.TB, namespace, account string) string {
	t.Helper()
	accounts := c.Client.CoreV1().ServiceAccounts(namespace)
	if _, err := accounts.Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: account}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	token, err := accounts.CreateToken(t.Context(), account, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	config := clientcmdapi.NewConfig()
	config.Clusters["c"] = &clientcmdapi.Cluster{Server: c.REST.Host, CertificateAuthorityData: c.REST.CAData, CertificateAuthority: c.REST.CAFile}
	config.AuthInfos["c"] = &clientcmdapi.AuthInfo{Token: token.Status.Token}
	config.Contexts["c"] = &clientcmdapi.Context{Cluster: "c", AuthInfo: "c", Namespace: namespace}
	config.CurrentContext = "c"
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// Watches returns how many watches on a resource the API server serves, by its
// metrics: those of a scope, which is cluster, namespace or resource, or "" for all.
func (c *Cluster) Watches(t testing.TB, resource, scope string) (n int) {
	t.Helper()
	body, err := c.Client.CoreV1().RESTClient().Get().AbsPath("/metrics").DoRaw(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(body)) {
		if strings.HasPrefix(line, "apiserver_longrunning_requests{") && strings.Contains(line, `verb="WATCH"`) &&
			strings.Contains(line, `resource="`+resource+`"`) && (scope == "" || strings.Contains(line, `scope="`+scope+`"`)) {
			value, err := strconv.ParseFloat(strings.TrimSpace(line[strings.LastIndex(line, " "):]), 64)
			if err != nil {
				t.Fatal(err)
			}
			n += int(value)
		}
	}
	return n
}
