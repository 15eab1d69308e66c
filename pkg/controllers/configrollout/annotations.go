// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package configrollout

import "fmt"

const (
	// AnnotationOptIn on a Deployment, StatefulSet or DaemonSet asks for rollouts if it
	// is "true". "false" is as good as none.
	AnnotationOptIn = "incumbent.io/rollout-on-config-change"
	// AnnotationHash on the Pod template is new with each rollout.
	AnnotationHash = "incumbent.io/config-hash"
	// AnnotationRecord on the workload holds fingerprints of the content that its Pods
	// are known to have been rolled for.
	AnnotationRecord = "incumbent.io/config-record"
	// LabelSeal on the workload tells whether AnnotationRecord is the last one that was
	// written for this very object. It is a label because `kubectl rollout undo` puts a
	// Deployment's former annotations back, but not its labels.
	LabelSeal = "incumbent.io/config-seal"
)

// optedIn reads AnnotationOptIn. The error names the value, what is valid, and the fix.
func optedIn(kind, name string, annotations map[string]string) (bool, error) {
	value, annotated := annotations[AnnotationOptIn]
	switch {
	case !annotated, value == "false":
		return false, nil
	case value == "true":
		return true, nil
	}
	return false, fmt.Errorf(`annotation %s is %q, want "true" or "false"; fix it with: kubectl annotate %s %s %s=true --overwrite`,
		AnnotationOptIn, value, lower(kind), name, AnnotationOptIn)
}
