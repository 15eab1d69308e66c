// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package serving_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"go.uber.org/goleak"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	"github.com/incumbent-io/incumbent/pkg/serving"
)

func TestMain(m *testing.M) {
	klog.SetLogger(logr.Discard())
	goleak.VerifyTestMain(m)
}

// reviewers is a fake API server that answers reviews. Its zero value knows nobody.
type reviewers struct {
	users   map[string]string   // token -> user
	groups  map[string][]string // user -> groups
	allowed map[string][]string // user or group -> "verb path"
	broken  bool                // answers access reviews with 500
	slow    time.Duration       // before each answer

	mu   sync.Mutex
	ca   []byte   // in the ConfigMap of client CAs
	seen []string // "tokenreview TOKEN", "accessreview USER verb path", or the path of a request
}

// start serves until the test ends and returns how to reach the server.
func (f *reviewers) start(t *testing.T) *rest.Config {
	t.Helper()
	server := httptest.NewServer(f)
	t.Cleanup(func() {
		server.CloseClientConnections() // a watch would keep it open
		server.Close()
	})
	// Reviews must not use the manager's limiter.
	return &rest.Config{Host: server.URL, RateLimiter: exhausted{}}
}

func (f *reviewers) asked() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.seen)
}

func (f *reviewers) replaceCA(pem []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ca = pem
}

func (f *reviewers) note(entry string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seen = append(f.seen, entry)
}

func (f *reviewers) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	time.Sleep(f.slow)
	w.Header().Set("Content-Type", "application/json")
	switch r.URL.Path {
	case "/apis/authentication.k8s.io/v1/tokenreviews":
		var review authenticationv1.TokenReview
		decode(r, &review)
		f.note("tokenreview " + review.Spec.Token)
		if user, known := f.users[review.Spec.Token]; known {
			review.Status = authenticationv1.TokenReviewStatus{Authenticated: true, User: authenticationv1.UserInfo{Username: user, Groups: f.groups[user]}}
		} else {
			review.Status.Error = "the token has expired"
		}
		_ = json.NewEncoder(w).Encode(review)
	case "/apis/authorization.k8s.io/v1/subjectaccessreviews":
		var review authorizationv1.SubjectAccessReview
		decode(r, &review)
		attributes := review.Spec.NonResourceAttributes
		what := attributes.Verb + " " + attributes.Path
		f.note("accessreview " + review.Spec.User + " " + what)
		if f.broken {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		for _, subject := range append(review.Spec.Groups, review.Spec.User) {
			review.Status.Allowed = review.Status.Allowed || slices.Contains(f.allowed[subject], what)
		}
		if !review.Status.Allowed {
			review.Status.Reason = "no rule is there"
		}
		_ = json.NewEncoder(w).Encode(review)
	case "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication":
		f.note(r.URL.Path)
		f.mu.Lock()
		defer f.mu.Unlock()
		_ = json.NewEncoder(w).Encode(corev1.ConfigMap{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
			Data:     map[string]string{"client-ca-file": string(f.ca)},
		})
	default:
		f.note(r.URL.Path)
		w.WriteHeader(http.StatusNotFound)
	}
}

// decode reads an object in JSON or protobuf.
func decode(r *http.Request, object runtime.Object) {
	content, _ := io.ReadAll(r.Body)
	_, _, _ = scheme.Codecs.UniversalDeserializer().Decode(content, nil, object)
}

// exhausted is a rate limiter that lets nobody through, and says so at once.
type exhausted struct{}

func (exhausted) TryAccept() bool { return false }
func (exhausted) Accept()         { select {} }
func (exhausted) Stop()           {}
func (exhausted) QPS() float32    { return 0 }
func (exhausted) Wait(context.Context) error {
	return errors.New("the manager's own rate limiter was asked")
}

// defaults is the default configuration on a free loopback port.
func defaults(t *testing.T, api *rest.Config) serving.Config {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	config := serving.Defaults("test", 0)
	config.SecureServing.Listener = listener
	config.REST = api
	return config
}

// serve serves handler until the test ends and returns the server's address.
func serve(t *testing.T, config serving.Config, handler http.Handler) string {
	t.Helper()
	server, err := serving.Listen(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(ctx, handler) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return server.Address().String()
}

// echo answers every request with its path.
var echo = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.URL.Path) })

// browser is a client without connections that outlive a test.
func browser(config *tls.Config) *http.Client {
	config.InsecureSkipVerify = true
	return &http.Client{
		Timeout:       30 * time.Second,
		Transport:     &http.Transport{TLSClientConfig: config, DisableKeepAlives: true, ForceAttemptHTTP2: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// send sends one request and returns the status and the body of the answer.
func send(t *testing.T, client *http.Client, method, url, token string) (int, string) {
	t.Helper()
	request, err := http.NewRequest(method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := client.Do(request)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	return response.StatusCode, string(body)
}

// authority is a CA that signs certificates for tests.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pem         []byte
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{certificate, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

// issue returns the certificate of name and its key, in PEM.
func (a *authority) issue(t *testing.T, name string) (certificate, key []byte) {
	t.Helper()
	private := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}, DNSNames: []string{name},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, private.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER})
}

// client is a browser with a client certificate for user.
func (a *authority) client(t *testing.T, user string) *http.Client {
	t.Helper()
	pair, err := tls.X509KeyPair(a.issue(t, user))
	if err != nil {
		t.Fatal(err)
	}
	return browser(&tls.Config{Certificates: []tls.Certificate{pair}})
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}
