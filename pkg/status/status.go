// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

// Package status is the snapshot of what runs in one manager process, and its faces:
// JSON for programs and a table for people. It decides nothing.
package status

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"text/tabwriter"
	"time"

	"k8s.io/apimachinery/pkg/util/duration"
)

// Snapshot is what runs in one manager process at one time.
type Snapshot struct {
	Manager  string    `json:"manager"`
	Version  string    `json:"version"`
	Identity string    `json:"identity"`
	Pod      string    `json:"pod,omitempty"` // namespace/name
	Started  time.Time `json:"started"`
	Taken    time.Time `json:"taken"`
	// Groups are the lease groups, the default group first.
	Groups      []Group      `json:"leaseGroups"`
	Controllers []Controller `json:"controllers"`
	// Config is nil without a configuration file.
	Config *Config `json:"config,omitempty"`
}

// Group is a lease group, as this process sees it.
type Group struct {
	Name  string `json:"name"`
	Lease string `json:"lease"` // namespace/name
	// State is that of the election, such as leading or observing; idle if no
	// controller of the group is enabled.
	State  string `json:"state"`
	Holder string `json:"holder,omitempty"`
	// Epoch and Since are of this process's term; 0 and nil without one.
	Epoch int64      `json:"epoch,omitempty"`
	Since *time.Time `json:"since,omitempty"`
	// FenceOpen tells whether a write would pass now, and InFlight how many do.
	FenceOpen bool   `json:"fenceOpen"`
	InFlight  int    `json:"writesInFlight"`
	LastError string `json:"lastError,omitempty"`
}

// Controller is a controller in this process.
type Controller struct {
	Name string `json:"name"`
	// Group is its lease group, empty on every replica.
	Group  string    `json:"leaseGroup,omitempty"`
	State  string    `json:"state"`
	Reason string    `json:"reason,omitempty"`
	Since  time.Time `json:"since"`
	// Failures counts failed builds and runs, each followed by a restart.
	Failures    int        `json:"failures"`
	LastError   string     `json:"lastError,omitempty"`
	LastErrorAt *time.Time `json:"lastErrorAt,omitempty"`
	RetryAt     *time.Time `json:"retryAt,omitempty"`
}

// Config is what became of the configuration file.
type Config struct {
	File     string    `json:"file"`
	LoadedAt time.Time `json:"loadedAt"`
	// Error says why the newest content is not used.
	Error        string   `json:"error,omitempty"`
	NeedsRestart []string `json:"needsRestart,omitempty"`
	Pinned       []string `json:"pinned,omitempty"`
}

// Handler serves the snapshot: JSON if the request accepts application/json or says
// ?format=json, a table otherwise.
func Handler(take func() Snapshot) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		if r.URL.Query().Get("format") == "json" || strings.Contains(r.Header.Get("Accept"), "application/json") {
			w.Header().Set("Content-Type", "application/json")
			encoder := json.NewEncoder(w)
			encoder.SetIndent("", "  ")
			_ = encoder.Encode(take()) // an error means that the client has gone
			return
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_ = WriteText(w, take())
	})
}

// WriteText writes the snapshot as tables.
func WriteText(out io.Writer, s Snapshot) error {
	table := tabwriter.NewWriter(out, 0, 8, 3, ' ', 0)
	age := func(since time.Time) string { return duration.HumanDuration(s.Taken.Sub(since)) }
	fmt.Fprintf(table, "%s %s, %s, up %s\n\n", s.Manager, s.Version, cmp.Or(s.Pod, s.Identity), age(s.Started))
	fmt.Fprintln(table, "LEASE GROUP\tLEASE\tSTATE\tHOLDER\tEPOCH\tFOR")
	for _, g := range s.Groups {
		epoch, since := "-", "-"
		if g.Since != nil {
			epoch, since = fmt.Sprint(g.Epoch), age(*g.Since)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", g.Name, g.Lease, g.State, cmp.Or(g.Holder, "-"), epoch, since)
	}
	fmt.Fprintln(table, "\nCONTROLLER\tLEASE GROUP\tSTATE\tFOR\tFAILURES\tREASON")
	for _, c := range s.Controllers {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%d\t%s\n", c.Name, cmp.Or(c.Group, "every replica"), c.State, age(c.Since), c.Failures, cmp.Or(c.Reason, "-"))
	}
	if c := s.Config; c != nil {
		fmt.Fprintf(table, "\nConfiguration %s, taken over %s ago\n", c.File, age(c.LoadedAt))
		for _, line := range []struct {
			label string
			list  []string
		}{{"not used: ", strings.Split(c.Error, "\n")}, {"needs a restart: ", c.NeedsRestart}, {"pinned by a flag: ", c.Pinned}} {
			for _, text := range line.list {
				if text != "" {
					fmt.Fprintln(table, line.label+text)
				}
			}
		}
	}
	return table.Flush()
}
