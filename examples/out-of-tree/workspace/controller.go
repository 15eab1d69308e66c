// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

// Package workspace is the controller that gives each Workspace its namespace, with a
// quota in it. The namespace goes before its workspace does, and one of the same name
// that belongs to somebody else is never touched.
package workspace

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	applymetav1 "k8s.io/client-go/applyconfigurations/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	listers "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"

	"github.com/incumbent-io/incumbent/pkg/clients"
	"github.com/incumbent-io/incumbent/pkg/controllers"
	"github.com/incumbent-io/incumbent/pkg/reconciler"

	"example.com/workspace-manager/api"
)

const (
	// Finalizer keeps a workspace until its namespace has gone.
	Finalizer = "example.com/namespace"
	// Label is on all that belongs to a workspace; its value is the workspace's name.
	Label = "example.com/workspace"
	// quotaName is the name of the quota in each namespace.
	quotaName = "workspace"
)

// Options are the settings of the controller.
type Options struct {
	// Workers is how many workspaces are reconciled at the same time.
	Workers int `json:"workers"`
}

// AddFlags implements controllers.Options.
func (o *Options) AddFlags(flags *pflag.FlagSet) {
	flags.IntVar(&o.Workers, "workers", o.Workers, "How many workspaces are reconciled at the same time.")
}

// Validate implements controllers.Options.
func (o *Options) Validate(path *field.Path) (errs field.ErrorList) {
	if o.Workers < 1 {
		errs = append(errs, field.Invalid(path.Child("workers"), o.Workers, "want 1 or more"))
	}
	return errs
}

// Descriptor registers the controller.
func Descriptor() controllers.Registration {
	return controllers.Descriptor[*Options]{
		Name:    "workspace",
		Summary: "Gives each Workspace its namespace, with a quota in it.",
		Options: func() *Options { return &Options{Workers: 2} },
		Access: func(*Options) []controllers.Access {
			return []controllers.Access{
				{Resource: api.Resource, Verbs: []string{"list", "watch", "patch"}},
				{Resource: api.Status, Verbs: []string{"patch"}},
				{Resource: api.Finalizers, Verbs: []string{"update"}},
				{Resource: corev1.SchemeGroupVersion.WithResource("namespaces"), Verbs: []string{"list", "watch", "create", "delete"}},
				{Resource: corev1.SchemeGroupVersion.WithResource("resourcequotas"), Verbs: []string{"list", "watch", "create", "patch"}},
			}
		},
		Init: build,
	}
}

// loop reads from caches, and writes through clients.
type loop struct {
	workspaces api.Lister
	namespaces listers.NamespaceLister
	quotas     listers.ResourceQuotaLister

	client  kubernetes.Interface
	dynamic dynamic.NamespaceableResourceInterface
	events  events.EventRecorder
	clock   clock.PassiveClock
}

func build(_ context.Context, c *controllers.Context, o *Options) (controllers.Controller, error) {
	workspaces := c.Informers.Dynamic(api.Resource)
	namespaces := c.Informers.Typed().Core().V1().Namespaces()
	// Of the quotas, only ours are cached.
	quotas := c.Informers.In(clients.Scope{LabelSelector: Label}).Typed().Core().V1().ResourceQuotas()
	l := &loop{
		workspaces: api.Lister{GenericLister: workspaces.Lister()},
		namespaces: namespaces.Lister(),
		quotas:     quotas.Lister(),
		client:     c.Clients.Kubernetes(),
		dynamic:    c.Clients.Dynamic().Resource(api.Resource),
		events:     c.Events(scheme.Scheme),
		clock:      c.Clock,
	}
	return reconciler.New(reconciler.Config[cache.ObjectName]{
		Name:      c.Name,
		Reconcile: l.reconcile,
		Workers:   o.Workers,
		Watches: []reconciler.Watch[cache.ObjectName]{
			reconciler.Self[*unstructured.Unstructured](workspaces.Informer()),
			reconciler.Each(namespaces.Informer(), byName),
			reconciler.Each(quotas.Informer(), byLabel),
		},
		Metrics: c.Metrics,
		Tracer:  c.Tracer,
		Clock:   c.Clock,
	})
}

// byName finds the workspace that a namespace is for, or that it is in the way of.
func byName(namespace *corev1.Namespace) []cache.ObjectName {
	name, ours := strings.CutPrefix(namespace.Name, api.NamespacePrefix)
	if !ours {
		return nil
	}
	return []cache.ObjectName{{Name: name}}
}

func byLabel(quota *corev1.ResourceQuota) []cache.ObjectName {
	return []cache.ObjectName{{Name: quota.Labels[Label]}}
}

// reconcile brings one workspace forward. What it writes comes back as an event, which
// calls it again.
func (l *loop) reconcile(ctx context.Context, key cache.ObjectName) (reconciler.Result, error) {
	workspace, err := l.workspaces.Get(key.Name)
	switch {
	case apierrors.IsNotFound(err):
		return reconciler.Result{}, nil
	case err != nil:
		return reconciler.Result{}, err
	case workspace.DeletionTimestamp != nil:
		return reconciler.Result{}, l.dismantle(ctx, workspace)
	case !slices.Contains(workspace.Finalizers, Finalizer):
		return reconciler.Result{}, l.setFinalizers(ctx, workspace, append(workspace.Finalizers, Finalizer))
	}
	namespace, err := l.namespaces.Get(workspace.NamespaceName())
	switch {
	case apierrors.IsNotFound(err):
		return reconciler.Result{}, l.create(ctx, workspace)
	case err != nil:
		return reconciler.Result{}, err
	case !metav1.IsControlledBy(namespace, workspace):
		return reconciler.Result{}, l.report(ctx, workspace, metav1.ConditionFalse, "Conflict", fmt.Sprintf("namespace %s is there and does not belong to this workspace; delete one of the two", namespace.Name))
	case namespace.DeletionTimestamp != nil:
		return reconciler.Result{}, l.report(ctx, workspace, metav1.ConditionFalse, "Terminating", fmt.Sprintf("namespace %s is being deleted, and will be made anew", namespace.Name))
	}
	if err := l.limit(ctx, workspace); err != nil {
		return reconciler.Result{}, err
	}
	return reconciler.Result{}, l.report(ctx, workspace, metav1.ConditionTrue, "Created", fmt.Sprintf("namespace %s is there, for %d Pods", namespace.Name, workspace.Spec.MaxPods))
}

// create makes the namespace. It does not apply one: that could take over another's. If
// there is one by now, ours or not, the cache will tell.
func (l *loop) create(ctx context.Context, workspace *api.Workspace) error {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name:            workspace.NamespaceName(),
		Labels:          map[string]string{Label: workspace.Name},
		OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(workspace, api.Kind)},
	}}
	_, err := l.client.CoreV1().Namespaces().Create(ctx, namespace, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// limit has the quota say what the workspace says.
func (l *loop) limit(ctx context.Context, workspace *api.Workspace) error {
	namespace, pods := workspace.NamespaceName(), *resource.NewQuantity(workspace.Spec.MaxPods, resource.DecimalSI)
	quota, err := l.quotas.ResourceQuotas(namespace).Get(quotaName)
	switch {
	case err != nil && !apierrors.IsNotFound(err):
		return err
	case err == nil && quota.Spec.Hard.Pods().Equal(pods) && metav1.IsControlledBy(quota, workspace):
		return nil
	}
	owner := metav1.NewControllerRef(workspace, api.Kind)
	want := applycorev1.ResourceQuota(quotaName, namespace).
		WithLabels(map[string]string{Label: workspace.Name}).
		WithOwnerReferences(applymetav1.OwnerReference().
			WithAPIVersion(owner.APIVersion).WithKind(owner.Kind).WithName(owner.Name).WithUID(owner.UID).
			WithController(true).WithBlockOwnerDeletion(true)).
		WithSpec(applycorev1.ResourceQuotaSpec().WithHard(corev1.ResourceList{corev1.ResourcePods: pods}))
	_, err = l.client.CoreV1().ResourceQuotas(namespace).Apply(ctx, want, metav1.ApplyOptions{FieldManager: "workspace-manager", Force: true})
	return err
}

// dismantle deletes the namespace, and lets the workspace go once it has gone.
func (l *loop) dismantle(ctx context.Context, workspace *api.Workspace) error {
	if !slices.Contains(workspace.Finalizers, Finalizer) {
		return nil // others still hold it
	}
	namespace, err := l.namespaces.Get(workspace.NamespaceName())
	switch {
	case apierrors.IsNotFound(err), err == nil && !metav1.IsControlledBy(namespace, workspace):
		// If the cache is behind and there is one: its owner reference has it collected.
		return l.setFinalizers(ctx, workspace, slices.DeleteFunc(workspace.Finalizers, func(f string) bool { return f == Finalizer }))
	case err != nil:
		return err
	case namespace.DeletionTimestamp == nil:
		err := l.client.CoreV1().Namespaces().Delete(ctx, namespace.Name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(namespace.UID))})
		if err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	return l.report(ctx, workspace, metav1.ConditionFalse, "Dismantling", fmt.Sprintf("namespace %s is being deleted", namespace.Name))
}

// report writes the condition Ready, and an Event if its reason has changed. The resource
// version has it fail, and be tried again, if the cache is behind: otherwise the Event
// would be told twice.
func (l *loop) report(ctx context.Context, workspace *api.Workspace, status metav1.ConditionStatus, reason, message string) error {
	conditions := slices.Clone(workspace.Status.Conditions)
	changed := meta.SetStatusCondition(&conditions, metav1.Condition{
		Type: api.Ready, Status: status, Reason: reason, Message: message,
		ObservedGeneration: workspace.Generation, LastTransitionTime: metav1.NewTime(l.clock.Now()),
	})
	if !changed && workspace.Status.Namespace == workspace.NamespaceName() {
		return nil
	}
	content := map[string]any{
		"metadata": map[string]any{"uid": workspace.UID, "resourceVersion": workspace.ResourceVersion},
		"status":   map[string]any{"namespace": workspace.NamespaceName(), "conditions": conditions},
	}
	if err := l.patch(ctx, workspace.Name, content, "status"); err != nil {
		return err
	}
	if before := meta.FindStatusCondition(workspace.Status.Conditions, api.Ready); before == nil || before.Reason != reason {
		kind := corev1.EventTypeNormal
		if reason == "Conflict" {
			kind = corev1.EventTypeWarning
		}
		l.events.Eventf(workspace.Reference(), nil, kind, reason, "Reconcile", "%s", message)
	}
	return nil
}

// setFinalizers replaces the finalizers, unless somebody has changed the workspace.
func (l *loop) setFinalizers(ctx context.Context, workspace *api.Workspace, finalizers []string) error {
	err := l.patch(ctx, workspace.Name, map[string]any{"metadata": map[string]any{
		"uid": workspace.UID, "resourceVersion": workspace.ResourceVersion, "finalizers": finalizers,
	}})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

func (l *loop) patch(ctx context.Context, name string, content map[string]any, subresources ...string) error {
	data, err := json.Marshal(content)
	if err != nil {
		return err
	}
	_, err = l.dynamic.Patch(ctx, name, types.MergePatchType, data, metav1.PatchOptions{}, subresources...)
	return err
}
