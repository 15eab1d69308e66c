// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package options

import (
	"cmp"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/incumbent-io/incumbent/pkg/controllers"
)

// leaseGroup is a lease group as the file writes it.
type leaseGroup struct {
	Name           string   `json:"name"`
	LeaseName      string   `json:"leaseName,omitempty"`
	LeaseNamespace string   `json:"leaseNamespace,omitempty"`
	Controllers    []string `json:"controllers,omitempty"`
}

// Group is a lease group: controllers that share one lease, and so one leader.
type Group struct {
	// Name is controllers.DefaultLeaseGroup for the default group.
	Name string
	// LeaseName and LeaseNamespace say where its Lease is. No two groups share one.
	LeaseName, LeaseNamespace string
	// Controllers are the names of its registered controllers, enabled or not, sorted.
	// Invariant: there is at least one.
	Controllers []string
}

// grouping is the outcome of the lease groups in the file over those in the
// descriptors.
type grouping struct {
	options *Options
	of      map[string]string // controller -> its group; "" on every replica
	entry   map[string]int    // group -> its index in the file
	errs    []error
}

// group assigns every controller to its lease group.
func (o *Options) group() *grouping {
	g := &grouping{options: o, of: map[string]string{}, entry: map[string]int{}}
	for _, name := range o.registry.Names() {
		registration, _ := o.registry.Lookup(name)
		g.of[name] = registration.Info().LeaseGroup
	}
	for i := range o.leaseGroups {
		g.addEntry(i)
	}
	taken := map[string]string{} // controller -> the entry that names it
	for i := range o.leaseGroups {
		g.addControllers(i, taken)
	}
	for i, entry := range o.leaseGroups {
		if entry.Name != "" && len(entry.Controllers) == 0 && len(g.members(entry.Name)) == 0 {
			g.mistake(entryPath(i), "the lease group %q has no controllers; name some in it, or remove it", entry.Name)
		}
	}
	if len(g.errs) == 0 {
		if err := o.registry.CheckGroups(func(name string) string { return g.of[name] }); err != nil {
			g.mistake("leaseGroups", "%w", err)
		}
	}
	g.checkLeases(g.groups(keep))
	return g
}

func (g *grouping) mistake(path, format string, args ...any) {
	g.errs = append(g.errs, fmt.Errorf("%s: "+format, append([]any{g.options.places.of(path)}, args...)...))
}

func entryPath(i int) string { return fmt.Sprintf("leaseGroups[%d]", i) }

func (g *grouping) addEntry(i int) {
	entry, path := g.options.leaseGroups[i], entryPath(i)
	if entry.Name == "" {
		g.mistake(path+".name", `is missing; name the lease group, for instance "name: net"`)
		return
	}
	if first, twice := g.entry[entry.Name]; twice {
		g.mistake(path+".name", "%q is the name of %s, too; join the two, or rename one", entry.Name, entryPath(first))
		return
	}
	g.entry[entry.Name] = i
	for _, problem := range validation.IsDNS1035Label(entry.Name) {
		g.mistake(path+".name", "%q is no name of a lease group: %s", entry.Name, problem)
	}
	if entry.LeaseNamespace != "" {
		for _, problem := range validation.IsDNS1123Label(entry.LeaseNamespace) {
			g.mistake(path+".leaseNamespace", "%q is no name of a namespace: %s", entry.LeaseNamespace, problem)
		}
	}
	if entry.Name != controllers.DefaultLeaseGroup {
		return
	}
	if entry.LeaseName != "" {
		g.mistake(path+".leaseName", "%q: the lease of the default group is set by leaderElection.resourceName", entry.LeaseName)
	}
	if entry.LeaseNamespace != "" {
		g.mistake(path+".leaseNamespace", "%q: the lease of the default group is set by leaderElection.resourceNamespace", entry.LeaseNamespace)
	}
}

func (g *grouping) addControllers(i int, taken map[string]string) {
	entry := g.options.leaseGroups[i]
	for j, written := range entry.Controllers {
		path := fmt.Sprintf("%s.controllers[%d]", entryPath(i), j)
		registration, known := g.options.registry.Lookup(written)
		if !known {
			g.mistake(path, "%s", unknownController(g.options.registry, written))
			continue
		}
		info := registration.Info()
		if info.EveryReplica {
			g.mistake(path, "the controller %q runs on every replica, without a lease; remove it here", info.Name)
			continue
		}
		if other, twice := taken[info.Name]; twice {
			g.mistake(path, "the controller %q already stands in %s; a controller belongs to one lease group", info.Name, other)
			continue
		}
		taken[info.Name] = path
		g.of[info.Name] = entry.Name
	}
}

// members returns the names of the controllers in a group, sorted.
func (g *grouping) members(group string) (names []string) {
	for _, name := range g.options.registry.Names() {
		if g.of[name] == group {
			names = append(names, name)
		}
	}
	return names
}

// groups returns the groups that have controllers: the default group first, then by
// name. complete fills in a namespace that is not set.
func (g *grouping) groups(complete func(namespace string) string) []Group {
	var names []string
	for _, name := range g.of {
		if name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, func(a, b string) int {
		last := func(name string) int {
			if name == controllers.DefaultLeaseGroup {
				return 0
			}
			return 1
		}
		return cmp.Or(last(a)-last(b), cmp.Compare(a, b))
	})
	groups := make([]Group, len(names))
	for i, name := range names {
		groups[i] = g.lease(name)
		groups[i].LeaseNamespace = complete(groups[i].LeaseNamespace)
		groups[i].Controllers = g.members(name)
	}
	return groups
}

func (g *grouping) lease(name string) Group {
	election := &g.options.election
	if name == controllers.DefaultLeaseGroup {
		return Group{Name: name, LeaseName: election.ResourceName, LeaseNamespace: election.ResourceNamespace}
	}
	var entry leaseGroup
	if i, ok := g.entry[name]; ok {
		entry = g.options.leaseGroups[i]
	}
	return Group{
		Name:           name,
		LeaseName:      cmp.Or(entry.LeaseName, election.ResourceName+"-"+name),
		LeaseNamespace: cmp.Or(entry.LeaseNamespace, election.ResourceNamespace),
	}
}

// checkLeases finds names that no Lease can have, and two groups that would fight
// for one lease.
func (g *grouping) checkLeases(groups []Group) {
	owner := map[string]string{}
	for _, group := range groups {
		lease := group.LeaseNamespace + "/" + group.LeaseName
		if other, taken := owner[lease]; taken {
			g.mistake(g.leasePath(group.Name), "the lease groups %q and %q would share the lease %q; give each a lease of its own", other, group.Name, group.LeaseName)
			continue
		}
		owner[lease] = group.Name
		if group.Name == controllers.DefaultLeaseGroup {
			continue // checked with the flags of leader election
		}
		for _, problem := range validation.IsDNS1123Subdomain(group.LeaseName) {
			g.mistake(g.leasePath(group.Name), "%q is no name for a Lease: %s", group.LeaseName, problem)
		}
	}
}

// leasePath returns the field that decides what the lease of a group is called.
func (g *grouping) leasePath(group string) string {
	i, ok := g.entry[group]
	switch {
	case !ok:
		return "leaderElection.resourceName"
	case g.options.leaseGroups[i].LeaseName != "":
		return entryPath(i) + ".leaseName"
	}
	return entryPath(i) + ".name"
}

// keep leaves a namespace as it is.
func keep(namespace string) string { return namespace }
