// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package manager

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/incumbent-io/incumbent/pkg/controllers"
	"github.com/incumbent-io/incumbent/pkg/controllers/runner"
	"github.com/incumbent-io/incumbent/pkg/healthz"
	"github.com/incumbent-io/incumbent/pkg/leaderelection"
)

const (
	// stuckTolerance is how long a controller may be stuck before /livez fails. The
	// others go on meanwhile, and whoever is on call can look at it.
	stuckTolerance = time.Minute
	// syncGrace is how long after the start /readyz waits for caches. One that takes
	// longer is its controller's trouble, and must not stop a rolling update.
	syncGrace = time.Minute
)

// health holds the checks behind the three endpoints:
//
//   - /livez fails only for what a restart of the process cures: leadership that has
//     ended while controllers of the term still run, and a controller that does not
//     stop. An API server that cannot be reached never fails it.
//   - /readyz tells whether this replica can serve its part: it takes part in the
//     elections, its caches are synced, and it is not stopping.
//   - /healthz is /livez and one check for each controller that is not disabled.
type health struct {
	live, ready, all healthz.Checks
	slis             *checkMetrics
	host             *host
	stopping         context.Context

	mu     sync.Mutex
	remove map[string]func() // by controller; of the checks in all
}

func newHealth(ctx context.Context, h *host) *health {
	checks := &health{host: h, stopping: ctx, remove: map[string]func(){}}
	checks.slis = newCheckMetrics(map[string]*healthz.Checks{"livez": &checks.live, "readyz": &checks.ready, "healthz": &checks.all})
	for _, set := range []*healthz.Checks{&checks.live, &checks.ready, &checks.all} {
		set.Add("ping", healthz.Ping)
	}
	for _, set := range []*healthz.Checks{&checks.live, &checks.all} {
		for _, g := range h.groups {
			set.Add(checkName("watchdog", g), func(context.Context) (string, error) { return "", g.current().Watchdog().Check(nil) })
		}
		set.Add("stuck", checks.stuck)
	}
	for _, g := range h.groups {
		checks.ready.Add(checkName("leader-election", g), func(context.Context) (string, error) {
			if !g.competing() && ctx.Err() == nil {
				return "does not take part: no controller of the lease group is enabled", nil
			}
			return candidacy(g.current().Status())
		})
	}
	checks.ready.Add("caches", checks.caches)
	checks.ready.Add("shutdown", checks.shutdown)
	for _, status := range h.statuses() {
		checks.follow(status)
	}
	return checks
}

// checkName keeps the names of the default group's checks plain.
func checkName(name string, g *group) string {
	if g.Name == controllers.DefaultLeaseGroup {
		return name
	}
	return name + "-" + g.Name
}

// follow adds the check of a controller that is no longer disabled, and removes that of
// one that is now. A controller that was told to stop and is stuck keeps its check.
func (c *health) follow(status runner.Status) {
	c.mu.Lock()
	defer c.mu.Unlock()
	remove, there := c.remove[status.Name]
	switch disabled := status.State == runner.Disabled; {
	case !disabled && !there:
		r := c.host.runner(status.Group)
		c.remove[status.Name] = c.all.Add(status.Name, func(ctx context.Context) (string, error) {
			return r.CheckHealth(ctx, status.Name)
		})
	case disabled && there:
		remove()
		delete(c.remove, status.Name)
	}
}

func (c *health) shutdown(context.Context) (string, error) {
	if c.stopping.Err() != nil {
		return "", errors.New("the process is stopping")
	}
	return "", nil
}

// stuck fails for controllers that do not stop, which nothing but a restart ends.
func (c *health) stuck(context.Context) (string, error) {
	var names []string
	for _, r := range c.host.runners() {
		names = append(names, r.Stuck(stuckTolerance)...)
	}
	if len(names) > 0 {
		return "", fmt.Errorf("told to stop and still running: %s", strings.Join(names, ", "))
	}
	return "", nil
}

// caches fails while controllers are being built for the first time.
func (c *health) caches(context.Context) (string, error) {
	var waiting []string
	for _, status := range c.host.statuses() {
		if status.State == runner.Building {
			waiting = append(waiting, strings.TrimSuffix(status.Name+" ("+status.Reason+")", " ()"))
		}
	}
	switch text := strings.Join(waiting, ", "); {
	case text == "":
		return "", nil
	case time.Since(c.host.started) > syncGrace:
		return "no longer waited for: " + text, nil
	default:
		return "", errors.New("not built yet: " + text)
	}
}

// candidacy tells what this replica is in one election.
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
