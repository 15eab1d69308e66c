// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package serving_test

import (
	"crypto/tls"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

func TestGuardLetsInWhomItShould(t *testing.T) {
	fake := &reviewers{
		users:   map[string]string{"of-alice": "alice", "of-bob": "bob"},
		allowed: map[string][]string{"alice": {"get /metrics", "put /debug/flags/v"}},
	}
	url := "https://" + serve(t, defaults(t, fake.start(t)), echo)
	client := browser(&tls.Config{})
	for name, tc := range map[string]struct {
		method, path, token string
		want                int
	}{
		"health is open":                         {path: "/readyz", want: 200},
		"single checks are open":                 {path: "/readyz/leader-election", want: 200},
		"open paths ignore credentials":          {path: "/livez", token: "wrong", want: 200},
		"an open path's name is not a prefix":    {path: "/livezoo", want: 401},
		"no credentials":                         {path: "/metrics", want: 401},
		"a wrong token":                          {path: "/metrics", token: "wrong", want: 401},
		"no permission":                          {path: "/metrics", token: "of-bob", want: 403},
		"permission":                             {path: "/metrics", token: "of-alice", want: 200},
		"no permission for another path":         {path: "/metrics/slis", token: "of-alice", want: 403},
		"the method is the verb":                 {method: "PUT", path: "/debug/flags/v", token: "of-alice", want: 200},
		"reading needs its own permission":       {path: "/debug/flags/v", token: "of-alice", want: 403},
		"paths that do not exist are not told":   {path: "/nothing", want: 401},
		"the root is not open":                   {path: "/", want: 401},
		"dots do not lead out of an open path":   {path: "/livez/../metrics", want: 400},
		"nor do encoded slashes":                 {path: "/livez/..%2Fmetrics", want: 400},
		"encoded slashes are not plain":          {path: "/livez/a%2Fb", want: 400},
		"nor do encoded dots":                    {path: "/livez/%2e%2e/metrics", want: 400},
		"nor do double slashes":                  {path: "//metrics", want: 400},
		"a slash at the end is plain":            {path: "/livez/", want: 200},
		"the upper case of a path is not open":   {path: "/LIVEZ", want: 401},
		"a query does not open a path":           {path: "/metrics?/livez", want: 401},
		"an empty bearer token is no credential": {path: "/metrics", token: " ", want: 401},
	} {
		t.Run(name, func(t *testing.T) {
			method := tc.method
			if method == "" {
				method = "GET"
			}
			if got, body := send(t, client, method, url+tc.path, tc.token); got != tc.want {
				t.Errorf("got %d %q, want %d", got, body, tc.want)
			}
		})
	}
}

func TestOpenPathsAskNobodyAndAnswersAreCached(t *testing.T) {
	fake := &reviewers{users: map[string]string{"of-alice": "alice"}, allowed: map[string][]string{"alice": {"get /metrics"}}}
	url := "https://" + serve(t, defaults(t, fake.start(t)), echo)
	client := browser(&tls.Config{})
	send(t, client, "GET", url+"/livez", "of-alice")
	send(t, client, "GET", url+"/metrics", "")
	if asked := fake.asked(); len(asked) > 0 {
		t.Errorf("asked %q, want nothing: a start, an open path and a request without credentials need no review", asked)
	}
	for range 3 {
		if status, body := send(t, client, "GET", url+"/metrics", "of-alice"); status != 200 {
			t.Fatalf("got %d %q, want 200", status, body)
		}
	}
	want := []string{"tokenreview of-alice", "accessreview alice get /metrics"}
	if diff := cmp.Diff(want, fake.asked()); diff != "" {
		t.Errorf("reviews (-want +got):\n%s", diff)
	}
}

func TestPermissionsOfGroupsCount(t *testing.T) {
	fake := &reviewers{
		users:   map[string]string{"of-alice": "alice", "of-root": "root"},
		groups:  map[string][]string{"alice": {"operators"}, "root": {"system:masters"}},
		allowed: map[string][]string{"operators": {"get /metrics"}},
	}
	url := "https://" + serve(t, defaults(t, fake.start(t)), echo)
	client := browser(&tls.Config{})
	if status, body := send(t, client, "GET", url+"/metrics", "of-alice"); status != 200 {
		t.Errorf("a group with the permission: got %d %q, want 200", status, body)
	}
	if status, body := send(t, client, "GET", url+"/configz", "of-root"); status != 200 {
		t.Errorf("a group that may do everything: got %d %q, want 200", status, body)
	}
	want := []string{"tokenreview of-alice", "accessreview alice get /metrics", "tokenreview of-root"}
	if diff := cmp.Diff(want, fake.asked()); diff != "" {
		t.Errorf("reviews (-want +got):\n%s", diff)
	}
}

func TestRefusalsTellWhyAndAreCached(t *testing.T) {
	fake := &reviewers{users: map[string]string{"of-bob": "bob"}}
	url := "https://" + serve(t, defaults(t, fake.start(t)), echo)
	client := browser(&tls.Config{})
	for token, want := range map[string]metav1.Status{
		"wrong":  {Status: metav1.StatusFailure, Code: 401, Reason: metav1.StatusReasonUnauthorized, Message: "Unauthorized"},
		"of-bob": {Status: metav1.StatusFailure, Code: 403, Reason: metav1.StatusReasonForbidden, Message: `forbidden: user "bob" cannot get path "/metrics": no rule is there`},
	} {
		for range 2 {
			code, body := send(t, client, "GET", url+"/metrics", token)
			var got metav1.Status
			if err := json.Unmarshal([]byte(body), &got); err != nil {
				t.Fatalf("%s: %v in %q", token, err, body)
			}
			want.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}
			got.Details = nil
			if diff := cmp.Diff(want, got); diff != "" || code != int(want.Code) {
				t.Errorf("%s: code %d, status (-want +got):\n%s", token, code, diff)
			}
		}
	}
	reviews := 0
	for _, entry := range fake.asked() {
		if strings.HasPrefix(entry, "accessreview") {
			reviews++
		}
	}
	if reviews != 1 {
		t.Errorf("asked %q, want one access review", fake.asked())
	}
}

// TestBurstIsOneReview has many come at once, while the API server takes its time.
func TestBurstIsOneReview(t *testing.T) {
	fake := &reviewers{users: map[string]string{"of-alice": "alice"}, allowed: map[string][]string{"alice": {"get /metrics"}}, slow: 200 * time.Millisecond}
	url := "https://" + serve(t, defaults(t, fake.start(t)), echo)
	client := browser(&tls.Config{})
	var burst sync.WaitGroup
	for range 50 {
		burst.Go(func() {
			if status, body := send(t, client, "GET", url+"/metrics", "of-alice"); status != 200 {
				t.Errorf("got %d %q, want 200", status, body)
			}
		})
	}
	burst.Wait()
	if diff := cmp.Diff([]string{"tokenreview of-alice", "accessreview alice get /metrics"}, fake.asked()); diff != "" {
		t.Errorf("reviews (-want +got):\n%s", diff)
	}
}

// TestImpersonationIsIgnored: it is for API servers.
func TestImpersonationIsIgnored(t *testing.T) {
	fake := &reviewers{users: map[string]string{"of-bob": "bob"}}
	url := "https://" + serve(t, defaults(t, fake.start(t)), echo)
	request, err := http.NewRequest("GET", url+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer of-bob")
	request.Header.Set("Impersonate-User", "root")
	request.Header.Set("Impersonate-Group", "system:masters")
	request.Header.Set("X-Remote-User", "root")
	request.Header.Set("X-Remote-Group", "system:masters")
	response, err := browser(&tls.Config{}).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	if response.StatusCode != 403 {
		t.Errorf("got %d, want 403", response.StatusCode)
	}
	if diff := cmp.Diff([]string{"tokenreview of-bob", "accessreview bob get /metrics"}, fake.asked()); diff != "" {
		t.Errorf("reviews (-want +got):\n%s", diff)
	}
}

// TestHandlersSeeNoCredentials keeps tokens out of what a handler may log.
func TestHandlersSeeNoCredentials(t *testing.T) {
	fake := &reviewers{users: map[string]string{"of-alice": "alice"}, allowed: map[string][]string{"alice": {"get /metrics"}}}
	url := "https://" + serve(t, defaults(t, fake.start(t)), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Header.Get("Authorization"))
	}))
	if status, body := send(t, browser(&tls.Config{}), "GET", url+"/metrics", "of-alice"); status != 200 || body != "" {
		t.Errorf("got %d and the handler saw %q, want 200 and nothing", status, body)
	}
}

// TestHealthDoesNotWaitForTheAPIServer has an API server that takes connections and
// never answers, which is worse than one that refuses them.
func TestHealthDoesNotWaitForTheAPIServer(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	config := defaults(t, &rest.Config{Host: "http://" + silent.Addr().String()})
	config.Authentication.Timeout = 300 * time.Millisecond
	url := "https://" + serve(t, config, echo)
	client := browser(&tls.Config{})
	send(t, client, "GET", url+"/livez", "") // the certificate is made meanwhile

	var guarded sync.WaitGroup
	begin := time.Now()
	for range 100 { // more than may be reviewed at a time
		guarded.Go(func() {
			status, body := send(t, client, "GET", url+"/metrics", "of-alice")
			if status != 503 && status != 429 {
				t.Errorf("got %d %q, want 503 or 429", status, body)
			}
		})
	}
	for range 10 {
		if status, body := send(t, client, "GET", url+"/livez", ""); status != 200 || body != "/livez" {
			t.Errorf("health: got %d %q, want 200", status, body)
		}
	}
	guarded.Wait()
	if took := time.Since(begin); took > 20*time.Second {
		t.Errorf("the guarded requests took %v; a review that is not answered must end", took)
	}
}

func TestAPIServerThatFailsIsAnErrorWithinBounds(t *testing.T) {
	fake := &reviewers{users: map[string]string{"of-alice": "alice"}, allowed: map[string][]string{"alice": {"get /metrics"}}, broken: true}
	config := defaults(t, fake.start(t))
	config.Authorization.Timeout = 300 * time.Millisecond
	url := "https://" + serve(t, config, echo)
	begin := time.Now()
	if status, body := send(t, browser(&tls.Config{}), "GET", url+"/metrics", "of-alice"); status != 503 {
		t.Errorf("got %d %q, want 503", status, body)
	}
	if took := time.Since(begin); took > 3*time.Second { // the retries alone would take 4 s
		t.Errorf("the answer took %v; a review is bounded with its retries", took)
	}
}

func TestGuardedRequestsAreLimited(t *testing.T) {
	fake := &reviewers{users: map[string]string{"of-alice": "alice"}, allowed: map[string][]string{"alice": {"get /slow"}}}
	inside, release := make(chan struct{}, 200), make(chan struct{})
	url := "https://" + serve(t, defaults(t, fake.start(t)), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			inside <- struct{}{}
			<-release
		}
	}))
	client := browser(&tls.Config{})
	var running sync.WaitGroup
	for range 64 {
		running.Go(func() {
			if status, body := send(t, client, "GET", url+"/slow", "of-alice"); status != 200 {
				t.Errorf("within the limit: got %d %q, want 200", status, body)
			}
		})
	}
	for range 64 {
		<-inside
	}
	if status, body := send(t, client, "GET", url+"/slow", "of-alice"); status != 429 {
		t.Errorf("above the limit: got %d %q, want 429", status, body)
	}
	if status, body := send(t, client, "GET", url+"/livez", ""); status != 200 {
		t.Errorf("health above the limit: got %d %q, want 200", status, body)
	}
	close(release)
	running.Wait()
	if status, body := send(t, client, "GET", url+"/slow", "of-alice"); status != 200 {
		t.Errorf("after the flood: got %d %q, want 200", status, body)
	}
}

func TestKubeconfigFlagsWinOverTheManagersOwnClient(t *testing.T) {
	own := &reviewers{}
	other := &reviewers{users: map[string]string{"of-alice": "alice"}, allowed: map[string][]string{"alice": {"get /metrics"}}}
	file := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(api.Config{
		Clusters:       map[string]*api.Cluster{"other": {Server: other.start(t).Host}},
		Contexts:       map[string]*api.Context{"other": {Cluster: "other"}},
		CurrentContext: "other",
	}, file); err != nil {
		t.Fatal(err)
	}
	config := defaults(t, own.start(t))
	config.Authentication.Kubeconfig = file
	config.Authorization.Kubeconfig = file
	url := "https://" + serve(t, config, echo)
	if status, body := send(t, browser(&tls.Config{}), "GET", url+"/metrics", "of-alice"); status != 200 {
		t.Errorf("got %d %q, want 200", status, body)
	}
	if asked := own.asked(); len(asked) > 0 {
		t.Errorf("asked the manager's own API server %q, want nothing", asked)
	}
}

func TestWithoutAnAPIServerOnlyOpenPathsAreServed(t *testing.T) {
	config := defaults(t, nil)
	config.Authorization.AlwaysAllowPaths = append(config.Authorization.AlwaysAllowPaths, "/metrics")
	url := "https://" + serve(t, config, echo)
	client := browser(&tls.Config{})
	for path, want := range map[string]int{"/livez": 200, "/metrics": 200, "/configz": 401} {
		if got, body := send(t, client, "GET", url+path, "of-alice"); got != want {
			t.Errorf("%s: got %d %q, want %d", path, got, body, want)
		}
	}
}

func TestClientCertificatesOfTheGivenCA(t *testing.T) {
	ca, stranger := newAuthority(t), newAuthority(t)
	fake := &reviewers{allowed: map[string][]string{"alice": {"get /metrics"}}}
	config := defaults(t, fake.start(t))
	config.Authentication.ClientCAFile = filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(config.Authentication.ClientCAFile, ca.pem, 0o600); err != nil {
		t.Fatal(err)
	}
	url := "https://" + serve(t, config, echo)
	for name, tc := range map[string]struct {
		client *http.Client
		want   int
	}{
		"permitted":      {ca.client(t, "alice"), 200},
		"not permitted":  {ca.client(t, "bob"), 403},
		"of another CA":  {stranger.client(t, "alice"), 401},
		"no certificate": {browser(&tls.Config{}), 401},
	} {
		if got, body := send(t, tc.client, "GET", url+"/metrics", ""); got != tc.want {
			t.Errorf("%s: got %d %q, want %d", name, got, body, tc.want)
		}
	}
	if asked := fake.asked(); slices.ContainsFunc(asked, func(entry string) bool { return strings.HasPrefix(entry, "tokenreview") }) {
		t.Errorf("asked %q, want no review of tokens", asked)
	}
}

func TestHeadersOfAFrontProxyAreBelievedOnlyFromIt(t *testing.T) {
	ca, stranger := newAuthority(t), newAuthority(t)
	fake := &reviewers{allowed: map[string][]string{"alice": {"get /metrics"}}}
	config := defaults(t, fake.start(t))
	config.Authentication.FrontProxy.ClientCAFile = filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(config.Authentication.FrontProxy.ClientCAFile, ca.pem, 0o600); err != nil {
		t.Fatal(err)
	}
	url := "https://" + serve(t, config, echo)
	for name, tc := range map[string]struct {
		client *http.Client
		user   string
		want   int
	}{
		"the proxy for alice":   {ca.client(t, "front-proxy"), "alice", 200},
		"the proxy for bob":     {ca.client(t, "front-proxy"), "bob", 403},
		"the proxy for nobody":  {ca.client(t, "front-proxy"), "", 401},
		"another CA":            {stranger.client(t, "front-proxy"), "alice", 401},
		"without a certificate": {browser(&tls.Config{}), "alice", 401},
	} {
		request, err := http.NewRequest("GET", url+"/metrics", nil)
		if err != nil {
			t.Fatal(err)
		}
		if tc.user != "" {
			request.Header.Set("X-Remote-User", tc.user)
		}
		response, err := tc.client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if response.StatusCode != tc.want {
			t.Errorf("%s: got %d, want %d", name, response.StatusCode, tc.want)
		}
	}
}

// TestStrangersKeepNoHTTP2Connection asks twice over what could be one connection.
func TestStrangersKeepNoHTTP2Connection(t *testing.T) {
	address := serve(t, defaults(t, nil), echo)
	for path, want := range map[string]int{"/livez": 200, "/metrics": 401} {
		client := browser(&tls.Config{})
		client.Transport.(*http.Transport).DisableKeepAlives = false
		t.Cleanup(client.CloseIdleConnections)
		for range 2 {
			reused := false
			trace := &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) { reused = info.Reused }}
			request, err := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), trace), "GET", "https://"+address+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			response, err := client.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, response.Body)
			_ = response.Body.Close()
			if response.StatusCode != want || response.ProtoMajor != 2 || reused {
				t.Errorf("%s: got %d over HTTP/%d, reused connection %v; want %d over HTTP/2 and a new connection", path, response.StatusCode, response.ProtoMajor, reused, want)
			}
		}
	}
}

func TestClientCAIsLookedUpWhenACertificateIsShown(t *testing.T) {
	const lookUp = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication"
	ca, next := newAuthority(t), newAuthority(t)
	fake := &reviewers{ca: ca.pem, allowed: map[string][]string{"alice": {"get /metrics"}}}
	config := defaults(t, fake.start(t))
	config.Authentication.CacheTTL = 100 * time.Millisecond
	url := "https://" + serve(t, config, echo)
	if status, body := send(t, browser(&tls.Config{}), "GET", url+"/metrics", ""); status != 401 {
		t.Errorf("no certificate: got %d %q, want 401", status, body)
	}
	if asked := fake.asked(); len(asked) > 0 {
		t.Errorf("no certificate: asked %q, want nothing", asked)
	}
	client := ca.client(t, "alice")
	if status, body := send(t, client, "GET", url+"/metrics", ""); status != 200 {
		t.Errorf("the CA in the ConfigMap: got %d %q, want 200", status, body)
	}
	if diff := cmp.Diff([]string{lookUp, "accessreview alice get /metrics"}, fake.asked()); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}
	fake.replaceCA(next.pem)
	eventually(t, "the next CA to count", func() bool {
		status, _ := send(t, next.client(t, "alice"), "GET", url+"/metrics", "")
		return status == 200
	})
	if status, body := send(t, client, "GET", url+"/metrics", ""); status != 401 {
		t.Errorf("the CA that is gone: got %d %q, want 401", status, body)
	}
	fake.replaceCA(nil)
	eventually(t, "no CA to count", func() bool {
		status, _ := send(t, next.client(t, "alice"), "GET", url+"/metrics", "")
		return status == 401
	})

	fake = &reviewers{ca: ca.pem}
	config = defaults(t, fake.start(t))
	config.Authentication.SkipLookup = true
	url = "https://" + serve(t, config, echo)
	if status, body := send(t, client, "GET", url+"/metrics", ""); status != 401 {
		t.Errorf("lookup skipped: got %d %q, want 401", status, body)
	}
	if asked := fake.asked(); len(asked) > 0 {
		t.Errorf("lookup skipped: asked %q, want nothing", asked)
	}
}

// TestKnownClientCACountsWhileNobodyCanBeAsked lets an administrator look at a manager
// whose API server is away.
func TestKnownClientCACountsWhileNobodyCanBeAsked(t *testing.T) {
	ca := newAuthority(t)
	fake := &reviewers{ca: ca.pem}
	server := httptest.NewServer(fake)
	config := defaults(t, &rest.Config{Host: server.URL})
	config.Authentication.CacheTTL = time.Millisecond
	config.Authorization.AlwaysAllowGroups = []string{"system:authenticated"}
	url := "https://" + serve(t, config, echo)
	client := ca.client(t, "alice")
	if status, body := send(t, client, "GET", url+"/metrics", ""); status != 200 {
		t.Errorf("got %d %q, want 200", status, body)
	}
	server.Close()
	if status, body := send(t, client, "GET", url+"/metrics", ""); status != 200 {
		t.Errorf("without the API server: got %d %q, want 200", status, body)
	}

	fresh := defaults(t, &rest.Config{Host: server.URL})
	url = "https://" + serve(t, fresh, echo)
	if status, body := send(t, client, "GET", url+"/metrics", ""); status != 503 {
		t.Errorf("never known: got %d %q, want 503", status, body)
	}
}

func TestReplacedClientCAFileCounts(t *testing.T) {
	ca, next := newAuthority(t), newAuthority(t)
	fake := &reviewers{allowed: map[string][]string{"alice": {"get /metrics"}}}
	config := defaults(t, fake.start(t))
	config.Authentication.ClientCAFile = filepath.Join(t.TempDir(), "ca.crt")
	must(t, os.WriteFile(config.Authentication.ClientCAFile, ca.pem, 0o600))
	url := "https://" + serve(t, config, echo)
	status := func(of *authority) int {
		code, _ := send(t, of.client(t, "alice"), "GET", url+"/metrics", "")
		return code
	}
	must(t, os.WriteFile(config.Authentication.ClientCAFile, next.pem, 0o600))
	eventually(t, "the next CA to count", func() bool { return status(next) == 200 })
	if got := status(ca); got != 401 {
		t.Errorf("the CA that is gone: got %d, want 401", got)
	}
}

// eventually waits for what another goroutine does in real time.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !condition(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited 20 s for %s", what)
		}
	}
}
