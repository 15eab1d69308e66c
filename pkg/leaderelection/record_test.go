// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package leaderelection

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

func TestRenewTime(t *testing.T) {
	at := func(s float64) time.Time { return time.Unix(1000, 0).Add(time.Duration(s * float64(time.Second))) }
	tests := []struct {
		name                    string
		wall, committed, issued time.Time
		again                   bool
		want                    time.Time
	}{
		{"the wall clock's", at(10.5), at(8), at(8), false, at(10.5)},
		{"a second above the last", at(8.2), at(8), at(8), false, at(9)},
		{"wall clock set back", at(-3000), at(8), at(8), false, at(9)},
		{"another attempt", at(12), at(8), at(10.5), true, at(10.500001)},
		{"never one that was used", at(9), at(8), at(20), false, at(20.000001)},
		{"the committed one moved on", at(12), at(30), at(12), true, at(31)},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := renewTimeFor(test.wall, test.committed, test.issued, test.again); !got.Equal(test.want) {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

// TestAttemptsAreDistinct draws attempts in any order of circumstances: no two
// may have the same renewTime, and each is a second above what is committed.
func TestAttemptsAreDistinct(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var a attempts
	used := map[time.Time]bool{}
	committed, base, wall := time.Unix(5000, 0), "1", 5000*time.Second
	for i := range 10000 {
		wall += time.Duration(rng.Int64N(int64(4*time.Second))) - time.Second
		if rng.IntN(50) == 0 {
			wall += time.Duration(rng.Int64N(int64(2*time.Hour))) - time.Hour
		}
		try := a.begin(renew, Reading{Wall: wall}, base, committed, 0)
		if used[try.renewTime] {
			t.Fatalf("attempt %d uses %v again", i, try.renewTime)
		}
		used[try.renewTime] = true
		if try.renewTime.Before(committed.Add(time.Second)) {
			t.Fatalf("attempt %d: %v is not a second above %v", i, try.renewTime, committed)
		}
		if rng.IntN(2) == 0 {
			committed, base = try.renewTime, base+"1"
		}
	}
	if len(a.list) > maxAttempts {
		t.Errorf("%d attempts are kept", len(a.list))
	}
}

func TestFindAttempt(t *testing.T) {
	var a attempts
	try := a.begin(acquire, Reading{Wall: time.Hour}, "", time.Time{}, 3)
	gone := a.begin(release, Reading{Wall: 2 * time.Hour}, "5", try.renewTime, 3)
	record := func(holder string, at time.Time) resourcelock.LeaderElectionRecord {
		return resourcelock.LeaderElectionRecord{HolderIdentity: holder, RenewTime: metav1.NewTime(at)}
	}
	tests := []struct {
		name   string
		record resourcelock.LeaderElectionRecord
		want   *attempt
	}{
		{"mine", record("me", try.renewTime), try},
		{"somebody else's with my time", record("you", try.renewTime), nil},
		{"mine with another time", record("me", try.renewTime.Add(1)), nil},
		{"my release", record("", gone.renewTime), gone},
		{"a blanked holder", record("", try.renewTime), nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := a.find(test.record, "me"); got != test.want {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

func TestFillKeepsWhatIsNotOurs(t *testing.T) {
	strategy, preferred, holder := coordinationv1.OldestEmulationVersion, "c", "a"
	lease := &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Name: "l", UID: "u", ResourceVersion: "7", Labels: map[string]string{"x": "y"}, Annotations: map[string]string{"p": "q"}},
		Spec:       coordinationv1.LeaseSpec{HolderIdentity: &holder, Strategy: &strategy, PreferredHolder: &preferred, AcquireTime: &metav1.MicroTime{Time: time.Unix(1, 0)}},
	}
	tests := []struct {
		kind     writeKind
		holder   string
		seconds  int32
		acquired int64
	}{
		{acquire, "me", 15, 100}, {renew, "me", 15, 1}, {release, "", 1, 1}, {certify, "", 1, 1},
	}
	for _, test := range tests {
		got := lease.DeepCopy()
		try := &attempt{kind: test.kind, renewTime: time.Unix(101, 5000), transitions: 4}
		try.fill(got, "me", 15*time.Second, time.Unix(100, 0))
		want := lease.DeepCopy()
		transitions := int32(4)
		want.Spec.HolderIdentity, want.Spec.LeaseDurationSeconds, want.Spec.LeaseTransitions = &test.holder, &test.seconds, &transitions
		want.Spec.AcquireTime = &metav1.MicroTime{Time: time.Unix(test.acquired, 0)}
		want.Spec.RenewTime = &metav1.MicroTime{Time: time.Unix(101, 5000)}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%v (-want +got):\n%s", test.kind, diff)
		}
	}
}

func TestReleasesAreToldApart(t *testing.T) {
	at := metav1.NewTime(time.Unix(10, 0))
	later := metav1.NewTime(time.Unix(12, 0))
	tests := []struct {
		name           string
		record         resourcelock.LeaderElectionRecord
		release, stock bool
	}{
		{"held", resourcelock.LeaderElectionRecord{HolderIdentity: "a", LeaseDurationSeconds: 1}, false, false},
		{"blanked by hand", resourcelock.LeaderElectionRecord{LeaseDurationSeconds: 15, AcquireTime: at, RenewTime: at}, false, false},
		{"client-go's", resourcelock.LeaderElectionRecord{LeaseDurationSeconds: 1, AcquireTime: at, RenewTime: at}, true, true},
		{"ours", resourcelock.LeaderElectionRecord{LeaseDurationSeconds: 1, AcquireTime: at, RenewTime: later}, true, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := isRelease(test.record); got != test.release {
				t.Errorf("isRelease %v, want %v", got, test.release)
			}
			if got := isStockRelease(test.record); got != test.stock {
				t.Errorf("isStockRelease %v, want %v", got, test.stock)
			}
		})
	}
}

func TestEpochRises(t *testing.T) {
	lease := func(created int64, transitions int32) *coordinationv1.Lease {
		return &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{CreationTimestamp: metav1.Unix(created, 0)}, Spec: coordinationv1.LeaseSpec{LeaseTransitions: &transitions}}
	}
	ascending := []*coordinationv1.Lease{lease(1000, 0), lease(1000, 1), lease(1000, 1<<20-1), lease(1001, 0), lease(1001, 7), lease(2000, 3)}
	for i := 1; i < len(ascending); i++ {
		if a, b := epochOf(ascending[i-1]), epochOf(ascending[i]); a >= b {
			t.Errorf("epoch %d is followed by %d", a, b)
		}
	}
	if got := epochOf(&coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{CreationTimestamp: metav1.Unix(3, 0)}}); got != 3<<20 {
		t.Errorf("without transitions: %d", got)
	}
	if got := after(math.MaxInt32); got != math.MaxInt32 {
		t.Errorf("after the highest number: %d", got)
	}
}
