// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

//go:build linux

package node

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// statusInput is all that the status of a Pod follows from.
type statusInput struct {
	pod *corev1.Pod
	// previous holds the conditions whose times of transition are kept.
	previous        []corev1.PodCondition
	inits, mains    []corev1.ContainerStatus
	podIP, hostIP   string
	startTime       metav1.Time
	prepared        bool // volumes and network are there
	terminating     bool // the Pod is being deleted
	finished        bool // no container will run again
	reason, message string
	now             metav1.Time
}

// podStatus computes the status of a Pod.
func podStatus(in statusInput) corev1.PodStatus {
	s := corev1.PodStatus{
		ObservedGeneration:    in.pod.Generation,
		Phase:                 podPhase(in),
		Reason:                in.reason,
		Message:               in.message,
		HostIP:                in.hostIP,
		HostIPs:               []corev1.HostIP{{IP: in.hostIP}},
		StartTime:             &in.startTime,
		InitContainerStatuses: in.inits,
		ContainerStatuses:     in.mains,
	}
	if in.podIP != "" {
		s.PodIP = in.podIP
		s.PodIPs = []corev1.PodIP{{IP: in.podIP}}
	}
	s.Conditions = podConditions(in, s.Phase)
	return s
}

// podPhase follows the kubelet: what counts is which containers have run, run, or will run again.
func podPhase(in statusInput) corev1.PodPhase {
	// A Pod that is being deleted starts nothing again, whatever its restart policy is.
	policy := in.pod.Spec.RestartPolicy
	if in.terminating && in.finished {
		policy = corev1.RestartPolicyNever
	}
	for _, c := range in.inits {
		end := c.State.Terminated
		if end != nil && end.ExitCode == 0 {
			continue
		}
		if end != nil && policy == corev1.RestartPolicyNever {
			return corev1.PodFailed
		}
		if !(in.terminating && in.finished) {
			return corev1.PodPending
		}
	}
	var waiting, running, succeeded, failed int
	for _, c := range in.mains {
		switch {
		case c.State.Running != nil:
			running++
		case c.State.Terminated != nil:
			if c.State.Terminated.ExitCode == 0 {
				succeeded++
			} else {
				failed++
			}
		case c.LastTerminationState.Terminated != nil:
			// Waiting for its restart. If none will come, the last end is what counts.
			if in.finished && policy == corev1.RestartPolicyNever {
				failed++
			} else {
				running++
			}
		default:
			waiting++
		}
	}
	switch {
	case waiting > 0 && in.terminating && in.finished:
		return corev1.PodFailed
	case waiting > 0:
		return corev1.PodPending
	case running > 0:
		return corev1.PodRunning
	case policy == corev1.RestartPolicyAlways:
		return corev1.PodRunning
	case failed > 0 && policy == corev1.RestartPolicyOnFailure:
		return corev1.PodRunning
	case failed > 0:
		return corev1.PodFailed
	case succeeded > 0:
		return corev1.PodSucceeded
	}
	return corev1.PodPending
}

func podConditions(in statusInput, phase corev1.PodPhase) []corev1.PodCondition {
	ended := phase == corev1.PodSucceeded || phase == corev1.PodFailed
	// verdict is a condition that is true when nothing speaks against it.
	verdict := func(kind corev1.PodConditionType, ok bool, reason, message string) corev1.PodCondition {
		c := corev1.PodCondition{Type: kind, Status: corev1.ConditionTrue, ObservedGeneration: in.pod.Generation}
		if !ok {
			c.Status, c.Reason, c.Message = corev1.ConditionFalse, reason, message
		}
		return c
	}
	var uninitialized, unready []string
	for _, c := range in.inits {
		if c.State.Terminated == nil || c.State.Terminated.ExitCode != 0 {
			uninitialized = append(uninitialized, c.Name)
		}
	}
	for _, c := range in.mains {
		if !c.Ready {
			unready = append(unready, c.Name)
		}
	}
	initialized := verdict(corev1.PodInitialized, len(uninitialized) == 0, "ContainersNotInitialized",
		fmt.Sprintf("containers with incomplete status: [%s]", strings.Join(uninitialized, " ")))
	containersReady := verdict(corev1.ContainersReady, len(unready) == 0 && len(in.mains) > 0, "ContainersNotReady",
		fmt.Sprintf("containers with unready status: [%s]", strings.Join(unready, " ")))
	if ended {
		reason := "PodCompleted"
		if phase == corev1.PodFailed {
			reason = "PodFailed"
		}
		containersReady = verdict(corev1.ContainersReady, false, reason, "")
		if phase == corev1.PodSucceeded {
			initialized.Reason = reason
		}
	}
	ready := containersReady
	ready.Type = corev1.PodReady
	if ready.Status == corev1.ConditionTrue {
		for _, gate := range in.pod.Spec.ReadinessGates {
			if !hasTrue(in.pod.Status.Conditions, gate.ConditionType) {
				ready = verdict(corev1.PodReady, false, "ReadinessGatesNotReady",
					fmt.Sprintf("corresponding condition of pod readiness gate %q is not True", gate.ConditionType))
			}
		}
	}
	conditions := []corev1.PodCondition{
		verdict(corev1.PodReadyToStartContainers, in.prepared && !in.finished, "", ""),
		initialized, ready, containersReady,
		verdict(corev1.PodScheduled, true, "", ""),
	}
	for i := range conditions {
		conditions[i].LastTransitionTime = in.now
		for _, old := range in.previous {
			if old.Type == conditions[i].Type && old.Status == conditions[i].Status {
				conditions[i].LastTransitionTime = old.LastTransitionTime
			}
		}
	}
	return conditions
}

func hasTrue(conditions []corev1.PodCondition, kind corev1.PodConditionType) bool {
	for _, c := range conditions {
		if c.Type == kind {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}
