// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package status

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
)

// WriteText writes the table of one replica, or of several replicas of one manager:
// who leads each lease group since when and under which epoch, how fresh the lease
// is, then the controllers. A controller of a group that one of the replicas leads is
// shown as that replica sees it; any other as each of them does. Lines are cut to
// width characters; 0 cuts nothing.
func WriteText(w io.Writer, width int, replicas ...Snapshot) error {
	var out bytes.Buffer
	if len(replicas) == 0 {
		out.WriteString("No replica has answered.\n")
	} else {
		replicas = slices.SortedFunc(slices.Values(replicas), func(a, b Snapshot) int { return strings.Compare(a.replica(), b.replica()) })
		writeTitle(&out, replicas)
		writeGroups(&out, replicas)
		writeControllers(&out, replicas)
		writeConfigs(&out, replicas)
	}
	_, err := io.WriteString(w, cut(out.String(), width))
	return err
}

func writeTitle(out io.Writer, replicas []Snapshot) {
	var versions []string
	var newest time.Time
	for _, replica := range replicas {
		versions = append(versions, replica.Version)
		if replica.Taken.After(newest) {
			newest = replica.Taken
		}
	}
	slices.Sort(versions)
	count := "1 replica"
	if len(replicas) > 1 {
		count = fmt.Sprint(len(replicas), " replicas")
	}
	fmt.Fprintln(out, printable(fmt.Sprintf("%s %s, %s, %s", replicas[0].Manager,
		strings.Join(slices.Compact(versions), " and "), count, newest.UTC().Format(time.RFC3339))))
}

func writeGroups(out io.Writer, replicas []Snapshot) {
	type row struct {
		Group
		replica Snapshot
	}
	var rows []row
	shown := map[string]bool{}
	for _, replica := range replicas {
		shown[replica.Identity] = true
		for _, group := range replica.Groups {
			rows = append(rows, row{group, replica})
		}
	}
	slices.SortStableFunc(rows, func(a, b row) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), compareBool(b.State == Leader, a.State == Leader))
	})
	table := newTable(out, "GROUP", "STATE", onlyIf(len(replicas) > 1, "REPLICA"), "EPOCH", "FOR", "RENEWED", "FENCE", "WRITES", "LEASE", "NOTE")
	for _, r := range rows {
		epoch := "-"
		if r.Epoch != 0 {
			epoch = fmt.Sprint(r.Epoch)
		}
		table.row(r.Name, r.State, r.replica.replica(), epoch, age(r.replica.Taken, r.Since), r.renewed(), r.fence(), fmt.Sprint(r.InFlight), cmp.Or(r.Lease, "-"), strings.Join(r.notes(shown, r.replica.Taken), "; "))
	}
	table.flush()
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

func writeControllers(out io.Writer, replicas []Snapshot) {
	leaders := map[string]string{} // group -> the replica that leads it
	groups := map[string]bool{}
	for _, replica := range replicas {
		for _, group := range replica.Groups {
			if group.State == Leader {
				leaders[group.Name] = replica.Identity
			}
		}
	}
	type row struct {
		Controller
		replica Snapshot
	}
	var rows []row
	for _, replica := range replicas {
		for _, controller := range replica.Controllers {
			groups[controller.Group] = true
			if leader, led := leaders[controller.Group]; led && leader != replica.Identity {
				continue
			}
			rows = append(rows, row{controller, replica})
		}
	}
	slices.SortStableFunc(rows, func(a, b row) int { return strings.Compare(a.Name, b.Name) })
	table := newTable(out, "CONTROLLER", "STATE", onlyIf(len(replicas) > 1, "REPLICA"), onlyIf(len(groups) > 1, "GROUP"), "FOR", "RESTARTS", "QUEUE", "NOTE")
	for _, r := range rows {
		table.row(r.Name, r.State, r.replica.replica(), cmp.Or(r.Group, "-"), age(r.replica.Taken, r.Since), fmt.Sprint(r.restarts()), r.queue(), strings.Join(r.notes(r.replica.Taken), "; "))
	}
	table.flush()
}

func writeConfigs(out io.Writer, replicas []Snapshot) {
	table := newTable(out, onlyIf(len(replicas) > 1, "REPLICA"), "CONFIGURATION")
	for _, replica := range replicas {
		for _, line := range replica.Config.lines(replica.Taken) {
			table.row(replica.replica(), line)
		}
	}
	table.flush()
}

// textTable is a table with an empty line before it. One without rows is not written.
type textTable struct {
	out     io.Writer
	content bytes.Buffer
	writer  *tabwriter.Writer
	header  []string
	rows    int
}

// newTable begins a table. A column whose header is empty is left out.
func newTable(out io.Writer, header ...string) *textTable {
	t := &textTable{out: out, header: header}
	t.writer = tabwriter.NewWriter(&t.content, 0, 8, 3, ' ', 0)
	t.write(header)
	return t
}

// onlyIf is the header of a column that is there only if it tells something.
func onlyIf(tells bool, header string) string {
	if tells {
		return header
	}
	return ""
}

// row takes a cell for each column, those that are left out too.
func (t *textTable) row(cells ...string) {
	t.rows++
	t.write(cells)
}

func (t *textTable) write(cells []string) {
	var line []string
	for i, cell := range cells {
		if t.header[i] != "" {
			line = append(line, printable(cell))
		}
	}
	fmt.Fprintln(t.writer, strings.Join(line, "\t"))
}

func (t *textTable) flush() {
	if t.rows == 0 {
		return
	}
	_ = t.writer.Flush() // into memory
	fmt.Fprintf(t.out, "\n%s", t.content.String())
}

// printable makes text one line that does nothing to a terminal.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsPrint(r):
			return '\uFFFD'
		}
		return r
	}, text)
}

// cut shortens lines to width characters and takes blanks off their ends.
func cut(text string, width int) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		line = strings.TrimRight(line, " ")
		if runes := []rune(line); width > 0 && len(runes) > width {
			line = string(runes[:width-1]) + "…"
		}
		lines[i] = line
	}
	return strings.Join(lines, "\n")
}
