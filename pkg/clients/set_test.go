// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package clients

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/flowcontrol"
)

func TestNewSetRefusesWhatNoClientAccepts(t *testing.T) {
	for _, tt := range []struct {
		name   string
		config SetConfig
		want   string
	}{
		{"no REST", SetConfig{}, "REST is required"},
		{"host", SetConfig{REST: &rest.Config{Host: "http://a b"}}, "host must be"},
		{"burst", SetConfig{REST: &rest.Config{Host: "h", QPS: 5}}, "Burst"},
		{"TLS", SetConfig{REST: &rest.Config{Host: "h", TLSClientConfig: rest.TLSClientConfig{CAData: []byte("x")}}}, "root certificates"},
		{"auth", SetConfig{REST: &rest.Config{Host: "h", Username: "u", BearerToken: "t"}}, "username"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := NewSet(tt.config); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("NewSet returned %v, want an error about %q", err, tt.want)
			}
			if _, err := NewPool(PoolConfig{REST: tt.config.REST}); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("NewPool returned %v, want an error about %q", err, tt.want)
			}
		})
	}
}

var errFence = errors.New("not the leader")

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// limiter counts what passes it.
type limiter struct {
	flowcontrol.RateLimiter
	waits int
}

func newLimiter() *limiter { return &limiter{RateLimiter: flowcontrol.NewFakeAlwaysRateLimiter()} }

func (l *limiter) Wait(context.Context) error {
	l.waits++
	return nil
}

func TestEveryClientOfASetIsFencedAndLimitedTogether(t *testing.T) {
	var agents []string
	limit := newLimiter()
	set, err := NewSet(SetConfig{
		REST:      &rest.Config{Host: "https://apiserver.test", RateLimiter: limit, ContentConfig: rest.ContentConfig{ContentType: "application/vnd.kubernetes.protobuf"}},
		UserAgent: "fleet/quota",
		Wrap: func(http.RoundTripper) http.RoundTripper {
			return roundTripper(func(r *http.Request) (*http.Response, error) {
				agents = append(agents, r.Header.Get("User-Agent"))
				return nil, errFence
			})
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	fromConfig, err := kubernetes.NewForConfig(set.RESTConfig())
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	writes := map[string]func() error{
		"Kubernetes": func() error {
			_, err := set.Kubernetes().CoreV1().ConfigMaps("d").Create(ctx, &corev1.ConfigMap{}, metav1.CreateOptions{})
			return err
		},
		"Dynamic": func() error {
			return set.Dynamic().Resource(configMaps).Namespace("d").Delete(ctx, "a", metav1.DeleteOptions{})
		},
		"Metadata": func() error {
			return set.Metadata().Resource(configMaps).Namespace("d").Delete(ctx, "a", metav1.DeleteOptions{})
		},
		"RESTConfig": func() error {
			return fromConfig.CoreV1().ConfigMaps("d").Delete(ctx, "a", metav1.DeleteOptions{})
		},
	}
	for name, write := range writes {
		if err := write(); !errors.Is(err, errFence) {
			t.Errorf("%s: got %v, want %v", name, err, errFence)
		}
	}
	if len(agents) != len(writes) {
		t.Errorf("the fence saw %d requests, want %d: one try each", len(agents), len(writes))
	}
	for _, agent := range agents {
		if agent != "fleet/quota" && agent != "" {
			t.Errorf("got user agent %q", agent)
		}
	}
	if limit.waits != len(writes) {
		t.Errorf("the limiter saw %d requests, want %d", limit.waits, len(writes))
	}
	if got := set.RESTConfig().ContentType; got != "application/json" {
		t.Errorf("RESTConfig has content type %q, want JSON", got)
	}
	set.RESTConfig().Host = "elsewhere"
	if got := set.RESTConfig().Host; got != "https://apiserver.test" {
		t.Errorf("a change of the copy is seen: host %q", got)
	}
}

func TestClientsAreBuiltOnce(t *testing.T) {
	set, err := NewSet(SetConfig{REST: &rest.Config{Host: "https://apiserver.test"}})
	if err != nil {
		t.Fatal(err)
	}
	if set.Kubernetes() != set.Kubernetes() || set.Dynamic() != set.Dynamic() || set.Metadata() != set.Metadata() {
		t.Error("a second call built another client")
	}
}

func TestASetThatNobodyAsksIsSmall(t *testing.T) {
	config := &rest.Config{Host: "https://apiserver.test"}
	result := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := NewSet(SetConfig{REST: config}); err != nil {
				b.Fatal(err)
			}
		}
	})
	// The most that is ever retained is what is allocated.
	if got := result.AllocedBytesPerOp(); got > 20<<10 {
		t.Errorf("a Set allocates %d bytes before use, want less than 20 KiB", got)
	}
}

func TestFakesStandIn(t *testing.T) {
	client := fake.NewClientset()
	set, err := NewSet(SetConfig{Fakes: &Fakes{Kubernetes: client}})
	if err != nil {
		t.Fatal(err)
	}
	if set.Kubernetes() != kubernetes.Interface(client) || set.RESTConfig() == nil {
		t.Error("the fake is not handed out")
	}
	defer func() {
		if r := recover(); r == nil || !strings.Contains(r.(string), "Fakes.Dynamic is nil") {
			t.Errorf("got panic %v, want one that names Fakes.Dynamic", r)
		}
	}()
	set.Dynamic()
}
