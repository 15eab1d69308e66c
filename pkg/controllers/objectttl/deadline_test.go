// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package objectttl

import (
	"math"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestParseTTL(t *testing.T) {
	for _, test := range []struct {
		value string
		want  time.Duration
		err   string
	}{
		{value: "10s", want: 10 * time.Second},
		{value: "1h30m", want: 90 * time.Minute},
		{value: "1ns", want: 1},
		{value: "+5m", want: 5 * time.Minute},
		{value: "7d", want: 7 * day},
		{value: "1d12h", want: 36 * time.Hour},
		{value: "1d0.5h", want: 24*time.Hour + 30*time.Minute},
		{value: "0d1s", want: time.Second},
		{value: "106751d", want: 106751 * day},
		{value: "2562047h47m16.854775807s", want: math.MaxInt64},
		{value: "106751d23h47m16.854775807s", want: math.MaxInt64},

		{value: "", err: "must be a positive duration"},
		{value: "10", err: "must be a positive duration"},
		{value: "soon", err: "must be a positive duration"},
		{value: "d", err: "must be a positive duration"},
		{value: "1.5d", err: "must be a positive duration"},
		{value: "+1d", err: "must be a positive duration"},
		{value: "1d-1h", err: "must be a positive duration"},
		{value: "1d+1h", err: "must be a positive duration"},
		{value: "1d 1h", err: "must be a positive duration"},
		{value: "1h1d", err: "must be a positive duration"},
		{value: "1d1d", err: "must be a positive duration"},
		{value: " 1h", err: "must be a positive duration"},
		{value: "2562048h", err: "must be a positive duration"},
		{value: "0", err: "must be positive"},
		{value: "0s", err: "must be positive"},
		{value: "0d", err: "must be positive"},
		{value: "-10s", err: "must be positive"},
		{value: "-7d", err: "must be positive"},
		{value: "-1d25h", err: "must be positive"},
		{value: "106752d", err: "at most 106751 days"},
		{value: "106751d24h", err: "at most 106751 days"},
		{value: strings.Repeat("9", 40) + "d", err: "at most 106751 days"},
		{value: "-" + strings.Repeat("9", 40) + "d", err: "must be positive"},
	} {
		got, err := parseTTL(test.value)
		if test.err != "" {
			if err == nil || !strings.Contains(err.Error(), test.err) || !strings.Contains(err.Error(), AnnotationTTL) {
				t.Errorf("parseTTL(%q) = %v, %v; want an error with %q that names the annotation", test.value, got, err, test.err)
			}
			continue
		}
		if err != nil || got != test.want {
			t.Errorf("parseTTL(%q) = %v, %v; want %v", test.value, got, err, test.want)
		}
	}
}

// FuzzParseTTL checks that no value gives a ttl that is not positive, and that every
// Go duration without days means what it means in Go.
func FuzzParseTTL(f *testing.F) {
	for _, seed := range []string{"10s", "7d", "-1d25h", "106751d24h", "1d0.5h", "99999999999999999999d", "0d", ".5s"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		got, err := parseTTL(value)
		if err == nil && got <= 0 {
			t.Errorf("parseTTL(%q) = %v, want a positive duration or an error", value, got)
		}
		if want, goErr := time.ParseDuration(value); goErr == nil && (want > 0) != (err == nil && got == want) {
			t.Errorf("parseTTL(%q) = %v, %v; time.ParseDuration gives %v", value, got, err, want)
		}
	})
}

func TestDeadlineIsTheEarlierAnnotation(t *testing.T) {
	created := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	for _, test := range []struct {
		name           string
		ttl, expiresAt *string
		uncreated      bool      // no creationTimestamp
		want           time.Time // zero: no deadline
		annotation     string
		errs           []string
	}{
		{name: "no annotation"},
		{name: "the second that creationTimestamp cuts off is added to a ttl", ttl: new("10s"), want: created.Add(11 * time.Second), annotation: AnnotationTTL},
		{name: "expires-at is exact", expiresAt: new("2026-11-20T12:00:10Z"), want: created.Add(10 * time.Second), annotation: AnnotationExpiresAt},
		{name: "expires-at with zone and fraction", expiresAt: new("2026-11-20T13:00:10.5+01:00"), want: created.Add(10500 * time.Millisecond), annotation: AnnotationExpiresAt},
		{name: "expires-at before the creation", expiresAt: new("2020-01-01T00:00:00Z"), want: time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC), annotation: AnnotationExpiresAt},
		{name: "expires-at the zero time", expiresAt: new("0001-01-01T00:00:00Z"), want: time.Time{}.UTC(), annotation: AnnotationExpiresAt},
		{name: "both, ttl earlier", ttl: new("1m"), expiresAt: new("2026-11-20T13:00:00Z"), want: created.Add(61 * time.Second), annotation: AnnotationTTL},
		{name: "both, expires-at earlier", ttl: new("2h"), expiresAt: new("2026-11-20T13:00:00Z"), want: created.Add(time.Hour), annotation: AnnotationExpiresAt},
		{name: "longest ttl", ttl: new("106751d"), want: created.Add(106751 * day).Add(time.Second), annotation: AnnotationTTL},
		{name: "longest ttl to the nanosecond", ttl: new("106751d23h47m16.854775807s"), want: created.Add(math.MaxInt64).Add(time.Second), annotation: AnnotationTTL},
		{name: "last instant of RFC 3339", expiresAt: new("9999-12-31T23:59:59Z"), want: time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), annotation: AnnotationExpiresAt},

		{name: "bad ttl", ttl: new("x"), errs: []string{AnnotationTTL, `"x"`, `"90s"`}},
		{name: "bad expires-at", expiresAt: new("tomorrow"), errs: []string{AnnotationExpiresAt, `"tomorrow"`, "RFC 3339"}},
		{name: "expires-at without zone", expiresAt: new("2026-11-20T12:00:10"), errs: []string{AnnotationExpiresAt}},
		{name: "one of the two is bad", ttl: new("1s"), expiresAt: new(""), errs: []string{AnnotationExpiresAt}},
		{name: "both are bad", ttl: new("-1s"), expiresAt: new("never"), errs: []string{"must be positive", `"never"`}},
		{name: "ttl on an object without creation", ttl: new("1s"), uncreated: true, errs: []string{"creationTimestamp"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			object := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{}}}
			if !test.uncreated {
				object.CreationTimestamp = metav1.NewTime(created)
			}
			if test.ttl != nil {
				object.Annotations[AnnotationTTL] = *test.ttl
			}
			if test.expiresAt != nil {
				object.Annotations[AnnotationExpiresAt] = *test.expiresAt
			}
			if got, want := annotated(object), test.ttl != nil || test.expiresAt != nil; got != want {
				t.Errorf("annotated = %v, want %v", got, want)
			}
			got, err := deadlineOf(object)
			for _, want := range test.errs {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("error %v, want one with %q", err, want)
				}
			}
			if len(test.errs) > 0 {
				if got != nil {
					t.Errorf("deadline %+v beside an error, want none", got)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if test.annotation == "" {
				if got != nil {
					t.Errorf("deadline %+v, want none", got)
				}
				return
			}
			if got == nil || !got.at.Equal(test.want) || got.annotation != test.annotation || got.value != object.Annotations[test.annotation] {
				t.Errorf("deadline %+v, want %v by %s", got, test.want, test.annotation)
			}
		})
	}
}

func TestMalformedAnnotationMessagesAreStable(t *testing.T) {
	object := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
		CreationTimestamp: metav1.NewTime(time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)),
		Annotations:       map[string]string{AnnotationTTL: "x", AnnotationExpiresAt: "y"},
	}}
	_, first := deadlineOf(object)
	object.ResourceVersion = "2"
	_, second := deadlineOf(object)
	if first.Error() != second.Error() {
		t.Errorf("two messages about one value, %q and %q; a warning would be repeated", first, second)
	}
}
