// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package configpropagation

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"github.com/incumbent-io/incumbent/pkg/reconciler"
)

const (
	// statusPause is how long the status of a source stays as it is after it has been
	// written, and how long it waits for targets that have not been judged.
	statusPause = time.Second
	// maxNote is how many bytes of a note the API accepts, maxReason how many of a reason
	// are told, and maxNamed how many namespaces are named.
	maxNote   = 1024
	maxReason = 300
	maxNamed  = 10
)

// announcement is what this run remembers of a source. It belongs to the worker that has
// its key.
type announcement struct {
	at time.Time // of the last write
}

// tell writes AnnotationStatus of a source, and an Event with it: the annotation is
// there for those who look later, and remembers what Events have told.
func (c *controller) tell(ctx context.Context, of id) (reconciler.Result, error) {
	ctx = klog.NewContext(ctx, klog.FromContext(ctx).WithValues("kind", of.kind, "source", klog.KRef(of.namespace, of.name)))
	k := c.kinds[of.kind]
	o, err := cached(c.objects[of.kind], of.namespace, of.name)
	if err != nil {
		return reconciler.Result{}, err
	}
	if o == nil || !isSource(o) {
		c.forget(of)
	}
	if o == nil || o.DeletionTimestamp != nil {
		return reconciler.Result{}, nil
	}
	reason, status, known := c.statusOf(k, o)
	if !known {
		return reconciler.Result{RequeueAfter: statusPause}, nil
	}
	before, said := o.Annotations[AnnotationStatus]
	if before == status && said == (status != "") {
		return reconciler.Result{}, nil
	}
	a := c.announcement(of)
	if wait := a.at.Add(statusPause).Sub(c.clock.Now()); wait > 0 {
		return reconciler.Result{RequeueAfter: wait}, nil
	}
	version, err := c.writeStatus(ctx, k, o, status)
	if apierrors.IsNotFound(err) {
		return reconciler.Result{}, nil
	}
	if err != nil {
		return reconciler.Result{}, fmt.Errorf("writing the status: %w", err)
	}
	a.at = c.clock.Now()
	klog.FromContext(ctx).V(2).Info("Wrote status", "status", status)
	c.announce(k, o, version, reason, status)
	return reconciler.Result{RequeueAfter: statusPause}, nil
}

// announce makes an Event of a new status. The reference has the version, because Events
// that differ in their notes only are merged.
func (c *controller) announce(k kind, o *meta, version, reason, status string) {
	eventType := corev1.EventTypeWarning
	switch {
	case status == "" && !isSource(o):
		return
	case status == "":
		eventType, status = corev1.EventTypeNormal, "Copied to every namespace that is selected"
	}
	c.recorder.Eventf(&corev1.ObjectReference{
		APIVersion: "v1", Kind: k.name, Namespace: o.Namespace, Name: o.Name, UID: o.UID, ResourceVersion: version,
	}, nil, eventType, reason, "Propagate", "%s", cut(status, maxNote))
}

// Reasons of Events about sources.
const (
	reasonInvalid = "InvalidSource"
	reasonNotAll  = "NotPropagated"
	reasonAll     = "Propagated"
)

// statusOf returns what AnnotationStatus is to be; "" is none. It is not known as long as
// there are targets that have not been judged.
func (c *controller) statusOf(k kind, o *meta) (reason, status string, known bool) {
	_, asks := o.Annotations[AnnotationTo]
	if !asks {
		return reasonAll, "", true
	}
	if isCopy(o) {
		return reasonInvalid, fmt.Sprintf("not copied: it is itself a copy, of %s %s/%s; annotate that one, and remove the annotation %s here", k.name, o.Labels[LabelFrom], o.Name, AnnotationTo), true
	}
	if !c.rules.maySource(o.Namespace) {
		return reasonInvalid, fmt.Sprintf("not copied: of namespace %s nothing is copied, only of %s; move it there, or have %s added to --%s-source-namespaces",
			o.Namespace, strings.Join(c.rules.sourceNamespaces, ", "), o.Namespace, Name), true
	}
	if _, err := selectorOf(k, o); err != nil {
		return reasonInvalid, "its copies stay as they are: " + err.Error(), true
	}
	problems, known := c.problemsOf(k, o)
	if len(problems) == 0 {
		return reasonAll, "", known
	}
	return reasonNotAll, list(problems), known
}

// problemsOf returns, by namespace, why a source is not copied there.
func (c *controller) problemsOf(k kind, source *meta) (problems map[string]string, known bool) {
	var claimed []id
	for _, found := range c.namespaces.GetStore().List() {
		namespace, ok := found.(*meta)
		if ok && namespace.DeletionTimestamp == nil && c.rules.claims(source, situation{kind: k, namespace: namespace}) {
			claimed = append(claimed, id{k.name, namespace.Name, source.Name})
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	problems = map[string]string{}
	for _, at := range claimed {
		t := c.targets[at]
		if t == nil || t.problems == nil {
			return nil, false
		}
		if problem := t.problems[source.Namespace]; problem != "" {
			problems[at.namespace] = problem
		}
	}
	return problems, true
}

func list(problems map[string]string) string {
	var text strings.Builder
	fmt.Fprintf(&text, "not copied to %d of the selected namespaces: ", len(problems))
	for i, namespace := range slices.Sorted(maps.Keys(problems)) {
		switch {
		case i == maxNamed:
			fmt.Fprintf(&text, "; and %d more", len(problems)-maxNamed)
			return text.String()
		case i > 0:
			text.WriteString("; ")
		}
		fmt.Fprintf(&text, "%s: %s", namespace, problems[namespace])
	}
	return text.String()
}

// writeStatus is the only write to an object that is no copy.
func (c *controller) writeStatus(ctx context.Context, k kind, o *meta, status string) (version string, err error) {
	var value any // nil removes it
	if status != "" {
		value = status
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"uid": o.UID, "resourceVersion": o.ResourceVersion, "annotations": map[string]any{AnnotationStatus: value},
	}})
	if err != nil {
		return "", err
	}
	written, err := c.metadata.Resource(k.resource).Namespace(o.Namespace).Patch(ctx, o.Name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: applyOptions.FieldManager})
	if err != nil {
		return "", err
	}
	return written.ResourceVersion, nil
}

// warn tells of a malformed AnnotationRefuse, once in this run for each value.
func (c *controller) warn(of id) error {
	namespace, err := cached(c.namespaces, "", of.name)
	if err != nil {
		return err
	}
	var problem error
	if namespace != nil {
		_, problem = refuses(namespace)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if problem == nil {
		delete(c.warned, of)
		return nil
	}
	said := string(namespace.UID) + " " + problem.Error()
	if c.warned[of] == said {
		return nil
	}
	c.warned[of] = said
	c.recorder.Eventf(&corev1.ObjectReference{
		APIVersion: "v1", Kind: namespaceKind, Name: namespace.Name, UID: namespace.UID, ResourceVersion: namespace.ResourceVersion,
	}, nil, corev1.EventTypeWarning, "InvalidAnnotation", "Refuse", "%s", cut(problem.Error(), maxNote))
	return nil
}

func (c *controller) announcement(of id) *announcement {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sources[of] == nil {
		c.sources[of] = &announcement{}
	}
	return c.sources[of]
}

// forget drops what is remembered of one that is no source.
func (c *controller) forget(of id) {
	c.reader.forget(of)
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.sources, of)
}
