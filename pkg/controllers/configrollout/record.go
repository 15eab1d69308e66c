// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package configrollout

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/types"
)

// record is what the Pods of a workload are known to have been rolled for, by source.
// It is kept in AnnotationRecord.
type record map[string]entry

type entry struct {
	// Version is the resourceVersion in which all of the object was as Parts say, so
	// an object that still has it need not be read. Empty: there is none.
	Version string `json:"version,omitempty"`
	// Parts are fingerprints by key, or absent.
	Parts map[string]string `json:"parts"`
}

// absent stands for an optional part that Pods started without.
const absent = "absent"

// encode is deterministic: encoding/json sorts the keys of maps.
func (r record) encode() string {
	text, err := json.Marshal(r)
	if err != nil {
		panic(err) // Strings can be encoded.
	}
	return string(text)
}

// digest stands for the contents in a record, whatever the versions in which they were
// found. It is a valid end of a label's value.
func (r record) digest() string {
	var fields []string
	for _, source := range slices.Sorted(maps.Keys(r)) {
		for _, part := range slices.Sorted(maps.Keys(r[source].Parts)) {
			fields = append(fields, source, part, r[source].Parts[part])
		}
	}
	return fingerprinter{hash: sha256.New}.of(fields...)
}

// set adds a part.
func (r record) set(source, part, fingerprint string) {
	e := r[source]
	if e.Parts == nil {
		e.Parts = map[string]string{}
	}
	e.Parts[part] = fingerprint
	r[source] = e
}

// ownerMark tells the seals of different objects apart.
func ownerMark(uid types.UID) string {
	sum := sha256.Sum256([]byte(uid))
	return hex.EncodeToString(sum[:4]) + "."
}

// sealOf is the LabelSeal of a record of the object with that UID.
func sealOf(uid types.UID, r record) string { return ownerMark(uid) + r.digest() }

// standing says what the record on a workload is worth.
//
//	   label of this UID?
//	 no │            │ yes
//	    ▼            ▼
//	unrecorded    label = seal of the annotation?
//	              no │            │ yes
//	                 ▼            ▼
//	             displaced     recorded
type standing int

const (
	unrecorded standing = iota // nothing was recorded for this object
	displaced                  // the annotation is not the last that was written
	recorded
)

// recordOn returns the record of a workload; nil unless it is recorded.
func recordOn(uid types.UID, labels, annotations map[string]string) (record, standing) {
	seal := labels[LabelSeal]
	if !strings.HasPrefix(seal, ownerMark(uid)) {
		return nil, unrecorded
	}
	var r record
	if err := json.Unmarshal([]byte(annotations[AnnotationRecord]), &r); err != nil || sealOf(uid, r) != seal {
		return nil, displaced
	}
	return r, recorded
}

// comparison is a record beside what there is now.
type comparison struct {
	// kept is what is to be recorded without a rollout, and rolled with one: what is
	// optional and not there is remembered in kept, since Pods may still have it.
	kept, rolled record
	// changed are the sources whose content is not what was recorded.
	changed []string
	// missing are required parts that are not there: new Pods would not start.
	missing []string
}

// compare compares a record with the contents of what is referred to; a source without
// contents is not there.
//
//   - A part that was never recorded is recorded as it is found.
//   - A part that is not there has not changed. What was recorded of it stays, and
//     decides when it is there again.
//   - A part that Pods started without has changed when it appears.
//   - Fingerprints that were made with different keys cannot be compared, and so are
//     taken for the same.
func compare(before record, refs []reference, found map[source]*contents) comparison {
	c := comparison{kept: record{}, rolled: record{}}
	for _, ref := range refs {
		name := ref.String()
		old, known := before[name].Parts[ref.part]
		now, there := "", false
		if object := found[ref.source]; object != nil {
			now, there = object.parts[ref.part]
		}
		switch {
		case there:
			if known && old != now && (old == absent || keyOf(old) == keyOf(now)) {
				c.changed = append(c.changed, name)
			}
			c.kept.set(name, ref.part, now)
			c.rolled.set(name, ref.part, now)
		case ref.optional:
			if !known {
				old = absent
			}
			c.kept.set(name, ref.part, old)
			c.rolled.set(name, ref.part, absent)
		default:
			if known {
				c.kept.set(name, ref.part, old)
			}
			c.missing = append(c.missing, ref.describe())
		}
	}
	c.changed = slices.Compact(c.changed)
	c.kept.date(found)
	c.rolled.date(found)
	return c
}

// date notes the versions of those objects of which all recorded parts are as found.
func (r record) date(found map[source]*contents) {
	for from, object := range found {
		e, recorded := r[from.String()]
		if object == nil || !recorded {
			continue
		}
		same := true
		for part, fingerprint := range e.Parts {
			now, there := object.parts[part]
			same = same && (now == fingerprint || !there && fingerprint == absent)
		}
		if same {
			e.Version = object.version
			r[from.String()] = e
		}
	}
}

// contentsFor returns what is recorded of a source as its contents, if it is all that
// the references want to know, was found in that version of the object, and was
// fingerprinted with that key. It saves reading objects that have not changed since.
func (r record) contentsFor(from source, version, key string, refs []reference) *contents {
	e := r[from.String()]
	if e.Version == "" || e.Version != version {
		return nil
	}
	c := &contents{version: version, parts: map[string]string{}}
	for _, ref := range refs {
		if ref.source != from {
			continue
		}
		fingerprint, known := e.Parts[ref.part]
		switch {
		case !known, fingerprint != absent && keyOf(fingerprint) != key:
			return nil
		case fingerprint != absent:
			c.parts[ref.part] = fingerprint
		}
	}
	return c
}

// describe names a part in an Event.
func (r reference) describe() string {
	if r.part == whole {
		return r.String()
	}
	return fmt.Sprintf("key %s of %s", r.part, r.source)
}
