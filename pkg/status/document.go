// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package status

import (
	"bytes"
	"cmp"
	"fmt"
	"html"
	"strings"
)

// document is a page that is being written. html/template would do it, too, but the
// linker keeps every exported method of every type in a program that can execute a
// template: a third of the binary, and 15 MiB of what is resident of each replica.
type document struct{ bytes.Buffer }

// markup is HTML with verbs for values, which stand between tags or in quotes. What is
// in a variable of type string is no markup, so text cannot become markup by mistake.
type markup string

// add writes markup, with the values as text.
func (d *document) add(m markup, values ...any) {
	for i, value := range values {
		values[i] = html.EscapeString(strings.ReplaceAll(fmt.Sprint(value), "\x00", "\uFFFD"))
	}
	fmt.Fprintf(d, string(m), values...)
}

// page writes what a browser shows of a replica.
func (d *document) page(s Snapshot, paused bool) {
	d.add(`<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>%s: what runs where</title>
<style>`, s.Manager)
	d.WriteString(style)
	d.add("</style>\n</head>\n<body>\n<main>\n<h1>%s</h1>\n", s.Manager)
	d.add("<p>%s, version %s, up for %s</p>\n", cmp.Or(s.Pod, s.Identity), s.Version, age(s.Taken, s.Started))
	d.add("<p class=\"soft\">As of %s UTC.\n", s.Taken.UTC().Format("2006-01-02 15:04:05"))
	if paused {
		d.add(`Not refreshed. <a href="?format=html">Refresh every second</a></p>`)
	} else {
		d.add(`Refreshed every second. <a href="?format=html&amp;refresh=off">Stop refreshing</a></p>`)
	}
	d.groups(s)
	d.controllers(s)
	d.config(s)
	d.add("\n</main>\n</body>\n</html>\n")
}

func (d *document) groups(s Snapshot) {
	if len(s.Groups) == 0 {
		return
	}
	d.add("\n<table role=\"table\">\n<caption>Lease groups</caption>")
	d.header("Group")
	for _, g := range s.Groups {
		d.row(g.Name, g.Lease, g.State)
		if g.Epoch != 0 {
			d.add("<small>epoch %s, for %s</small>", g.Epoch, age(s.Taken, g.Since))
		}
		d.details(g.notes(nil, s.Taken))
		d.add("<small>lease renewed %s; fence %s; writes in flight: %s</small></td></tr>", g.renewed(), g.fence(), g.InFlight)
	}
	d.add("\n</tbody>\n</table>")
}

func (d *document) controllers(s Snapshot) {
	if len(s.Controllers) == 0 {
		return
	}
	d.add("\n<table role=\"table\">\n<caption>Controllers<small>%s</small></caption>", counts(s.Controllers))
	d.header("Controller")
	for _, c := range s.Controllers {
		d.row(c.Name, c.Summary, c.State)
		if !c.Since.IsZero() {
			d.add("<small>for %s</small>", age(s.Taken, c.Since))
		}
		d.details(c.notes(s.Taken))
		if c.Group == "" {
			d.add("<small>every replica")
		} else {
			d.add("<small>group %s", c.Group)
		}
		d.add("; restarts: %s", c.restarts())
		if causes := c.causes(); causes != "" {
			d.add(" (%s)", causes)
		}
		if c.QueueDepth != nil {
			d.add("; queue: %s", *c.QueueDepth)
		}
		d.add("</small></td></tr>")
	}
	d.add("\n</tbody>\n</table>")
}

func (d *document) config(s Snapshot) {
	lines := s.Config.lines(s.Taken)
	if len(lines) == 0 {
		return
	}
	d.add("\n<h2>Configuration</h2>")
	for _, line := range lines {
		d.add("\n<p>%s</p>", line)
	}
}

// header begins the body of a table whose first column is named. Its roles hold where
// the style takes the table apart, on narrow screens.
func (d *document) header(first string) {
	d.add(`
<thead role="rowgroup"><tr role="row"><th role="columnheader" scope="col" class="name">%s</th><th role="columnheader" scope="col" class="state">State</th><th role="columnheader" scope="col">Details</th></tr></thead>
<tbody role="rowgroup">`, first)
}

// row begins a row, and leaves the cell of the state open.
func (d *document) row(name, below, state string) {
	d.add("\n<tr role=\"row\"><th role=\"rowheader\" scope=\"row\">%s", name)
	if below != "" {
		d.add("<small>%s</small>", below)
	}
	d.add("</th>\n<td role=\"cell\"><b class=\"%s\">%s</b>", mood(state), state)
}

// details closes the cell of the state, and leaves the next one open.
func (d *document) details(notes []string) {
	d.add("</td>\n<td role=\"cell\">")
	for _, note := range notes {
		d.add("<p>%s</p>", note)
	}
}
