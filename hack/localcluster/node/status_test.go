// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

//go:build linux

package node

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// containerStatuses makes statuses from words: waiting, running, ready, exit0, exit1, crashing (waits for its restart).
func containerStatuses(words string) []corev1.ContainerStatus {
	var list []corev1.ContainerStatus
	for i, word := range strings.Fields(words) {
		s := corev1.ContainerStatus{Name: fmt.Sprintf("c%d", i)}
		end := func(code int32) corev1.ContainerState {
			return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code}}
		}
		waiting := corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{}}
		switch word {
		case "waiting":
			s.State = waiting
		case "crashing":
			s.State, s.LastTerminationState = waiting, end(1)
		case "running", "ready":
			s.State = corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
			s.Ready = word == "ready"
		case "exit0":
			s.State = end(0)
		case "exit1":
			s.State = end(1)
		default:
			panic(word)
		}
		list = append(list, s)
	}
	return list
}

func TestPodStatus(t *testing.T) {
	const always, onFailure, never = corev1.RestartPolicyAlways, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever
	for _, test := range []struct {
		policy       corev1.RestartPolicy
		inits, mains string
		flags        string // t: terminating, f: finished
		phase        corev1.PodPhase
		conditions   string // those that are true: i(nitialized) c(ontainersReady) r(eady)
	}{
		{always, "", "waiting", "", corev1.PodPending, "i"},
		{always, "", "running", "", corev1.PodRunning, "i"},
		{always, "", "ready", "", corev1.PodRunning, "icr"},
		{always, "", "ready running", "", corev1.PodRunning, "i"},
		{always, "", "ready waiting", "", corev1.PodPending, "i"},
		{always, "", "crashing", "", corev1.PodRunning, "i"},
		{always, "", "exit0", "", corev1.PodRunning, "i"},
		{always, "", "exit1", "", corev1.PodRunning, "i"},
		{onFailure, "", "exit0", "f", corev1.PodSucceeded, "i"},
		{onFailure, "", "exit1", "", corev1.PodRunning, "i"},
		{never, "", "exit0 exit0", "f", corev1.PodSucceeded, "i"},
		{never, "", "exit0 exit1", "f", corev1.PodFailed, "i"},
		{never, "", "exit0 running", "", corev1.PodRunning, "i"},
		{always, "waiting", "waiting", "", corev1.PodPending, ""},
		{always, "exit0 running", "waiting", "", corev1.PodPending, ""},
		{always, "crashing", "waiting", "", corev1.PodPending, ""},
		{always, "exit0", "ready", "", corev1.PodRunning, "icr"},
		{never, "exit1", "waiting", "f", corev1.PodFailed, ""},
		{always, "", "running", "t", corev1.PodRunning, "i"},
		{always, "", "exit0", "tf", corev1.PodSucceeded, "i"},
		{always, "", "exit1", "tf", corev1.PodFailed, "i"},
		{always, "", "crashing", "tf", corev1.PodFailed, "i"},
		{always, "", "waiting", "tf", corev1.PodFailed, "i"},
		{always, "waiting", "waiting", "tf", corev1.PodFailed, ""},
	} {
		pod := testPod()
		pod.Spec.RestartPolicy = test.policy
		s := podStatus(statusInput{
			pod: pod, inits: containerStatuses(test.inits), mains: containerStatuses(test.mains), prepared: true,
			terminating: strings.Contains(test.flags, "t"), finished: strings.Contains(test.flags, "f"), now: metav1.Now(),
		})
		got := ""
		for _, c := range []struct {
			kind   corev1.PodConditionType
			letter string
		}{{corev1.PodInitialized, "i"}, {corev1.ContainersReady, "c"}, {corev1.PodReady, "r"}} {
			if hasTrue(s.Conditions, c.kind) {
				got += c.letter
			}
		}
		if s.Phase != test.phase || got != test.conditions {
			t.Errorf("%s [%s] [%s] %s: got %s %q, want %s %q", test.policy, test.inits, test.mains, test.flags, s.Phase, got, test.phase, test.conditions)
		}
	}
}

func TestReadinessGate(t *testing.T) {
	pod := testPod()
	pod.Spec.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: "example.com/open"}}
	input := statusInput{pod: pod, mains: containerStatuses("ready"), now: metav1.Now()}
	if s := podStatus(input); hasTrue(s.Conditions, corev1.PodReady) || !hasTrue(s.Conditions, corev1.ContainersReady) {
		t.Errorf("a closed gate: got %+v", s.Conditions)
	}
	pod.Status.Conditions = []corev1.PodCondition{{Type: "example.com/open", Status: corev1.ConditionTrue}}
	if s := podStatus(input); !hasTrue(s.Conditions, corev1.PodReady) {
		t.Errorf("an open gate: got %+v", s.Conditions)
	}
}

func TestTransitionTimesAreKept(t *testing.T) {
	first := metav1.NewTime(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	second := metav1.NewTime(first.Add(time.Minute))
	before := podStatus(statusInput{pod: testPod(), mains: containerStatuses("running"), now: first})
	after := podStatus(statusInput{pod: testPod(), mains: containerStatuses("ready"), previous: before.Conditions, now: second})
	for _, c := range after.Conditions {
		want := first
		if c.Type == corev1.PodReady || c.Type == corev1.ContainersReady {
			want = second // these have changed
		}
		if !c.LastTransitionTime.Equal(&want) {
			t.Errorf("%s changed at %s, want %s", c.Type, c.LastTransitionTime, want)
		}
	}
}
