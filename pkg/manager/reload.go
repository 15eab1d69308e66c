// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package manager

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"

	"github.com/incumbent-io/incumbent/pkg/controllers/runner"
	"github.com/incumbent-io/incumbent/pkg/options"
)

// configFile takes new contents of the configuration file over.
//
//	content ──► Reload: the whole file, all mistakes ──► Compare with what runs
//	        ──► Prepare: build ──► Commit: stop the old, then start the new
//
// On any error what runs stays as it is, and the log, an Event, a metric and the
// status say so.
type configFile struct {
	host    *host
	path    string
	metrics *configMetrics

	mu      sync.Mutex
	running *options.Config // what runs now
	state   configState
}

// configState is what there is to say about the configuration file.
type configState struct {
	LoadedAt             time.Time
	Error                string // why its newest content is not used; "" if it is
	NeedsRestart, Pinned []string
}

func newConfigFile(h *host) *configFile {
	return &configFile{
		host: h, path: h.config.File.Path, metrics: newConfigMetrics(h.metrics), running: h.config,
		state: configState{LoadedAt: h.started, Pinned: options.Compare(h.config, h.config).Pinned},
	}
}

// status returns what there is to say about the file.
func (f *configFile) status() configState {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.state
}

// current returns the configuration that runs.
func (f *configFile) current() *options.Config {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.running
}

// follow takes new contents over until ctx ends.
func (f *configFile) follow(ctx context.Context) {
	watchConfigFile(ctx, f.host.config.File, func(file *options.File, err error) {
		if err == nil {
			err = f.take(ctx, file)
		}
		if err != nil && ctx.Err() == nil {
			f.reject(ctx, err)
		}
	})
}

// take makes a new content what runs.
func (f *configFile) take(ctx context.Context, file *options.File) error {
	next, err := f.host.config.Reload(file)
	if err != nil {
		return err
	}
	changes := options.Compare(f.running, next)
	if err := f.host.apply(ctx, f.running, changes.Config); err != nil {
		return err
	}
	logger := klog.FromContext(ctx).WithValues("file", f.path)
	if changes.Logging && f.host.config.ApplyLogging != nil {
		if err := f.host.config.ApplyLogging(changes.Config.Logging); err != nil {
			logger.Error(err, "The verbosity of the log cannot be changed")
		}
	}
	var values []any
	for _, change := range []struct {
		kind  string
		names []string
	}{{"enabled", changes.Enabled}, {"disabled", changes.Disabled}, {"reconfigured", changes.Reconfigured}} {
		if len(change.names) > 0 {
			values = append(values, change.kind, strings.Join(change.names, ","))
		}
	}
	logger.Info("Configuration file taken over", values...)
	if len(changes.NeedsRestart) > 0 {
		logger.Info("Some of the configuration takes effect at a restart only", "fields", strings.Join(changes.NeedsRestart, "; "))
	}
	if len(changes.Pinned) > 0 {
		logger.Info("Some of the configuration has no effect, because a flag says otherwise", "fields", strings.Join(changes.Pinned, "; "))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.running = changes.Config
	f.state = configState{LoadedAt: time.Now(), NeedsRestart: changes.NeedsRestart, Pinned: changes.Pinned}
	f.metrics.taken(len(changes.NeedsRestart) == 0)
	return nil
}

// reject says that a new content is not used.
func (f *configFile) reject(ctx context.Context, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.state.Error = err.Error()
	f.metrics.rejected()
	for line := range strings.Lines(err.Error()) { // a line for each mistake
		klog.FromContext(ctx).Error(errors.New(strings.TrimSpace(line)), "New configuration is not used; the running one stays", "file", f.path)
	}
	f.host.events.record(f.host.self(), f.host.config.Name, corev1.EventTypeWarning, "ConfigurationRejected", "Reload", "The new content of "+f.path+" is not used: "+err.Error())
}

// apply makes next what runs, of the part that can change while the manager runs. It
// changes everything or nothing.
func (h *host) apply(ctx context.Context, running, next *options.Config) error {
	if err := h.want(ctx, next, true); err != nil {
		return err
	}
	var prepared []*runner.Change
	for group, r := range h.runners() {
		change, err := r.Prepare(ctx, desired(next.Controllers, group))
		if err != nil {
			for _, change := range prepared {
				change.Discard()
			}
			return errors.Join(err, h.want(ctx, running, false))
		}
		prepared = append(prepared, change)
	}
	for _, change := range prepared {
		change.Commit()
	}
	return h.want(ctx, next, false)
}

// want has the lease groups compete that have an enabled controller in config, or
// those cease to that have none.
func (h *host) want(ctx context.Context, config *options.Config, wanted bool) error {
	for _, g := range h.groups {
		if anyEnabled(desired(config.Controllers, g.Name)) != wanted {
			continue
		}
		if err := g.want(ctx, wanted); err != nil {
			return err
		}
	}
	return nil
}
