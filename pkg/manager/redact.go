// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package manager

import (
	"fmt"
	"slices"

	"github.com/go-logr/logr"
)

// withoutBodies wraps a logger so that the bodies of requests and answers, which
// client-go logs from -v=8 on, do not reach the log: they hold Secrets, and the tokens
// that callers of this process are reviewed by. Their sizes are logged. What modules
// enables is logged, too, however verbose the logger itself is.
func withoutBodies(logger, modules logr.Logger) logr.Logger {
	sink := logger.GetSink()
	if sink == nil {
		return logger
	}
	return logger.WithSink(bodiless{deeper(sink, 1), deeper(modules.GetSink(), 1)}) // which stands between
}

// bodiless is the sink of withoutBodies. Each method that looks at its callers is
// written out: one that is promoted from the field leaves no frame on the stack.
type bodiless struct {
	logr.LogSink
	modules logr.LogSink // only asked what it enables
}

var _ logr.CallDepthLogSink = bodiless{}

// deeper is sink with so many more frames between it and the caller.
func deeper(sink logr.LogSink, frames int) logr.LogSink {
	if deep, ok := sink.(logr.CallDepthLogSink); ok {
		return deep.WithCallDepth(frames)
	}
	return sink
}

// Init implements logr.LogSink. The sink behind was initialised with its own logger.
func (b bodiless) Init(logr.RuntimeInfo) {}

// Enabled implements logr.LogSink.
func (b bodiless) Enabled(level int) bool {
	return b.LogSink.Enabled(level) || b.modules.Enabled(level)
}

// Info implements logr.LogSink.
func (b bodiless) Info(level int, message string, keysAndValues ...any) {
	b.LogSink.Info(level, message, bodyless(message, keysAndValues)...)
}

// Error implements logr.LogSink.
func (b bodiless) Error(err error, message string, keysAndValues ...any) {
	b.LogSink.Error(err, message, keysAndValues...)
}

// WithValues implements logr.LogSink.
func (b bodiless) WithValues(keysAndValues ...any) logr.LogSink {
	return bodiless{b.LogSink.WithValues(keysAndValues...), b.modules}
}

// WithName implements logr.LogSink.
func (b bodiless) WithName(name string) logr.LogSink {
	return bodiless{b.LogSink.WithName(name), b.modules}
}

// WithCallDepth implements logr.CallDepthLogSink.
func (b bodiless) WithCallDepth(depth int) logr.LogSink {
	return bodiless{deeper(b.LogSink, depth), deeper(b.modules, depth)}
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
