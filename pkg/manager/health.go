// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package manager

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/incumbent-io/incumbent/pkg/healthz"
	"github.com/incumbent-io/incumbent/pkg/leaderelection"
)

// health holds the checks behind the three endpoints:
//
//   - /livez fails only for what a restart of the process cures: leadership that has
//     ended while controllers of the term still run. An API server that cannot be
//     reached never fails it.
//   - /readyz tells whether this replica can serve its part: it takes part in the
//     election, and it is not stopping.
//   - /healthz is /livez and one check for each enabled controller.
type health struct {
	live, ready, all healthz.Checks
	host             *host
	stopping         context.Context
}

func newHealth(ctx context.Context, h *host) *health {
	checks := &health{host: h, stopping: ctx}
	for _, set := range []*healthz.Checks{&checks.live, &checks.ready, &checks.all} {
		set.Add("ping", healthz.Ping)
	}
	watchdog := h.elector.Watchdog()
	for _, set := range []*healthz.Checks{&checks.live, &checks.all} {
		set.Add("watchdog", func(context.Context) (string, error) { return "", watchdog.Check(nil) })
	}
	checks.ready.Add("leader-election", func(context.Context) (string, error) { return candidacy(h.elector.Status()) })
	checks.ready.Add("shutdown", checks.shutdown)
	for _, controller := range h.config.Enabled() {
		r := h.led
		if controller.EveryReplica {
			r = h.every
		}
		checks.all.Add(controller.Name, func(ctx context.Context) (string, error) { return r.CheckHealth(ctx, controller.Name) })
	}
	return checks
}

func (c *health) handler() http.Handler {
	mux := http.NewServeMux()
	for path, set := range map[string]*healthz.Checks{"/livez": &c.live, "/readyz": &c.ready, "/healthz": &c.all} {
		mux.Handle(path, set.Handler(path))
		mux.Handle(path+"/", set.Handler(path))
	}
	return mux
}

func (c *health) shutdown(context.Context) (string, error) {
	if c.stopping.Err() != nil {
		return "", errors.New("the process is stopping")
	}
	return "", nil
}

// candidacy tells what this replica is in the election.
func candidacy(status leaderelection.Status) (string, error) {
	lease := status.Namespace + "/" + status.LeaseName
	switch {
	case status.State == leaderelection.StateUnelected:
		return "no leader election: nothing protects the controllers from a second replica", nil
	case status.LastError != "" && !status.Leading():
		return "", fmt.Errorf("cannot take part in the election on the lease %s: %s", lease, status.LastError)
	case !status.Contacted:
		return "", fmt.Errorf("has not reached the lease %s yet", lease)
	case status.Leading() && status.LastError != "":
		return fmt.Sprintf("leader, epoch %d; the last request failed: %s", status.Epoch, status.LastError), nil
	case status.Leading():
		return fmt.Sprintf("leader, epoch %d", status.Epoch), nil
	case status.Holder == "":
		return "standby, no leader", nil
	}
	return "standby, leader is " + status.Holder, nil
}
