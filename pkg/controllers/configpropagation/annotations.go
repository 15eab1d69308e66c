// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package configpropagation

import (
	"errors"
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

const (
	// AnnotationTo on a ConfigMap or Secret makes it a source. Its value is a label
	// selector for the namespaces to copy it to.
	AnnotationTo = "incumbent.io/propagate-to"
	// AnnotationRefuse on a namespace keeps copies out, and removes those that are there,
	// unless it is "false".
	AnnotationRefuse = "incumbent.io/refuse-propagation"
	// AnnotationStatus is written to a source to say what is wrong. While nothing is, it
	// is not there.
	AnnotationStatus = "incumbent.io/propagation-status"
	// LabelFrom is on every copy. Its value is the namespace of the source.
	LabelFrom = "incumbent.io/propagated-from"
	// AnnotationCopy is on every copy. It names the namespace and name that the copy was
	// made for, and the UID of its source. An object that has been made from a copy by
	// hand, in another place, is no copy by this.
	AnnotationCopy = "incumbent.io/propagated-copy"
)

// meta is all that caches hold of an object.
type meta = metav1.PartialObjectMetadata

// mark returns the AnnotationCopy of the copy of a source in a namespace.
func mark(namespace string, source *meta) string {
	return markPrefix(namespace, source.Name) + string(source.UID)
}

func markPrefix(namespace, name string) string { return namespace + "/" + name + " of " }

// isCopy tells whether the controller has made the object: for others it does not count
// what is in it.
func isCopy(o metav1.Object) bool {
	return o.GetLabels()[LabelFrom] != "" && strings.HasPrefix(o.GetAnnotations()[AnnotationCopy], markPrefix(o.GetNamespace(), o.GetName()))
}

// isCopyOf tells whether the object is marked as the copy of just that source.
func isCopyOf(o, source *meta) bool {
	return o.Labels[LabelFrom] == source.Namespace && o.Annotations[AnnotationCopy] == mark(o.Namespace, source)
}

// isSource tells whether the object asks to be copied, even if in words that nobody
// understands.
func isSource(o metav1.Object) bool {
	_, annotated := o.GetAnnotations()[AnnotationTo]
	return annotated && !isCopy(o)
}

// selectorOf reads AnnotationTo. The error names the value, what is valid, and the fix.
func selectorOf(k kind, source metav1.Object) (labels.Selector, error) {
	value := source.GetAnnotations()[AnnotationTo]
	problem := errors.New("an empty one would select every namespace; to select every one, use " + metav1LabelName)
	selector := labels.Nothing()
	if strings.TrimSpace(value) != "" {
		selector, problem = labels.Parse(value)
	}
	if problem != nil {
		return nil, fmt.Errorf("annotation %s is %q, which is no label selector (%w); want one for labels of namespaces, such as team=a,env!=prod or team in (a,b); fix it with: kubectl annotate %s -n %s %s %s='team=a' --overwrite",
			AnnotationTo, value, problem, k.argument, source.GetNamespace(), source.GetName(), AnnotationTo)
	}
	return selector, nil
}

// metav1LabelName is a label that the API server sets on every namespace.
const metav1LabelName = "kubernetes.io/metadata.name"

// refuses reads AnnotationRefuse. The error is about a value that is taken for "true".
func refuses(namespace metav1.Object) (bool, error) {
	switch value, annotated := namespace.GetAnnotations()[AnnotationRefuse]; {
	case !annotated, value == "false":
		return false, nil
	case value == "true":
		return true, nil
	default:
		return true, fmt.Errorf("annotation %s is %q, want \"true\" or \"false\"; it is taken for \"true\"; fix it with: kubectl annotate namespace %s %s=true --overwrite",
			AnnotationRefuse, value, namespace.GetName(), AnnotationRefuse)
	}
}
