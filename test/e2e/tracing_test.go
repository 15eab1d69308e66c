// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package e2e

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/incumbent-io/incumbent/test/cluster"
)

// spans is an OpenTelemetry collector that counts spans by "service: name write".
type spans struct {
	collector.UnimplementedTraceServiceServer
	mu   sync.Mutex
	seen map[string]int
}

// Export implements collector.TraceServiceServer.
func (s *spans) Export(_ context.Context, request *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, process := range request.ResourceSpans {
		var service string
		for _, attribute := range process.Resource.Attributes {
			if attribute.Key == "service.name" {
				service = attribute.Value.GetStringValue()
			}
		}
		for _, scope := range process.ScopeSpans {
			for _, span := range scope.Spans {
				text := service + ": " + span.Name
				for _, attribute := range span.Attributes {
					if attribute.Key == "write" {
						text += " " + attribute.Value.GetStringValue()
					}
				}
				s.seen[text]++
			}
		}
	}
	return &collector.ExportTraceServiceResponse{}, nil
}

func (s *spans) count(text string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen[text]
}

// collect starts a collector and returns its address.
func collect(t *testing.T) (*spans, string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &spans{seen: map[string]int{}}
	server := grpc.NewServer()
	collector.RegisterTraceServiceServer(server, s)
	go func() { _ = server.Serve(listener) }() // it ends by Stop
	t.Cleanup(server.Stop)
	return s, listener.Addr().String()
}

func TestLeaseWritesAreTraced(t *testing.T) {
	shared.Namespace(t, "traced")
	got, endpoint := collect(t)
	p := launch(t, "--kubeconfig="+shared.Kubeconfig, "--leader-elect-resource-namespace=traced", "--tracing-endpoint="+endpoint)
	p.AwaitLog(t, 20*time.Second, "Became leader")
	cluster.Eventually(t, 30*time.Second, "spans of lease writes", func() error {
		for _, want := range []string{"incumbent: lease write acquire", "incumbent: lease write renew"} {
			if got.count(want) == 0 {
				return fmt.Errorf("no %q", want)
			}
		}
		return nil
	})
	p.Terminate(t)
	if got.count("incumbent: lease write release") != 1 {
		t.Errorf("got %v, want the release too, sent before the process ended", got.seen)
	}
}

// TestReconcilesAndTheirRequestsAreTraced runs a controller that uses pkg/reconciler,
// and another that deletes an object.
func TestReconcilesAndTheirRequestsAreTraced(t *testing.T) {
	const namespace = "reconciled"
	shared.Namespace(t, namespace)
	got, endpoint := collect(t)
	lazy := shared.Launch(t, "faulty", []string{"FAULTY_NAMESPACE=" + namespace}, "--kubeconfig="+shared.Kubeconfig,
		"--leader-elect-resource-namespace="+namespace, "--controllers=lazy", "--tracing-endpoint="+endpoint)
	ttl := launch(t, "--kubeconfig="+shared.Kubeconfig, "--leader-elect-resource-namespace="+namespace, "--controllers=object-ttl",
		"--object-ttl-resources=v1/secrets", "--tracing-endpoint="+endpoint) // other managers delete ConfigMaps, too
	object := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "old", Annotations: map[string]string{"incumbent.io/expires-at": "2020-01-01T00:00:00Z"}}}
	if _, err := shared.Client.CoreV1().Secrets(namespace).Create(t.Context(), object, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	cluster.Eventually(t, 30*time.Second, "spans of reconciles and requests", func() error {
		for _, want := range []string{"faulty: reconcile", "incumbent: HTTP DELETE"} {
			if got.count(want) == 0 {
				return fmt.Errorf("no %q", want)
			}
		}
		return nil
	})
	lazy.Terminate(t)
	ttl.Terminate(t)
}

// TestSilentCollectorHurtsNobody sends spans to nobody, and to somebody who never
// answers.
func TestSilentCollectorHurtsNobody(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	for name, endpoint := range map[string]string{"nobody": "127.0.0.1:" + cluster.FreePort(t), "silent": listener.Addr().String()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			shared.Namespace(t, "untraced-"+name)
			p := launch(t, "--kubeconfig="+shared.Kubeconfig, "--leader-elect-resource-namespace=untraced-"+name, "--tracing-endpoint="+endpoint)
			p.AwaitController(t, 20*time.Second, "object-ttl", "running")
			time.Sleep(15 * time.Second) // spans are sent every five seconds
			if took := p.Terminate(t); took > 3*time.Second {
				t.Errorf("it took %v to stop", took)
			}
			if n := strings.Count(p.Log(), "Spans are lost"); n > 1 {
				t.Errorf("%d lines about lost spans within 15 s, want one at most", n)
			}
		})
	}
}
