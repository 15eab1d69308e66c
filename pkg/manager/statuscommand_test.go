// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package manager

import (
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/util/cert"

	"github.com/incumbent-io/incumbent/pkg/controllers"
	"github.com/incumbent-io/incumbent/pkg/status"
)

// candidate is a replica's view of one lease group.
func candidate(identity, state, holder string) answer {
	return answer{replica: identity, snapshot: status.Snapshot{
		Manager: "m", Identity: identity,
		Groups: []status.Group{{Name: "default", Lease: "ns/m", State: state, Holder: holder}},
	}}
}

func TestThePictureTellsWhatIsWrong(t *testing.T) {
	dumb := answer{replica: "c", err: errors.New("no route to host")}
	unelected := candidate("a", status.Leader, "")
	unelected.snapshot.Groups[0].Lease = ""
	for name, tc := range map[string]struct {
		answers []answer
		some    bool // there may be replicas that were not asked
		want    []string
	}{
		"one leader":                      {answers: []answer{candidate("a", "leader", "a"), candidate("b", "standby", "a")}},
		"nobody leads":                    {answers: []answer{candidate("a", "standby", ""), candidate("b", "standby", "")}, want: []string{`nobody leads the lease group "default"`}},
		"the holder is gone":              {answers: []answer{candidate("a", "standby", "c")}, want: []string{`nobody leads the lease group "default"`}},
		"the holder was not asked":        {answers: []answer{candidate("a", "standby", "c")}, some: true},
		"the holder may be the dumb one":  {answers: []answer{candidate("a", "standby", "c"), dumb}, want: []string{"c: no route to host"}},
		"the holder was asked":            {answers: []answer{candidate("a", "standby", "b"), candidate("b", "draining", "b")}, some: true, want: []string{`nobody leads the lease group "default"`}},
		"two leaders":                     {answers: []answer{candidate("a", "leader", "a"), candidate("b", "leader", "b")}, want: []string{`the lease group "default" had 2 leaders while the replicas were asked, one after the other: a, b; if that stays so, look at the Lease and at the clocks`}},
		"nobody competes":                 {answers: []answer{candidate("a", status.Idle, "")}},
		"no election":                     {answers: []answer{unelected, unelected}},
		"nobody answers":                  {answers: []answer{dumb}, want: []string{"c: no route to host"}},
		"one leader, and one is dumb":     {answers: []answer{candidate("a", "leader", "a"), dumb}, want: []string{"c: no route to host"}},
		"a leader that another knows not": {answers: []answer{candidate("a", "leader", "a"), candidate("b", "standby", "")}},
	} {
		picture, flaws := assemble(tc.answers, !tc.some)
		var got []string
		for _, flaw := range flaws {
			got = append(got, flaw.Error())
		}
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		dumb := 0
		for _, a := range tc.answers {
			if a.err != nil {
				dumb++
			}
		}
		if len(picture)+dumb != len(tc.answers) {
			t.Errorf("%s: %d of %d replicas are in the picture", name, len(picture), len(tc.answers))
		}
	}
}

func TestMistakesInStatusFlagsComeAtOnceWithTheirCure(t *testing.T) {
	got := (&statusFlags{
		output: "xml", addresses: []string{"host", "http://h:1", "https://:1", "h:0", "h:99999", "https://[::1]:443/", "h:1"}, direct: true,
		token: "t", tokenFile: "f", tls: trust{insecure: true, caFile: "ca"},
	}).validate()
	want := `--output="xml" is not a form of the status; use text or json
--address="host" is not an address of a manager; give it as HOST:PORT
--address="http://h:1" is not an address of a manager; give it as HOST:PORT
--address="https://:1" is not an address of a manager; give it as HOST:PORT
--address="h:0" is not an address of a manager; give it as HOST:PORT
--address="h:99999" is not an address of a manager; give it as HOST:PORT
--address and --direct are two ways to say whom to ask; give one of them
--insecure-skip-tls-verify and --certificate-authority exclude each other; give one of them
--token and --token-file exclude each other; give one of them`
	if got == nil || got.Error() != want {
		t.Errorf("got:\n%v\nwant:\n%s", got, want)
	}
	for name, f := range map[string]statusFlags{
		"a CA for a port-forward":     {tls: trust{caFile: "ca"}},
		"nobody to trust directly":    {direct: true},
		"nobody to trust by address":  {addresses: []string{"https://h:1"}},
		"a name, but nobody to trust": {direct: true, tls: trust{serverName: "m"}},
	} {
		f.output = "text"
		if err := f.validate(); err == nil || !strings.Contains(err.Error(), "--certificate-authority") {
			t.Errorf("%s: got %v, want an error that names --certificate-authority", name, err)
		}
	}
}

func TestReplicasAreFoundByTheirPods(t *testing.T) {
	pod := func(name, label string, phase corev1.PodPhase, ports ...corev1.ContainerPort) *corev1.Pod {
		return &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, Labels: map[string]string{"app": label}},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Ports: ports}}},
			Status:     corev1.PodStatus{Phase: phase, PodIP: "10.0.0.1"},
		}
	}
	client := fake.NewClientset(
		pod("named", "m", corev1.PodRunning, corev1.ContainerPort{Name: "other", ContainerPort: 1}, corev1.ContainerPort{Name: "https", ContainerPort: 8443}),
		pod("unnamed", "m", corev1.PodRunning), pod("waits", "m", corev1.PodPending),
		pod("is-over", "m", corev1.PodSucceeded), pod("failed", "m", corev1.PodFailed), pod("stranger", "x", corev1.PodRunning))
	f := finder{client: client, namespace: "ns", selector: "app=m", port: 10257}
	replicas, err := f.find(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, r := range replicas {
		if got[r.name] = r.address; r.problem != nil {
			got[r.name] = r.problem.Error()
		}
		if r.problem == nil && (r.dial == nil || !r.trusted) {
			t.Errorf("%s: not through the API server", r.name)
		}
	}
	want := map[string]string{"ns/named": "10.0.0.1:8443", "ns/unnamed": "10.0.0.1:10257", "ns/waits": "the Pod is pending"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("replicas (-want +got):\n%s", diff)
	}

	f.direct = true
	replicas, err = f.find(t.Context())
	if err != nil || replicas[0].dial != nil || replicas[0].trusted {
		t.Errorf("--direct: got %+v, %v, want a plain connection whose certificate is checked", replicas[0], err)
	}
	f.selector = "app=nobody"
	if _, err := f.find(t.Context()); err == nil || !strings.Contains(err.Error(), "--selector") {
		t.Errorf("no Pods: got %v, want an error that names --selector", err)
	}
}

// runStatus runs the command as a user would, and returns what it prints.
func runStatus(t *testing.T, args ...string) (string, error) {
	t.Helper()
	root := NewCommand("incumbent", controllers.NewRegistry())
	var out strings.Builder
	root.SetOut(&out)
	root.SetErr(&out)
	root.SetArgs(append([]string{"status"}, args...))
	err := root.ExecuteContext(t.Context())
	return out.String(), err
}

func TestStatusByAddress(t *testing.T) {
	var code atomic.Int32 // 0: the status
	body := `{"kind": "Status", "message": "because"}`
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if got := r.Header.Get("Authorization"); got != "Bearer of-alice" {
			t.Errorf("credentials: got %q, want the token", got)
		}
		if code := int(code.Load()); code != 0 {
			w.Header().Set("Location", "https://elsewhere.example.com/")
			w.WriteHeader(code)
			_, _ = w.Write([]byte(body))
			return
		}
		_ = json.NewEncoder(w).Encode(candidate("a", status.Leader, "a").snapshot)
	}))
	defer server.Close()
	dir := t.TempDir()
	ca, token := filepath.Join(dir, "ca"), filepath.Join(dir, "token")
	if err := errors.Join(
		os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600),
		os.WriteFile(token, []byte("of-alice\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	address := "--address=https://" + server.Listener.Addr().String()

	out, err := runStatus(t, address, "--token-file="+token, "--certificate-authority="+ca)
	if err != nil || !strings.Contains(out, "default   leader") {
		t.Errorf("got %v and:\n%s\nwant the leader", err, out)
	}
	var flawed *flawedError
	out, err = runStatus(t, address, "--address=https://127.0.0.1:1", "--token-file="+token, "--certificate-authority="+ca)
	if !errors.As(err, &flawed) || !strings.Contains(err.Error(), "https://127.0.0.1:1: ") || !strings.Contains(out, "default   leader") {
		t.Errorf("one of two: got %v and:\n%s\nwant the leader, and what is wrong with the other", err, out)
	}
	system := filepath.Join(dir, "system")
	if err := os.WriteFile(system, otherCA(t), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err = runStatus(t, address, "--token-file="+token, "--certificate-authority="+system); err == nil || !strings.Contains(err.Error(), "--certificate-authority") {
		t.Errorf("an unknown CA: got %v, want an error that names --certificate-authority", err)
	}
	for number, want := range map[int]string{401: "--token", 403: "nonResourceURL /controllers: because", 404: "not a manager", 429: "429: because", 302: "302: because"} {
		code.Store(int32(number))
		_, err := runStatus(t, address, "--token-file="+token, "--certificate-authority="+ca)
		if err == nil || errors.As(err, &flawed) || !strings.Contains(err.Error(), want) {
			t.Errorf("%d: got %v, want an error with %q", number, err, want)
		}
	}
}

// otherCA is a certificate that signed no other.
func otherCA(t *testing.T) []byte {
	t.Helper()
	certificate, _, err := cert.GenerateSelfSignedCertKey("elsewhere", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return certificate
}
