// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package configpropagation

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// TestJudgeAgreesWithTheWords compares judge with what the documentation says, for random
// situations.
func TestJudgeAgreesWithTheWords(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	flip := func(oneIn int) bool { return random.IntN(oneIn) == 0 }
	seen := map[string]int{}
	for range 20000 {
		s, r := situation{kind: configMap}, rules{}
		if flip(3) {
			r.sourceNamespaces = []string{"s0", "s1"}
		}
		if !flip(10) {
			s.namespace = &meta{ObjectMeta: metav1.ObjectMeta{Name: "here", Labels: map[string]string{"x": fmt.Sprint(random.IntN(2))}, Annotations: map[string]string{}}}
			if flip(10) {
				s.namespace.DeletionTimestamp = &metav1.Time{}
			}
			if flip(5) {
				s.namespace.Annotations[AnnotationRefuse] = []string{"true", "false", "maybe"}[random.IntN(3)]
			}
		}
		for i := range random.IntN(4) {
			source := &meta{ObjectMeta: metav1.ObjectMeta{
				Namespace: fmt.Sprint("s", i), Name: "m", UID: types.UID(fmt.Sprint("u", i)), CreationTimestamp: metav1.NewTime(time.Unix(random.Int64N(2), 0)),
				Annotations: map[string]string{AnnotationTo: []string{"x=0", "x=1", "x", "", "=="}[random.IntN(5)]},
			}}
			if flip(10) {
				source.DeletionTimestamp = &metav1.Time{}
			}
			s.sources = append(s.sources, source)
		}
		if flip(2) {
			s.there = &meta{ObjectMeta: metav1.ObjectMeta{Namespace: "here", Name: "m"}}
			if n := len(s.sources); n > 0 && flip(2) {
				of := s.sources[random.IntN(n)]
				s.there.Labels = map[string]string{LabelFrom: of.Namespace}
				s.there.Annotations = map[string]string{AnnotationCopy: mark("here", of)}
			}
		}
		want, source, problems := inWords(r, s)
		got := r.judge(s)
		seen[string(want)]++
		if got.action != want || sourceNamespace(got) != source || len(got.problems) != problems {
			t.Fatalf("got %s of %q with problems %v, want %s of %q with %d, for namespace %v, there %v, sources %v, rules %v",
				got.action, sourceNamespace(got), got.problems, want, source, problems, s.namespace, s.there, s.sources, r)
		}
	}
	for _, a := range []action{leave, ensure, remove} {
		if seen[string(a)] < 100 {
			t.Errorf("%s was due only %d times", a, seen[string(a)])
		}
	}
}

// inWords is a second way to decide, without the functions of the first.
func inWords(r rules, s situation) (what action, source string, problems int) {
	if s.namespace == nil || s.namespace.DeletionTimestamp != nil {
		return leave, "", 0
	}
	isCopy := s.there != nil && s.there.Labels["incumbent.io/propagated-from"] != ""
	var winner *meta
	frozen, claims := false, 0
	for _, o := range s.sources {
		value, malformed := o.Annotations["incumbent.io/propagate-to"], false
		selects := false
		switch value {
		case "", "==":
			malformed = true
			selects = isCopy && s.there.Annotations["incumbent.io/propagated-copy"] == "here/m of "+string(o.UID)
		case "x":
			selects = true
		default:
			selects = "x="+s.namespace.Labels["x"] == value
		}
		refusal, refused := s.namespace.Annotations["incumbent.io/refuse-propagation"]
		allowed := len(r.sourceNamespaces) == 0 || o.Namespace == "s0" || o.Namespace == "s1"
		if !selects || !allowed || refused && refusal != "false" || o.DeletionTimestamp != nil {
			continue
		}
		claims++
		if winner == nil || o.CreationTimestamp.Unix() < winner.CreationTimestamp.Unix() {
			winner, frozen = o, malformed
		}
	}
	switch {
	case s.there != nil && !isCopy:
		return leave, "", claims
	case winner == nil && isCopy:
		return remove, "", 0
	case winner == nil:
		return leave, "", 0
	case frozen:
		return leave, "", claims - 1
	}
	return ensure, winner.Namespace, claims - 1
}
