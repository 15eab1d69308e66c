// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package manager

import (
	"context"
	"fmt"
	"sync"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/resource"
	"k8s.io/client-go/transport"
	"k8s.io/component-base/tracing"
	"k8s.io/klog/v2"

	"github.com/incumbent-io/incumbent/pkg/options"
)

// lastSpans bounds how long a process that ends waits for its spans to be taken.
const lastSpans = time.Second

// newTracer makes what sends spans, or what makes none. It connects to nobody yet: a
// collector that does not answer costs spans, and nothing else.
func newTracer(ctx context.Context, config *options.Config) (tracing.TracerProvider, error) {
	tracer, err := tracing.NewProvider(ctx, config.Tracing, nil, []resource.Option{resource.WithAttributes(
		attribute.String("service.name", config.Name),
		attribute.String("service.version", options.Version()),
		attribute.String("k8s.namespace.name", config.Pod.Namespace),
		attribute.String("k8s.pod.name", config.Pod.Name),
	)})
	if err != nil {
		return nil, fmt.Errorf("--tracing-endpoint=%s: %w", *config.Tracing.Endpoint, err)
	}
	return tracer, nil
}

// traced adds a span for each request, whose parent is that of the reconcile it belongs
// to. It goes around the fence, which has its own connections for writes, so it sees what
// the fence refuses, too.
func (h *host) traced(fence transport.WrapperFunc) transport.WrapperFunc {
	if h.config.Tracing == nil {
		return fence
	}
	return transport.Wrappers(fence, tracing.WrapperFor(h.tracer))
}

// stopTracing sends what spans there are.
func (h *host) stopTracing(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastSpans)
	defer cancel()
	if err := h.tracer.Shutdown(ctx); err != nil {
		klog.FromContext(ctx).Error(err, "The last spans were not sent")
	}
}

// adoptTracing has the libraries of tracing log as all others do. The trouble of sending
// spans, which is one error every few seconds while a collector is away, is logged once
// a minute. It concerns the whole process.
func adoptTracing() {
	otel.SetLogger(klog.Background())
	var mu sync.Mutex
	var said time.Time
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		mu.Lock()
		defer mu.Unlock()
		if time.Since(said) < time.Minute {
			return
		}
		said = time.Now()
		klog.ErrorS(err, "Spans are lost")
	}))
}
