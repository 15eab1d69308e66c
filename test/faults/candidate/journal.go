// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package candidate

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"github.com/incumbent-io/incumbent/test/faults/mono"
)

// What tells which kind of thing a Record is about.
type What string

// The kinds of records, in the order in which a process can write them.
const (
	Began     What = "began"     // the process; At is as early as a program can know
	Built     What = "built"     // the controller has been built
	Warm      What = "warm"      // its informers are filled
	Standing  What = "standing"  // another candidate leads
	Run       What = "run"       // the work begins: OnStartedLeading, or Run of the controller
	Knows     What = "knows"     // the value of the marker, from the informer
	Permitted What = "permitted" // writing is permitted from At on
	Wrote     What = "wrote"     // a write that the API server accepted
	Refused   What = "refused"   // a write that was not sent
	Failed    What = "failed"    // a write that failed, or whose outcome is not known
	Forbidden What = "forbidden" // writing is not permitted; it last was at Until
	Draining  What = "draining"  // the work was told to stop
	End       What = "end"       // the work has stopped
)

// Record is one line of a journal. Times are nanoseconds of CLOCK_MONOTONIC.
type Record struct {
	What What   `json:"what"`
	At   int64  `json:"at"`
	Who  string `json:"who,omitempty"` // identity of the candidate

	// Of a write: when it began, and the epoch and the number that it carried. Of
	// Run: the epoch.
	Call  int64 `json:"call,omitempty"`
	Epoch int64 `json:"epoch,omitempty"`
	Seq   int64 `json:"seq,omitempty"`

	Until int64 `json:"until,omitempty"` // of Forbidden
	// Note is an error, the holder (Standing), the value (Knows), or the address of
	// the Pod (Built).
	Note string `json:"note,omitempty"`
}

// mark begins a line of the journal; other lines are ordinary logs.
const mark = "@journal "

// Note writes a record, at this moment unless it carries its own time. One call is
// one write, so that records of several goroutines do not mix.
func Note(r Record) {
	if r.At == 0 {
		r.At = mono.Now()
	}
	text, err := json.Marshal(r)
	if err != nil {
		panic(err) // the type has nothing that could fail
	}
	fmt.Fprintf(os.Stdout, "%s%s\n", mark, text)
}

// Parse returns the record in a line of a log, which may carry what a container
// runtime puts before it.
func Parse(line string) (r Record, ok bool) {
	_, text, ok := strings.Cut(line, mark)
	if !ok {
		return r, false
	}
	return r, json.Unmarshal([]byte(text), &r) == nil
}
