// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package leaderlabel

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"

	"github.com/incumbent-io/incumbent/pkg/clients"
	"github.com/incumbent-io/incumbent/pkg/controllers"
	"github.com/incumbent-io/incumbent/pkg/reconciler"
)

const (
	// roundTimeout bounds the requests of one round.
	roundTimeout = 5 * time.Second
	// A round that failed is tried again after firstRetry, doubled up to maxRetry,
	// or at once when a labelled Pod changes.
	firstRetry = 100 * time.Millisecond
	maxRetry   = time.Minute
	// recheck is when a round follows without a change: a watch can miss one, if etcd
	// was restored from a backup.
	recheck = 5 * time.Minute
)

// errPodGone means that no Pod in the API is the one that this process runs in.
var errPodGone = errors.New("this process's Pod is gone")

// selector finds the Pods that have the label.
const selector = LabelRole + "=" + RoleLeader

type controller struct {
	client   metadata.ResourceInterface
	instance controllers.Instance
}

func build(_ context.Context, c *controllers.Context, _ controllers.NoOptions) (controllers.Controller, error) {
	i := c.Instance
	if reason := skipReason(i); reason != "" {
		return nil, controllers.Skip(reason)
	}
	label := &controller{client: c.Clients.Metadata().Resource(pods).Namespace(i.PodNamespace), instance: i}
	labelled := c.Informers.In(clients.Scope{Namespace: i.PodNamespace, LabelSelector: selector}).Metadata(pods).Informer()
	// All events call for one and the same: a round. The first is due without any.
	self := cache.ObjectName{Namespace: i.PodNamespace, Name: i.PodName}
	first := make(chan cache.ObjectName, 1)
	first <- self
	close(first)
	return reconciler.New(reconciler.Config[cache.ObjectName]{
		Name:      c.Name,
		Reconcile: label.round,
		Watches: []reconciler.Watch[cache.ObjectName]{
			reconciler.Channel(first),
			reconciler.Each(labelled, func(*metav1.PartialObjectMetadata) []cache.ObjectName { return []cache.ObjectName{self} }, relabelled),
		},
		Timeout:     roundTimeout,
		RateLimiter: workqueue.NewTypedItemExponentialFailureRateLimiter[cache.ObjectName](firstRetry, maxRetry),
		Metrics:     c.Metrics,
		Tracer:      c.Tracer,
		Clock:       c.Clock,
	})
}

// relabelled leaves out what a Pod's status brings.
func relabelled(before, after *metav1.PartialObjectMetadata) bool {
	return before.UID != after.UID || !maps.Equal(before.Labels, after.Labels)
}

// round makes the labels what they should be. It asks the API server and not the cache,
// which does not hold this process's Pod before it is labelled, and may be behind.
func (c *controller) round(ctx context.Context, _ cache.ObjectName) (reconciler.Result, error) {
	own, err := c.own(ctx)
	if err != nil {
		return reconciler.Result{}, err
	}
	me := selfOf(c.instance, own)
	// The order matters: nobody is labelled before all others have lost the label,
	// so that a Service never has two leaders.
	if err := c.oust(ctx, me); err != nil {
		return reconciler.Result{}, err
	}
	if !me.labelled(own) {
		if err := c.label(ctx, me); err != nil {
			return reconciler.Result{}, err
		}
	}
	return reconciler.Result{RequeueAfter: recheck}, nil
}

// own returns the Pod of this process.
func (c *controller) own(ctx context.Context) (*metav1.PartialObjectMetadata, error) {
	list, err := c.client.List(ctx, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, c.instance.PodName).String(),
	})
	if err != nil {
		return nil, fmt.Errorf("looking up this process's Pod: %w", err)
	}
	for i := range list.Items {
		if pod := &list.Items[i]; string(pod.UID) == c.instance.PodUID {
			return pod, nil
		}
	}
	return nil, c.gone()
}

// oust takes the labels from all other Pods that must not have them.
func (c *controller) oust(ctx context.Context, me self) error {
	list, err := c.client.List(ctx, metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		return fmt.Errorf("listing the labelled Pods: %w", err)
	}
	var errs []error
	for i := range list.Items {
		pod := &list.Items[i]
		if !me.ousts(pod) {
			continue
		}
		// Of that version: it may be labelled as the leader of something else by now.
		err := c.patch(ctx, pod.Name, labelPatch(pod.UID, pod.ResourceVersion, map[string]any{LabelRole: nil, LabelLease: nil}))
		switch {
		case err == nil:
			klog.FromContext(ctx).Info("Took the leader label from another Pod", "from", klog.KObj(pod), "uid", pod.UID)
		case !isAnotherPod(err): // Otherwise that Pod is gone, and its label with it.
			errs = append(errs, fmt.Errorf("taking the label from the Pod %s: %w", klog.KObj(pod), err))
		}
	}
	return errors.Join(errs...)
}

func (c *controller) label(ctx context.Context, me self) error {
	err := c.patch(ctx, c.instance.PodName, labelPatch(me.uid, "", map[string]any{LabelRole: RoleLeader, LabelLease: me.mark}))
	if isAnotherPod(err) {
		return c.gone()
	}
	if err != nil {
		return fmt.Errorf("labelling this process's Pod: %w", err)
	}
	klog.FromContext(ctx).Info("Labelled this process's Pod as the leader")
	return nil
}

func (c *controller) patch(ctx context.Context, name string, patch []byte) error {
	_, err := c.client.Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{})
	return err
}

// gone ends the run: without its Pod there is nothing that could be labelled.
func (c *controller) gone() error {
	return reconciler.Fatal(fmt.Errorf("%w: the API has no Pod %s/%s with the UID %s (POD_UID); it was deleted, or replaced by another of its name",
		errPodGone, c.instance.PodNamespace, c.instance.PodName, c.instance.PodUID))
}

// isAnotherPod tells whether a patch failed because there is no Pod of that name with
// the UID that the patch carries.
func isAnotherPod(err error) bool {
	if apierrors.IsNotFound(err) {
		return true
	}
	// To the API server a patch of metadata.uid is an attempt to change it.
	var status apierrors.APIStatus
	if !apierrors.IsInvalid(err) || !errors.As(err, &status) || status.Status().Details == nil {
		return false
	}
	return slices.ContainsFunc(status.Status().Details.Causes, func(cause metav1.StatusCause) bool {
		return cause.Field == "metadata.uid"
	})
}
