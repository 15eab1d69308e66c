// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package leaderelection

import (
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

const (
	oursA = "a_uid_inc1-aaaaaaaaaaaaaaaaaaaaaaaaaa"
	oursB = "b_uid_inc1-bbbbbbbbbbbbbbbbbbbbbbbbbb"
)

// leaseAt makes a lease as it is at a version.
func leaseAt(version, uid, holder string, seconds int32, renewed int64, transitions int32) *coordinationv1.Lease {
	return &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Name: "l", UID: types.UID(uid), ResourceVersion: version},
		Spec: coordinationv1.LeaseSpec{HolderIdentity: &holder, LeaseDurationSeconds: &seconds, LeaseTransitions: &transitions,
			AcquireTime: &metav1.MicroTime{Time: time.Unix(1, 0)}, RenewTime: &metav1.MicroTime{Time: time.Unix(renewed, 0)}},
	}
}

func present(source source, lease *coordinationv1.Lease) sighting {
	return sighting{source: source, lease: lease, version: lease.ResourceVersion}
}

func TestSightings(t *testing.T) {
	known := leaseAt("100", "u1", oursA, 15, 10, 1)
	next := leaseAt("101", "u1", oursA, 15, 12, 1)
	before := leaseAt("99", "u1", oursA, 15, 8, 1)
	tests := []struct {
		name string
		// first is what is known, beside nothing.
		first []sighting
		then  sighting
		want  outcome
		gone  bool // afterwards there is no lease
		at    string
	}{
		{"a first list", nil, present(fromList, known), news, false, "100"},
		{"a first list without a lease", nil, sighting{source: fromList, version: "100"}, news, true, "100"},
		{"a newer event", []sighting{present(fromList, known)}, present(fromWatch, next), news, false, "101"},
		{"an older event", []sighting{present(fromList, known)}, present(fromWatch, before), ignored, false, "100"},
		{"the same event", []sighting{present(fromList, known)}, present(fromWatch, known), confirmed, false, "100"},
		{"longer versions are newer", []sighting{present(fromList, known)}, present(fromWatch, leaseAt("1000", "u1", oursA, 15, 12, 1)), news, false, "1000"},
		{"an event that was overtaken by an answer", []sighting{present(fromList, before), present(fromWrite, next)}, present(fromWatch, known), ignored, false, "101"},
		{"a bookmark", []sighting{present(fromList, known)}, sighting{source: fromBookmark, version: "500"}, ignored, false, "100"},
		{"deleted", []sighting{present(fromList, known)}, sighting{source: fromWatch, version: "102", uid: "u1"}, news, true, "102"},
		{"another uid deleted", []sighting{present(fromList, known)}, sighting{source: fromWatch, version: "102", uid: "u0"}, ignored, false, "100"},
		{"an old deletion after a creation", []sighting{present(fromList, leaseAt("110", "u1", oursA, 15, 10, 1))}, sighting{source: fromWatch, version: "102", uid: "u1"}, ignored, false, "110"},
		{"a list that went back", []sighting{present(fromList, known)}, present(fromList, before), wentBack, false, "100"},
		{"an empty list that went back", []sighting{present(fromList, known)}, sighting{source: fromList, version: "90"}, wentBack, false, "100"},
		{"an empty list", []sighting{present(fromList, known)}, sighting{source: fromList, version: "120"}, news, true, "120"},
		{"the same list", []sighting{present(fromList, known)}, sighting{source: fromList, lease: known, version: "150"}, confirmed, false, "100"},
		{"a GET of restored data", []sighting{present(fromList, known)}, sighting{source: fromGet, lease: before, version: "99", asked: "100"}, news, false, "99"},
		{"a GET that comes late", []sighting{present(fromList, known), present(fromWatch, next)}, sighting{source: fromGet, lease: before, version: "99", asked: "100"}, ignored, false, "101"},
		{"a GET of nothing", []sighting{present(fromList, known)}, sighting{source: fromGet, asked: "100"}, news, true, "100"},
		{"a GET of nothing that comes late", []sighting{present(fromList, known), present(fromWatch, next)}, sighting{source: fromGet, asked: "100"}, ignored, false, "101"},
		{"a GET of what is known", []sighting{present(fromList, known)}, sighting{source: fromGet, lease: known, version: "100", asked: "100"}, confirmed, false, "100"},
		{"a GET of nothing, as known", []sighting{{source: fromList, version: "90"}}, sighting{source: fromGet, asked: "90"}, confirmed, true, "90"},
		{"created after an absence", []sighting{{source: fromList, version: "90"}}, present(fromWatch, known), news, false, "100"},
		{"created before an absence", []sighting{{source: fromList, version: "105"}}, present(fromWatch, known), ignored, true, "105"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			v := newView(15 * time.Second)
			for _, s := range test.first {
				v.see(s)
			}
			if got := v.see(test.then); got != test.want {
				t.Errorf("outcome %d, want %d", got, test.want)
			}
			if gone := v.known && v.object == nil; gone != test.gone {
				t.Errorf("gone %v, want %v", gone, test.gone)
			}
			if v.version != test.at {
				t.Errorf("version %s, want %s", v.version, test.at)
			}
		})
	}
}

func TestOnlyTheElectionsFieldsMoveTheObservation(t *testing.T) {
	base := leaseAt("100", "u1", oursA, 15, 10, 1)
	edit := func(change func(*coordinationv1.Lease)) *coordinationv1.Lease {
		l := base.DeepCopy()
		l.ResourceVersion = "101"
		change(l)
		return l
	}
	tests := []struct {
		name  string
		next  *coordinationv1.Lease
		moves bool
	}{
		{"labels", edit(func(l *coordinationv1.Lease) { l.Labels = map[string]string{"a": "b"} }), false},
		{"annotations", edit(func(l *coordinationv1.Lease) { l.Annotations = map[string]string{"a": "b"} }), false},
		{"acquireTime", edit(func(l *coordinationv1.Lease) { l.Spec.AcquireTime = nil }), false},
		{"renewTime by a microsecond", edit(func(l *coordinationv1.Lease) {
			l.Spec.RenewTime = &metav1.MicroTime{Time: time.Unix(10, 1000)}
		}), true},
		{"holder", leaseAt("101", "u1", oursB, 15, 10, 1), true},
		{"transitions", leaseAt("101", "u1", oursA, 15, 10, 2), true},
		{"duration", leaseAt("101", "u1", oursA, 16, 10, 1), true},
		{"uid", leaseAt("101", "u2", oursA, 15, 10, 1), true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			v := newView(15 * time.Second)
			v.see(present(fromList, base))
			s := present(fromWatch, test.next)
			s.at = Reading{Boot: 7, Mono: 7}
			v.see(s)
			if moved := v.since.Mono == 7; moved != test.moves {
				t.Errorf("moved %v, want %v", moved, test.moves)
			}
		})
	}
}

func TestProtection(t *testing.T) {
	const own = 15 * time.Second
	type step struct {
		holder  string
		seconds int32
		want    time.Duration
	}
	tests := []struct {
		name  string
		steps []step
	}{
		{"as stated", []step{{oursA, 15, own}, {oursA, 15, own}}},
		{"longer", []step{{oursA, 60, 60 * time.Second}}},
		{"shorter from the start", []step{{oursA, 5, 5 * time.Second}, {oursA, 5, 5 * time.Second}}},
		{"shortened", []step{{oursA, 15, own}, {oursA, 1, own}, {oursA, 1, own}}},
		{"shortened below a longer one", []step{{oursA, 60, 60 * time.Second}, {oursA, 20, 60 * time.Second}}},
		{"absent", []step{{oursA, 0, own}}},
		{"absent after a longer one", []step{{oursA, 60, 60 * time.Second}, {oursA, 0, 60 * time.Second}}},
		{"negative", []step{{oursA, -5, own}}},
		{"shorter with another holder", []step{{oursA, 15, own}, {oursB, 5, 5 * time.Second}}},
		{"lengthened by hand and put right", []step{{oursA, 15, own}, {oursA, 60, 60 * time.Second}, {oursA, 15, 60 * time.Second}, {oursA, 15, own}}},
		{"blanked by hand", []step{{oursA, 15, own}, {"", 15, own}}},
		{"released", []step{{oursA, 15, own}, {"", 1, time.Second}}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			v := newView(own)
			for i, s := range test.steps {
				version := string(rune('1' + i))
				v.see(present(fromWatch, leaseAt(version, "u1", s.holder, s.seconds, int64(10+i), 1)))
				if v.duration != s.want {
					t.Errorf("step %d: protected for %v, want %v", i, v.duration, s.want)
				}
			}
		})
	}
}

func TestDecide(t *testing.T) {
	const s = time.Second
	stockRelease := leaseAt("100", "u1", "", 1, 1, 1)
	tests := []struct {
		name  string
		first []sighting
		idle  bool
		dead  string
		loops bool
		now   time.Duration
		wait  time.Duration
		kind  writeKind
	}{
		{name: "no lease", first: []sighting{{source: fromList, version: "90"}}},
		{name: "held", first: []sighting{present(fromList, leaseAt("100", "u1", oursA, 15, 10, 1))}, now: 4 * s, wait: 11 * s},
		{name: "expired", first: []sighting{present(fromList, leaseAt("100", "u1", oursA, 15, 10, 1))}, now: 15 * s},
		{name: "held for longer", first: []sighting{present(fromList, leaseAt("100", "u1", oursA, 60, 10, 1))}, now: 15 * s, wait: 45 * s},
		{name: "held by stock", first: []sighting{present(fromList, leaseAt("100", "u1", "host_1234", 15, 10, 1))}, now: 15 * s, wait: 3 * s},
		{name: "released by ours", first: []sighting{present(fromList, leaseAt("100", "u1", "", 1, 10, 1))}},
		{name: "released by stock", first: []sighting{present(fromList, stockRelease)}, now: s, wait: s},
		{name: "released by a holder known to be stock", first: []sighting{present(fromList, leaseAt("99", "u1", "host_1", 15, 9, 1)), present(fromWatch, leaseAt("100", "u1", "", 1, 10, 1))}, wait: 2 * s},
		{name: "released by ours after stock", first: []sighting{present(fromList, leaseAt("99", "u1", "host_1", 15, 9, 1)), present(fromWatch, leaseAt("100", "u1", "", 1, 10, 2))}},
		{name: "blanked by hand", first: []sighting{present(fromList, leaseAt("100", "u1", "", 15, 10, 1))}, now: 4 * s, wait: 11 * s},
		{name: "mine and idle", first: []sighting{present(fromList, leaseAt("100", "u1", oursB, 15, 10, 1))}, idle: true},
		{name: "mine with writes in flight", first: []sighting{present(fromList, leaseAt("100", "u1", oursB, 15, 10, 1))}, wait: 15 * s},
		{name: "deleted", first: []sighting{present(fromList, leaseAt("100", "u1", oursA, 15, 10, 1)), {source: fromWatch, version: "101", uid: "u1"}}, now: 4 * s, wait: 11 * s},
		{name: "deleted, once longer", first: []sighting{present(fromList, leaseAt("99", "u1", oursA, 60, 9, 1)), present(fromWatch, leaseAt("100", "u1", oursB, 15, 10, 2)), {source: fromWatch, version: "101", uid: "u1"}}, wait: 60 * s},
		{name: "deleted, once shorter", first: []sighting{present(fromList, leaseAt("100", "u1", oursA, 5, 10, 1)), {source: fromWatch, version: "101", uid: "u1"}}, wait: 15 * s},
		{name: "deleted under stock", first: []sighting{present(fromList, leaseAt("100", "u1", "host_1", 15, 10, 1)), {source: fromWatch, version: "101", uid: "u1"}}, wait: 18 * s},
		{name: "proven dead", first: []sighting{present(fromList, leaseAt("100", "u1", oursA, 15, 10, 1))}, dead: oursA},
		{name: "proven dead and short-lived", first: []sighting{present(fromList, leaseAt("100", "u1", oursA, 15, 10, 1))}, dead: oursA, loops: true, kind: certify},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			v := newView(15 * s)
			for _, s := range test.first {
				v.see(s)
			}
			d := v.decide(Reading{Boot: test.now, Mono: test.now, Wall: time.Hour}, candidate{me: oursB, idle: test.idle,
				dead:  func(id string) bool { return id == test.dead },
				loops: func(resourcelock.LeaderElectionRecord) bool { return test.loops }})
			if max(d.wait, 0) != test.wait || d.kind != test.kind {
				t.Errorf("wait %v for %v (%s), want %v for %v", d.wait, d.kind, d.reason, test.wait, test.kind)
			}
		})
	}
}

func TestTransitionsNeverFallBelowTheHighestSeen(t *testing.T) {
	v := newView(15 * time.Second)
	v.see(present(fromList, leaseAt("100", "u1", oursA, 15, 10, 9)))
	v.see(present(fromWatch, leaseAt("101", "u1", oursA, 15, 10, 2)))
	v.see(sighting{source: fromWatch, version: "102", uid: "u1"})
	if v.transitions != 9 {
		t.Errorf("highest %d, want 9", v.transitions)
	}
}
