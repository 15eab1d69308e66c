// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

// Package expiry is the controller that deletes workspaces whose time is over, and says
// before when that will be.
package expiry

import (
	"context"
	"encoding/json"
	"time"

	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"

	"github.com/incumbent-io/incumbent/pkg/controllers"
	"github.com/incumbent-io/incumbent/pkg/reconciler"

	"example.com/workspace-manager/api"
)

// Options are the settings of the controller.
type Options struct {
	// MaxAge is how long any workspace may live, whatever it says itself. 0: for ever.
	MaxAge metav1.Duration `json:"maxAge"`
}

// AddFlags implements controllers.Options.
func (o *Options) AddFlags(flags *pflag.FlagSet) {
	flags.DurationVar(&o.MaxAge.Duration, "max-age", o.MaxAge.Duration, "How long any workspace may live, whatever it says itself. 0: for ever.")
}

// Validate implements controllers.Options.
func (o *Options) Validate(path *field.Path) (errs field.ErrorList) {
	if o.MaxAge.Duration < 0 {
		errs = append(errs, field.Invalid(path.Child("maxAge"), o.MaxAge.Duration.String(), "want a duration such as 720h, or 0 for no limit"))
	}
	return errs
}

// Descriptor registers the controller.
func Descriptor() controllers.Registration {
	return controllers.Descriptor[*Options]{
		Name:    "workspace-expiry",
		Summary: "Deletes workspaces whose time is over.",
		Options: func() *Options { return &Options{} },
		Access: func(*Options) []controllers.Access {
			return []controllers.Access{
				{Resource: api.Resource, Verbs: []string{"list", "watch", "delete"}},
				{Resource: api.Status, Verbs: []string{"patch"}},
			}
		},
		Init: build,
	}
}

type loop struct {
	maxAge     time.Duration
	workspaces api.Lister
	client     dynamic.NamespaceableResourceInterface
	events     events.EventRecorder
	clock      clock.PassiveClock
}

func build(_ context.Context, c *controllers.Context, o *Options) (controllers.Controller, error) {
	workspaces := c.Informers.Dynamic(api.Resource) // the same cache that the other controller has
	l := &loop{
		maxAge:     o.MaxAge.Duration,
		workspaces: api.Lister{GenericLister: workspaces.Lister()},
		client:     c.Clients.Dynamic().Resource(api.Resource),
		events:     c.Events(scheme.Scheme),
		clock:      c.Clock,
	}
	return reconciler.New(reconciler.Config[cache.ObjectName]{
		Name:      c.Name,
		Reconcile: l.reconcile,
		Watches:   []reconciler.Watch[cache.ObjectName]{reconciler.Self[*unstructured.Unstructured](workspaces.Informer())},
		Metrics:   c.Metrics,
		Tracer:    c.Tracer,
		Clock:     c.Clock,
	})
}

func (l *loop) reconcile(ctx context.Context, key cache.ObjectName) (reconciler.Result, error) {
	workspace, err := l.workspaces.Get(key.Name)
	if apierrors.IsNotFound(err) {
		return reconciler.Result{}, nil
	}
	if err != nil || workspace.DeletionTimestamp != nil {
		return reconciler.Result{}, err
	}
	deadline := l.deadline(workspace)
	if !deadline.Equal(workspace.Status.ExpiresAt) {
		if err := l.announce(ctx, workspace, deadline); err != nil {
			return reconciler.Result{}, err
		}
	}
	if deadline == nil {
		return reconciler.Result{}, nil
	}
	if left := deadline.Sub(l.clock.Now()); left > 0 {
		return reconciler.Result{RequeueAfter: left}, nil
	}
	// Not one that was made anew under the same name since the cache was told.
	err = l.client.Delete(ctx, workspace.Name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(workspace.UID))})
	if err != nil && !apierrors.IsNotFound(err) {
		return reconciler.Result{}, err
	}
	l.events.Eventf(workspace.Reference(), nil, corev1.EventTypeNormal, "Expired", "Delete", "Deleted: its time was over at %s", deadline.UTC().Format(time.RFC3339))
	return reconciler.Result{}, nil
}

// deadline is when the workspace is to be deleted; nil: never.
func (l *loop) deadline(workspace *api.Workspace) *metav1.Time {
	after := l.maxAge
	if own := workspace.Spec.ExpiresAfter; own != nil && (after == 0 || own.Duration < after) {
		after = own.Duration
	}
	if after == 0 {
		return nil
	}
	return &metav1.Time{Time: workspace.CreationTimestamp.Add(after).Truncate(time.Second)} // as precise as the API is
}

// announce writes the deadline into the status; the other fields there are not ours.
func (l *loop) announce(ctx context.Context, workspace *api.Workspace, deadline *metav1.Time) error {
	content, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": workspace.UID},
		"status":   map[string]any{"expiresAt": deadline},
	})
	if err != nil {
		return err
	}
	_, err = l.client.Patch(ctx, workspace.Name, types.MergePatchType, content, metav1.PatchOptions{}, "status")
	return err
}
