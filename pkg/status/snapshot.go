// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package status

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"
)

// Snapshot is what one replica knows of itself at one moment. Its JSON is meant for
// machines too: fields are added, not renamed.
type Snapshot struct {
	// Manager is the manager's name, the same on all replicas.
	Manager string `json:"manager"`
	// Version is the version of the binary.
	Version string `json:"version"`
	// Identity is what this replica calls itself in leases.
	Identity string `json:"identity"`
	// Pod is "namespace/name"; empty outside a Pod.
	Pod string `json:"pod,omitempty"`
	// Started is when the process began.
	Started time.Time `json:"started"`
	// Taken is when the snapshot was taken. Ages are counted up to it.
	Taken time.Time `json:"taken"`
	// Groups are the lease groups, sorted by name.
	Groups []Group `json:"groups"`
	// Controllers are all registered controllers, sorted by name.
	Controllers []Controller `json:"controllers"`
	// Config is the state of the configuration file.
	Config Config `json:"config,omitzero"`
}

// Group is a lease group as one replica sees it.
type Group struct {
	// Name is the group's name.
	Name string `json:"name"`
	// Lease is "namespace/name"; empty without leader election.
	Lease string `json:"lease,omitempty"`
	// State is what this replica is in the group: leader, standby, idle, or a
	// state on the way from one to another.
	State string `json:"state"`
	// Holder is the identity in the newest record seen; empty when nobody leads.
	Holder string `json:"holder,omitempty"`
	// HolderEpoch is the number of the holder's term, and HolderSince when it began
	// by the holder's clock; zero when nobody leads.
	HolderEpoch int64     `json:"holderEpoch,omitempty"`
	HolderSince time.Time `json:"holderSince,omitzero"`
	// Epoch is the number of this replica's term, 0 without one.
	Epoch int64 `json:"epoch,omitempty"`
	// Since is when this replica's term began, zero without one.
	Since time.Time `json:"since,omitzero"`
	// LeaseAge is how long ago the lease was last renewed, as far as this replica
	// knows; zero when it does not know. JSON has it as text: "1.2s".
	LeaseAge metav1.Duration `json:"leaseAge,omitzero"`
	// FenceOpen reports whether a guarded write would pass.
	FenceOpen bool `json:"fenceOpen"`
	// InFlight is the number of guarded writes under way.
	InFlight int `json:"inFlight"`
	// LastError is what at present keeps this replica from taking part.
	LastError string `json:"lastError,omitempty"`
}

// States of a Group that others than its replica ask for.
const (
	// Leader is the state of the replica that leads.
	Leader = "leader"
	// Idle is the state of a replica that does not compete, because no controller of
	// the group is enabled.
	Idle = "idle"
)

// Controller is a controller as one replica sees it.
type Controller struct {
	Name string `json:"name"`
	// Group is the name of its lease group; empty when it runs on every replica.
	Group string `json:"group,omitempty"`
	// Summary is one sentence on what it does.
	Summary string `json:"summary,omitempty"`
	// State is disabled, blocked, building, warm, running, backoff, completed,
	// skipped, draining, stuck or stopped.
	State string `json:"state"`
	// Reason says why it is in that state; may be empty.
	Reason string `json:"reason,omitempty"`
	// Since is when it entered the state.
	Since time.Time `json:"since,omitzero"`
	// Restarts counts how often it was started again, by cause ("failed").
	Restarts map[string]int `json:"restarts,omitempty"`
	// LastError is how its last failed run ended, LastErrorAt when.
	LastError   string    `json:"lastError,omitempty"`
	LastErrorAt time.Time `json:"lastErrorAt,omitzero"`
	// RetryAt is when it is started again, zero when it does not wait for that.
	RetryAt time.Time `json:"retryAt,omitzero"`
	// QueueDepth is the number of keys that wait, nil when that is not known.
	QueueDepth *int `json:"queueDepth,omitempty"`
}

// Config is the state of the configuration file. Its zero value: there is no file.
type Config struct {
	// File is its path.
	File string `json:"file"`
	// LoadedAt is when the content in use was read.
	LoadedAt time.Time `json:"loadedAt,omitzero"`
	// Error says why the newest content of the file is not used.
	Error string `json:"error,omitempty"`
	// NeedsRestart are the settings that have changed in the file and take effect
	// only when the process starts again.
	NeedsRestart []string `json:"needsRestart,omitempty"`
	// Pinned are the settings in the file that a flag overrides.
	Pinned []string `json:"pinned,omitempty"`
}

// replica is a short name for the process.
func (s Snapshot) replica() string {
	if _, name, inPod := strings.Cut(s.Pod, "/"); inPod {
		return name
	}
	return s.Identity
}

// age is the time from then to now for people, "-" when there is no then.
func age(now, then time.Time) string {
	if then.IsZero() {
		return "-"
	}
	return duration.HumanDuration(now.Sub(then))
}

// renewed is the age of a lease, in which tenths of seconds matter.
func (g Group) renewed() string {
	switch d := g.LeaseAge.Duration; {
	case d == 0:
		return "-"
	case d < 10*time.Second:
		return fmt.Sprintf("%.1fs ago", d.Seconds())
	default:
		return duration.HumanDuration(d) + " ago"
	}
}

// fence says in a word whether writes pass.
func (g Group) fence() string {
	if g.FenceOpen {
		return "open"
	}
	return "shut"
}

// notes are what else there is to say, the most important first. Who leads need not
// be said of the identities in shown.
func (g Group) notes(shown map[string]bool, now time.Time) (notes []string) {
	if g.LastError != "" {
		notes = append(notes, g.LastError)
	}
	switch {
	case g.State == Leader, shown[g.Holder]:
	case g.Holder != "":
		leader := "leader is " + g.Holder
		if g.HolderEpoch != 0 {
			leader += fmt.Sprintf(", for %s, epoch %d", age(now, g.HolderSince), g.HolderEpoch)
		}
		notes = append(notes, leader)
	case g.Lease != "":
		notes = append(notes, "no leader")
	}
	return notes
}

// notes are what else there is to say, the most important first.
func (c Controller) notes(now time.Time) (notes []string) {
	if c.Reason != "" && c.Reason != c.LastError {
		notes = append(notes, c.Reason)
	}
	if !c.RetryAt.IsZero() {
		notes = append(notes, "next try in "+duration.HumanDuration(max(0, c.RetryAt.Sub(now))))
	}
	if c.LastError != "" {
		notes = append(notes, fmt.Sprintf("last error %s ago: %s", age(now, c.LastErrorAt), c.LastError))
	}
	return notes
}

// counts are how many controllers are in which state: "1 backoff, 3 running". What asks for
// attention comes first.
func counts(controllers []Controller) string {
	n := map[string]int{}
	for _, c := range controllers {
		n[c.State]++
	}
	states := slices.SortedFunc(maps.Keys(n), func(a, b string) int {
		return cmp.Or(slices.Index(moods, mood(a))-slices.Index(moods, mood(b)), strings.Compare(a, b))
	})
	var parts []string
	for _, state := range states {
		parts = append(parts, fmt.Sprintf("%d %s", n[state], state))
	}
	return strings.Join(parts, ", ")
}

// restarts is the sum of all causes.
func (c Controller) restarts() (sum int) {
	for _, n := range c.Restarts {
		sum += n
	}
	return sum
}

// causes are the parts of the sum: "1 failed, 2 panicked".
func (c Controller) causes() string {
	var parts []string
	for _, cause := range slices.Sorted(maps.Keys(c.Restarts)) {
		parts = append(parts, fmt.Sprintf("%d %s", c.Restarts[cause], cause))
	}
	return strings.Join(parts, ", ")
}

// queue is the number of keys that wait, "-" when it is not known.
func (c Controller) queue() string {
	if c.QueueDepth == nil {
		return "-"
	}
	return fmt.Sprint(*c.QueueDepth)
}

// lines tell about the configuration file; there are none without a file.
func (c Config) lines(now time.Time) (lines []string) {
	if c.File == "" {
		return nil
	}
	loaded := "not loaded"
	if !c.LoadedAt.IsZero() {
		loaded = "loaded " + age(now, c.LoadedAt) + " ago"
	}
	lines = append(lines, c.File+", "+loaded)
	if c.Error != "" {
		lines = append(lines, "the newest content is not used: "+c.Error)
	}
	if len(c.NeedsRestart) > 0 {
		lines = append(lines, "needs a restart: "+strings.Join(c.NeedsRestart, ", "))
	}
	if len(c.Pinned) > 0 {
		lines = append(lines, "pinned by flags: "+strings.Join(c.Pinned, ", "))
	}
	return lines
}
