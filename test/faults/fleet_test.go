// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package faults

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/incumbent-io/incumbent/test/faults/candidate"
	"github.com/incumbent-io/incumbent/test/faults/mono"

	"github.com/incumbent-io/incumbent/test/cluster"
)

// kind is a candidate program.
type kind string

const (
	ours  kind = "ours"
	stock kind = "stock"
)

// spec is how a candidate is run.
type spec struct {
	kind         kind
	every, drain time.Duration // of its work
	timeout      time.Duration // stock: of requests on the Lease
	release      bool          // stock: ReleaseOnCancel
	restart      bool          // its container when it ends
	fencing      bool          // the fencing component is in force
}

// fleet is a few candidates that compete for one Lease, in a namespace of their own.
type fleet struct {
	t         *testing.T
	c         *stage
	namespace string
	log       *chronicle

	mu      sync.Mutex
	members map[string]*member // by the name of the Pod
	created int
}

// member is one candidate: a Pod.
type member struct {
	spec
	name string
	uid  types.UID
	tail *tail
}

var fleets atomic.Int64

// newFleet makes a namespace for a trial. It waits until there is room for so many
// Pods, and removes those of the fleet when the trial is over.
func newFleet(t *testing.T, name string, pods int) *fleet {
	t.Helper()
	shared.room.take(pods)
	t.Cleanup(func() { shared.room.give(pods) })
	f := &fleet{t: t, c: shared, namespace: fmt.Sprintf("%s-%d", name, fleets.Add(1)), log: newChronicle(), members: map[string]*member{}}
	shared.watcher.follow(f.namespace, f.log)
	ctx, client := t.Context(), shared.Client
	f.must(client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: f.namespace}}, metav1.CreateOptions{}))
	f.must(client.RbacV1().RoleBindings(f.namespace).Create(ctx, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "candidates"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: "default", Namespace: f.namespace}},
	}, metav1.CreateOptions{}))
	for _, name := range []string{candidate.Object, barrier} {
		f.must(client.CoreV1().ConfigMaps(f.namespace).Create(ctx, &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{observedLabel: name}},
		}, metav1.CreateOptions{}))
	}
	f.must(client.CoreV1().ConfigMaps(f.namespace).Create(ctx, &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: candidate.Marker}, Data: map[string]string{"value": "first"},
	}, metav1.CreateOptions{}))
	f.must(client.CoordinationV1().Leases(f.namespace).Create(ctx, &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: barrier}}, metav1.CreateOptions{}))
	t.Cleanup(f.close)
	return f
}

// recovered waits until the control plane starts Pods in new namespaces again. Its own
// controllers back off for up to a minute when the API server has been away.
func (c *stage) recovered(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	f := newFleet(t, "recovered", 1)
	if err := cluster.Poll(ctx, func() error {
		_, err := c.Client.CoreV1().ServiceAccounts(f.namespace).Get(ctx, "default", metav1.GetOptions{})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	m := f.add(spec{kind: stock})
	if _, ok := f.log.await(ctx, func(v view) bool {
		_, built := v.last(m.name, candidate.Built)
		return built
	}); !ok {
		t.Fatal("the control plane starts no Pods any more")
	}
}

// must fails the test if a call of the API failed.
func (f *fleet) must(_ metav1.Object, err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

// close removes the Pods at once. If the trial has failed, it prints what happened.
func (f *fleet) close() {
	if f.t.Failed() {
		f.t.Log(f.story())
	}
	ctx := context.Background() // the test's has ended
	none := int64(0)
	for _, m := range f.list() {
		m.tail.stop()
		err := f.c.Client.CoreV1().Pods(f.namespace).Delete(ctx, m.name, metav1.DeleteOptions{GracePeriodSeconds: &none})
		if err != nil && !apierrors.IsNotFound(err) {
			f.t.Error(err)
		}
	}
}

func (f *fleet) list() (members []*member) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range f.members {
		members = append(members, m)
	}
	return members
}

func (f *fleet) member(pod string) *member {
	f.t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	m := f.members[pod]
	if m == nil {
		f.t.Fatalf("there is no candidate %q", pod)
	}
	return m
}

// kindOf returns the program of a Pod.
func (f *fleet) kindOf(pod string) kind {
	f.mu.Lock()
	defer f.mu.Unlock()
	if m := f.members[pod]; m != nil {
		return m.kind
	}
	return ""
}

// add starts a candidate and does not wait for it.
func (f *fleet) add(s spec) *member {
	f.t.Helper()
	f.mu.Lock()
	name := fmt.Sprintf("%s-%d", s.kind, f.created)
	f.created++
	f.mu.Unlock()
	// The service account of a new namespace takes a moment.
	ctx, cancel := context.WithTimeout(f.t.Context(), 30*time.Second)
	defer cancel()
	var pod *corev1.Pod
	if err := cluster.Poll(ctx, func() (err error) {
		pod, err = f.c.Client.CoreV1().Pods(f.namespace).Create(ctx, podOfSpec(name, s), metav1.CreateOptions{})
		return err
	}); err != nil {
		f.t.Fatal(err)
	}
	m := &member{spec: s, name: name, uid: pod.UID}
	folder := filepath.Join(f.c.Data, "logs", "pods", fmt.Sprintf("%s_%s_%s", f.namespace, name, m.uid), "candidate")
	m.tail = follow(folder, func(attempt int, r candidate.Record) { f.log.note(process{name, attempt}, r) })
	f.mu.Lock()
	f.members[name] = m
	f.mu.Unlock()
	return m
}

// start adds several candidates of one kind and waits until all take part.
func (f *fleet) start(n int, s spec) {
	f.t.Helper()
	var members []*member
	for range n {
		members = append(members, f.add(s))
	}
	for _, m := range members {
		f.joined(m)
	}
}

// joined waits until a candidate takes part in the election, with all that it needs.
func (f *fleet) joined(m *member) {
	f.t.Helper()
	if m.kind == stock {
		f.await(30*time.Second, m.name+" takes part", func(v view) bool {
			_, stands := v.last(m.name, candidate.Standing)
			_, runs := v.last(m.name, candidate.Run)
			return stands || runs
		})
		return
	}
	v := f.await(30*time.Second, m.name+" is warm", func(v view) bool {
		_, warm := v.last(m.name, candidate.Warm)
		return warm
	})
	f.standing(m, v)
}

// standing waits until a candidate of ours says that it leads, or who does.
func (f *fleet) standing(m *member, v view) {
	f.t.Helper()
	built, _ := v.last(m.name, candidate.Built)
	ctx, cancel := context.WithTimeout(f.t.Context(), 30*time.Second)
	defer cancel()
	if err := cluster.Poll(ctx, func() error {
		status, body, err := get(ctx, "https://"+built.Record.Note+":10257/readyz?verbose")
		if err == nil && (status != http.StatusOK || !strings.Contains(body, "leader is ") && !strings.Contains(body, "leader, epoch")) {
			err = errors.New(body)
		}
		return err
	}); err != nil {
		f.t.Fatalf("%s does not take part in the election: %v", m.name, err)
	}
}

// await waits for a condition on what has happened. It fails the test if that takes
// longer than the limit.
func (f *fleet) await(limit time.Duration, what string, condition func(view) bool) view {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), limit)
	defer cancel()
	v, ok := f.log.await(ctx, condition)
	if !ok {
		f.t.Fatalf("%s: not within %v", what, limit)
	}
	return v
}

// leader waits until the holder of the Lease works, and returns it with its identity.
func (f *fleet) leader() (*member, string) {
	f.t.Helper()
	v := f.await(40*time.Second, "a leader that works", func(v view) bool {
		_, _, ok := v.leader()
		return ok
	})
	pod, begin, _ := v.leader()
	return f.member(pod), begin.Who
}

// successor waits until another candidate than the given one holds the Lease and
// works. It returns its acquisition and the begin of its work.
func (f *fleet) successor(limit time.Duration, after int64, not string) (leaseEvent, note) {
	f.t.Helper()
	v := f.await(limit, "a successor of "+not+" that works", func(v view) bool {
		e, ok := v.acquisition(after, not)
		if !ok {
			return false
		}
		begin, ok := v.running(podOf(e.holder))
		return ok && begin.Who == e.holder
	})
	e, _ := v.acquisition(after, not)
	begin, _ := v.running(podOf(e.holder))
	return e, begin
}

// renewal waits for the next version of the Lease that the holder writes.
func (f *fleet) renewal(holder string) leaseEvent {
	f.t.Helper()
	from := mono.Now()
	return f.await(10*time.Second, "a renewal", func(v view) bool {
		e := v.lease()
		return e.holder == holder && e.seen > from
	}).lease()
}

// signal sends a signal to a candidate's process and returns the moment before.
func (f *fleet) signal(m *member, signal syscall.Signal) (at int64) {
	f.t.Helper()
	answer, err := f.c.control(f.t.Context(), http.MethodGet, "/pods/"+f.namespace+"/"+m.name+"/pid")
	if err != nil {
		f.t.Fatal(err)
	}
	pid, err := strconv.Atoi(answer)
	if err != nil {
		f.t.Fatal(err)
	}
	attempt := m.tail.attempt()
	f.log.add(func(v *view) {
		at = mono.Now()
		switch signal {
		case syscall.SIGTERM:
			v.told[m.name] = at
		case syscall.SIGKILL:
			v.killed[process{m.name, attempt}] = at
		}
	})
	if err := syscall.Kill(pid, signal); err != nil {
		f.t.Fatalf("%v to %s: %v", signal, m.name, err)
	}
	return at
}

// net disturbs the network between a candidate and the API server.
func (f *fleet) net(m *member, mode string, delay time.Duration) {
	f.t.Helper()
	path := "/pods/" + f.namespace + "/" + m.name + "/net/" + mode
	if delay > 0 {
		path += "?duration=" + delay.String()
	}
	if _, err := f.c.control(context.Background(), http.MethodPost, path); err != nil {
		f.t.Fatal(err)
	}
}

// remove deletes the Pod of a candidate that has ended.
func (f *fleet) remove(m *member) {
	f.t.Helper()
	none := int64(0)
	if err := f.c.Client.CoreV1().Pods(f.namespace).Delete(f.t.Context(), m.name, metav1.DeleteOptions{GracePeriodSeconds: &none}); err != nil {
		f.t.Fatal(err)
	}
}

// settled returns what has happened, once all that the API server has committed and
// the candidates have written so far is in it.
func (f *fleet) settled() view {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), 30*time.Second)
	defer cancel()
	patch := []byte(fmt.Sprintf(`{"metadata":{"annotations":{"at":"%d"}}}`, mono.Now()))
	lease, err := f.c.Client.CoordinationV1().Leases(f.namespace).Patch(ctx, barrier, types.MergePatchType, patch, metav1.PatchOptions{})
	f.must(lease, err)
	object, err := f.c.Client.CoreV1().ConfigMaps(f.namespace).Patch(ctx, barrier, types.MergePatchType, patch, metav1.PatchOptions{})
	f.must(object, err)
	for kind, version := range map[string]string{"leases": lease.ResourceVersion, "configmaps": object.ResourceVersion} {
		select {
		case <-f.c.watcher.passing(kind, f.namespace, version):
		case <-ctx.Done():
			f.t.Fatalf("the observer does not see %s", kind)
		}
	}
	for _, m := range f.list() {
		m.tail.read()
	}
	v, _ := f.log.view()
	return v
}

// story tells what happened, for a trial that failed.
func (f *fleet) story() string {
	var b strings.Builder
	v, _ := f.log.view()
	fmt.Fprintf(&b, "fleet %s, now %.3f\n", f.namespace, seconds(mono.Now()))
	last := leaseEvent{}
	for i, e := range v.leases {
		if i < len(v.leases)-3 && e.holder == last.holder && e.deleted == last.deleted && e.epoch == last.epoch {
			continue // a renewal
		}
		last = e
		fmt.Fprintf(&b, "  lease  %.3f rv %d holder %q epoch %d deleted %v\n", seconds(e.seen), e.rv, e.holder, e.epoch, e.deleted)
	}
	for _, n := range v.notes {
		fmt.Fprintf(&b, "  note   %.3f %s/%d %s epoch %d until %.3f %s\n", seconds(n.At), n.pod, n.attempt, n.What, n.Epoch, seconds(n.Until), n.Record.Note)
	}
	for pod, at := range v.told {
		fmt.Fprintf(&b, "  told   %.3f %s\n", seconds(at), pod)
	}
	for p, at := range v.killed {
		fmt.Fprintf(&b, "  killed %.3f %s/%d\n", seconds(at), p.pod, p.attempt)
	}
	for _, m := range f.list() {
		fmt.Fprintf(&b, "--- log of %s\n%s", m.name, m.tail.logs())
	}
	return b.String()
}

func seconds(at int64) float64 { return float64(at) / 1e9 }

func podOfSpec(name string, s spec) *corev1.Pod {
	user, grace := int64(65532), int64(60)
	args := []string{"--every=" + s.every.String(), "--drain=" + s.drain.String(), "--timeout=" + s.timeout.String(), fmt.Sprintf("--release=%v", s.release), "--lease=" + contested}
	if s.kind == ours {
		args = []string{
			"--bind-address=$(POD_IP)", "--leader-elect-identity-dir=/var/run/incumbent", "--leader-elect-resource-name=" + contested,
			"--kube-api-qps=0", "--drain-timeout=50s", "--v=2",
			"--writer-every=" + s.every.String(), "--writer-drain=" + s.drain.String(),
		}
	}
	if s.fencing && s.kind == ours {
		args = append(args, "--fencing")
	}
	field := func(name, path string) corev1.EnvVar {
		return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: path}}}
	}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{
			RestartPolicy:                 corev1.RestartPolicyNever,
			TerminationGracePeriodSeconds: &grace,
			SecurityContext:               &corev1.PodSecurityContext{RunAsUser: &user, RunAsGroup: &user, FSGroup: &user},
			Containers: []corev1.Container{{
				Name: "candidate", Image: "incumbent-io/" + string(s.kind), Args: args,
				Env: []corev1.EnvVar{
					field("POD_NAME", "metadata.name"), field("POD_NAMESPACE", "metadata.namespace"),
					field("POD_UID", "metadata.uid"), field("POD_IP", "status.podIP"),
				},
				VolumeMounts: []corev1.VolumeMount{{Name: "identity", MountPath: "/var/run/incumbent"}},
			}},
			Volumes: []corev1.Volume{{Name: "identity", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}},
		},
	}
	if s.restart {
		pod.Spec.RestartPolicy = corev1.RestartPolicyAlways
	}
	return pod
}

// insecure accepts the candidates' self-signed certificates.
var insecure = &http.Client{Transport: &http.Transport{
	TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
	DisableKeepAlives: true,
}}

// get fetches a page of a candidate.
func get(ctx context.Context, url string) (status int, body string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	response, err := insecure.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	return response.StatusCode, string(content), err
}

// tail reads the journals of the processes of one Pod while they are written. It
// reads the files and not the API, which the campaign makes fail.
type tail struct {
	folder string
	tell   func(attempt int, r candidate.Record)
	ended  chan struct{}
	once   sync.Once

	mu     sync.Mutex
	number int // of the process whose journal is read
	file   *os.File
	rest   []byte
}

func follow(folder string, tell func(int, candidate.Record)) *tail {
	l := &tail{folder: folder, tell: tell, ended: make(chan struct{})}
	go func() {
		ticker := time.NewTicker(20 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				l.read()
			case <-l.ended:
				return
			}
		}
	}()
	return l
}

// stop ends the reading.
func (l *tail) stop() {
	l.once.Do(func() { close(l.ended) })
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file != nil {
		l.file.Close()
	}
}

// attempt returns the number of the process whose journal is being read.
func (l *tail) attempt() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.number
}

func (l *tail) path(number int) string { return filepath.Join(l.folder, strconv.Itoa(number)+".log") }

// read reads all that is there.
func (l *tail) read() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		_, err := os.Stat(l.path(l.number + 1))
		successor := err == nil // then this one is complete
		if l.file == nil {
			if l.file, err = os.Open(l.path(l.number)); err != nil {
				return
			}
		}
		content, err := io.ReadAll(l.file)
		if err != nil {
			return // closed
		}
		l.rest = append(l.rest, content...)
		for {
			line, rest, complete := strings.Cut(string(l.rest), "\n")
			if !complete {
				break
			}
			l.rest = []byte(rest)
			if r, ok := candidate.Parse(line); ok {
				l.tell(l.number, r)
			}
		}
		if !successor {
			return
		}
		l.file.Close()
		l.file, l.rest = nil, nil
		l.number++
	}
}

// logs returns the last lines of each process that are not the journal.
func (l *tail) logs() string {
	const most = 40
	var b strings.Builder
	for number := range l.attempt() + 1 {
		content, err := os.ReadFile(l.path(number))
		if err != nil {
			continue
		}
		var lines []string
		for line := range strings.Lines(string(content)) {
			if _, ok := candidate.Parse(line); !ok && !strings.Contains(line, "Feature gate") {
				lines = append(lines, line)
			}
		}
		fmt.Fprintf(&b, "process %d:\n%s", number, strings.Join(lines[max(0, len(lines)-most):], ""))
	}
	return b.String()
}

// clean fails the test if there are violations, unless the fleet is the control.
func (f *fleet) clean(k kind, found finding) {
	f.t.Helper()
	for n, problem := range found.problems {
		switch {
		case n == 10:
			f.t.Logf("and %d more", len(found.problems)-n)
			return
		case k == stock:
			f.t.Logf("the control: %s", problem)
		default:
			f.t.Error(problem)
		}
	}
}

// exited waits until the process of a candidate, which is not restarted, has ended.
func (f *fleet) exited(m *member) {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), time.Minute)
	defer cancel()
	if err := cluster.Poll(ctx, func() error {
		if _, err := f.c.control(ctx, http.MethodGet, "/pods/"+f.namespace+"/"+m.name+"/pid"); err == nil {
			return errors.New("it still runs")
		}
		return nil
	}); err != nil {
		f.t.Fatalf("%s: %v", m.name, err)
	}
}
