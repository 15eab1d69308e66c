// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package objectttl

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// AnnotationTTL holds how long an object lives, counted from its creation: a Go
	// duration ("90s", "1h30m"), or whole days of 24 hours with or without a
	// duration after them ("7d", "1d12h").
	AnnotationTTL = "incumbent.io/ttl"
	// AnnotationExpiresAt holds the instant at which an object expires, in RFC 3339
	// ("2027-01-31T18:00:00Z").
	AnnotationExpiresAt = "incumbent.io/expires-at"
)

// creationPrecision is what metadata.creationTimestamp cuts off: an object that says
// 12:00:00 was created before 12:00:01. It is added to a ttl, so that no object
// lives shorter than it asked for.
const creationPrecision = time.Second

// deadline is when an object expires, and which annotation says so.
type deadline struct {
	// at carries no monotonic reading, so it is compared by the wall clock.
	at                time.Time
	annotation, value string
}

// annotated tells whether the object asks for an expiry at all.
func annotated(object metav1.Object) bool {
	annotations := object.GetAnnotations()
	_, ttl := annotations[AnnotationTTL]
	_, expiresAt := annotations[AnnotationExpiresAt]
	return ttl || expiresAt
}

// deadlineOf returns the earlier deadline of the two annotations, or nil if there is
// neither. If one of them is malformed the object has no deadline but an error, which
// names all that is wrong and depends on the annotations' values alone.
func deadlineOf(object metav1.Object) (*deadline, error) {
	var first *deadline
	var errs []error
	annotations := object.GetAnnotations()
	if value, set := annotations[AnnotationTTL]; set {
		ttl, err := parseTTL(value)
		created := object.GetCreationTimestamp()
		if err == nil && created.IsZero() {
			err = fmt.Errorf("%s cannot be counted: the object has no metadata.creationTimestamp; use %s", AnnotationTTL, AnnotationExpiresAt)
		}
		errs = append(errs, err)
		// Added one by one: their sum may exceed what a duration can hold.
		at := created.Add(creationPrecision).Add(ttl)
		first = &deadline{at: at, annotation: AnnotationTTL, value: value}
	}
	if value, set := annotations[AnnotationExpiresAt]; set {
		at, err := parseInstant(value)
		errs = append(errs, err)
		if first == nil || at.Before(first.at) {
			first = &deadline{at: at, annotation: AnnotationExpiresAt, value: value}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return first, nil
}

func parseInstant(value string) (time.Time, error) {
	at, err := time.Parse(time.RFC3339, value)
	if err != nil {
		return at, fmt.Errorf(`%s must be an instant in RFC 3339 such as "2027-01-31T18:00:00Z", got %q`, AnnotationExpiresAt, value)
	}
	return at, nil
}

const (
	day     = 24 * time.Hour
	maxDays = int64(math.MaxInt64 / day)
)

// withDays matches a ttl that starts with whole days. No unit of a Go duration has
// a "d" in it, so it matches none of those.
var withDays = regexp.MustCompile(`^(-?[0-9]+)d([0-9.].*)?$`)

func parseTTL(value string) (time.Duration, error) {
	var days int64
	rest := value
	if parts := withDays.FindStringSubmatch(value); parts != nil {
		// The shape is valid, so the only possible error is a range, which saturates.
		days, _ = strconv.ParseInt(parts[1], 10, 64)
		rest = cmp.Or(parts[2], "0")
	}
	duration, err := time.ParseDuration(rest)
	switch {
	case err != nil:
		return 0, fmt.Errorf(`%s must be a positive duration such as "90s", "1h30m" or "7d", got %q`, AnnotationTTL, value)
	case days < 0 || days == 0 && duration <= 0:
		return 0, fmt.Errorf(`%s must be positive, as in "90s", "1h30m" or "7d", got %q`, AnnotationTTL, value)
	case days > maxDays || duration > math.MaxInt64-time.Duration(days)*day:
		return 0, fmt.Errorf(`%s must be at most %d days, got %q; without the annotation an object never expires`, AnnotationTTL, maxDays, value)
	}
	return time.Duration(days)*day + duration, nil
}
