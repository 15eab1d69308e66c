// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package preflight

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/incumbent-io/incumbent/pkg/controllers"
)

// Row is one entry of a controller's Access and what was found out about it. It
// encodes to JSON.
type Row struct {
	// Controller is who needs it.
	Controller string `json:"controller"`
	// Group, Version and Resource name the resource; Resource may name a subresource.
	Group    string `json:"group"`
	Version  string `json:"version"`
	Resource string `json:"resource"`
	// Verbs are those that are needed.
	Verbs []string `json:"verbs"`
	// Names are the objects that are needed; absent: all.
	Names []string `json:"names,omitempty"`
	// Namespace is where it is needed; absent: everywhere.
	Namespace string `json:"namespace,omitempty"`
	// Optional means that the controller runs without it.
	Optional bool `json:"optional"`
	// Served says whether the API server knows the resource.
	Served bool `json:"served"`
	// Missing are the verbs that are not there; absent: none.
	Missing []string `json:"missing,omitempty"`
	// Reason says what is missing and how to get it; absent: nothing.
	Reason string `json:"reason,omitempty"`
}

// Rows returns the rows of one controller, in the order of its Access.
func Rows(owner string, report Report) (rows []Row) {
	for _, result := range report.Results {
		a := result.Access
		rows = append(rows, Row{
			Controller: owner,
			Group:      a.Resource.Group, Version: a.Resource.Version, Resource: a.Resource.Resource,
			Verbs: verbs(a), Names: a.Names, Namespace: a.Namespace, Optional: a.Optional,
			Served: result.Served, Missing: result.Missing, Reason: result.Reason,
		})
	}
	return rows
}

// Table writes rows for people, one line each, and below them the reasons of what is
// missing.
func Table(w io.Writer, rows []Row) error {
	table := tabwriter.NewWriter(w, 0, 8, 3, ' ', 0)
	fmt.Fprintln(table, "CONTROLLER\tRESOURCE\tVERBS\tNAMESPACE\tRESULT")
	for _, row := range rows {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", row.Controller, row.target(), strings.Join(row.Verbs, ","), row.where(), row.result())
	}
	if err := table.Flush(); err != nil {
		return err
	}
	gap := "\n"
	for _, row := range rows {
		if row.Reason == "" {
			continue
		}
		if _, err := fmt.Fprintf(w, "%s%s: %s\n", gap, row.Controller, row.Reason); err != nil {
			return err
		}
		gap = ""
	}
	return nil
}

func (r Row) target() string {
	version := r.Version
	if r.Group != "" {
		version = r.Group + "/" + r.Version
	}
	target := version + " " + r.Resource
	if len(r.Names) > 0 {
		target += " (" + strings.Join(r.Names, ", ") + ")"
	}
	return target
}

func (r Row) where() string {
	switch r.Namespace {
	case "":
		return "(all)"
	case controllers.OwnNamespace:
		return "(own)"
	default:
		return r.Namespace
	}
}

func (r Row) result() string {
	result := "missing: " + strings.Join(r.Missing, ", ")
	switch {
	case r.Reason == "":
		return "ok"
	case r.Namespace == controllers.OwnNamespace:
		result = "missing: the own namespace is unknown"
	case !r.Served:
		result = "missing: not served"
	}
	if r.Optional {
		return "optional, " + result
	}
	return result
}
