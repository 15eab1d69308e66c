// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package manager

import (
	"fmt"
	"slices"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/api/resource"
	logsapi "k8s.io/component-base/logs/api/v1"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/textlogger"

	"github.com/incumbent-io/incumbent/pkg/options"
)

// withoutBodies wraps a logger so that the bodies of requests and answers, which
// client-go logs from -v=8 on, do not reach the log: they hold Secrets, and the tokens
// that callers of this process are reviewed by. Their sizes are logged.
func withoutBodies(logger logr.Logger) logr.Logger {
	sink := logger.GetSink()
	if sink == nil {
		return logger
	}
	if deep, ok := sink.(logr.CallDepthLogSink); ok {
		sink = deep.WithCallDepth(1) // this one stands between
	}
	return logger.WithSink(bodiless{sink})
}

// bodiless is the sink of withoutBodies.
type bodiless struct{ logr.LogSink }

var _ logr.CallDepthLogSink = bodiless{}

// Init implements logr.LogSink. The sink behind was initialised with its own logger.
func (b bodiless) Init(logr.RuntimeInfo) {}

// Info implements logr.LogSink.
func (b bodiless) Info(level int, message string, keysAndValues ...any) {
	b.LogSink.Info(level, message, bodyless(message, keysAndValues)...)
}

// WithValues implements logr.LogSink.
func (b bodiless) WithValues(keysAndValues ...any) logr.LogSink {
	return bodiless{b.LogSink.WithValues(keysAndValues...)}
}

// WithName implements logr.LogSink.
func (b bodiless) WithName(name string) logr.LogSink { return bodiless{b.LogSink.WithName(name)} }

// WithCallDepth implements logr.CallDepthLogSink.
func (b bodiless) WithCallDepth(depth int) logr.LogSink {
	if deep, ok := b.LogSink.(logr.CallDepthLogSink); ok {
		return bodiless{deep.WithCallDepth(depth)}
	}
	return b
}

// bodyFilter does the same for loggers without a context.
type bodyFilter struct{}

// Filter implements klog.LogFilter.
func (bodyFilter) Filter(args []any) []any { return args }

// FilterF implements klog.LogFilter.
func (bodyFilter) FilterF(format string, args []any) (string, []any) { return format, args }

// FilterS implements klog.LogFilter.
func (bodyFilter) FilterS(message string, keysAndValues []any) (string, []any) {
	return message, bodyless(message, keysAndValues)
}

// bodyless returns what may be logged of the keys and values of a message.
func bodyless(message string, keysAndValues []any) []any {
	if message != "Request Body" && message != "Response Body" {
		return keysAndValues
	}
	clean := slices.Clone(keysAndValues)
	for i := 1; i < len(clean); i += 2 {
		if text, ok := clean[i].(string); ok && clean[i-1] == "body" {
			clean[i] = fmt.Sprintf("(%d characters)", len(text))
		}
	}
	return clean
}

// applyLogging configures the logs of the whole process. It comes before anything else
// logs at the same time, and once.
func applyLogging(config *options.Config) error {
	// The hook that flushes a buffer would be lost with the wrapping.
	config.Logging.Options.Text.InfoBufferSize = resource.QuantityValue{}
	config.Logging.Options.JSON.InfoBufferSize = resource.QuantityValue{}
	if err := logsapi.ValidateAndApply(config.Logging, config.Features); err != nil {
		return err
	}
	klog.SetLogFilter(bodyFilter{})
	if !config.Features.Enabled(logsapi.ContextualLogging) {
		return nil // all goes through klog and its filter
	}
	logger := klog.Background()
	settings := []klog.LoggerOption{klog.ContextualLogger(true)}
	if writer, ok := logger.GetSink().(textlogger.KlogBufferWriter); ok {
		settings = append(settings, klog.WriteKlogBuffer(writer.WriteKlogBuffer))
	}
	klog.SetLoggerWithOptions(withoutBodies(logger), settings...)
	return nil
}
