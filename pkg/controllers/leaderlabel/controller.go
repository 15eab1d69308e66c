// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package leaderlabel

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/incumbent-io/incumbent/pkg/controllers"
)

const (
	// roundTimeout bounds one round, which is not cancelled by the end of the run:
	// it is finished, so that nothing is in flight when Run returns.
	roundTimeout = 5 * time.Second
	// A round that failed is tried again after firstRetry, doubled up to maxRetry,
	// or at once when a labelled Pod changes.
	firstRetry = 100 * time.Millisecond
	maxRetry   = time.Minute
)

// errPodGone means that no Pod in the API is the one that this process runs in.
var errPodGone = errors.New("this process's Pod is gone")

type controller struct {
	clock    clock.Clock
	client   metadata.ResourceInterface
	instance controllers.Instance
	// labelled caches the Pods that have LabelRole=RoleLeader, and replayed tells
	// when its handler has seen them.
	labelled cache.SharedIndexInformer
	replayed cache.DoneChecker
	// changed holds at most one token: a change of a labelled Pod may call for a
	// patch.
	changed chan struct{}

	// Only Run's goroutine uses these. The owner in me is valid once found.
	me    self
	found bool
}

var _ controllers.Controller = (*controller)(nil)

func newController(c *controllers.Context, labelled cache.SharedIndexInformer) (*controller, error) {
	i := c.Instance
	me := self{uid: types.UID(i.PodUID), mark: markOf(i.LeaseNamespace, i.Lease, i.PodNamespace)}
	changed := make(chan struct{}, 1)
	registration, err := labelled.AddEventHandler(handler(me, changed))
	if err != nil {
		return nil, fmt.Errorf("watching the labelled Pods: %w", err)
	}
	return &controller{
		clock:    c.Clock,
		client:   c.Clients.Metadata().Resource(pods).Namespace(i.PodNamespace),
		instance: i,
		labelled: labelled,
		replayed: registration.HasSyncedChecker(),
		changed:  changed,
		me:       me,
	}, nil
}

// handler puts a token into changed when a Pod may need a patch. The echoes of the
// controller's own patches are no such changes.
func handler(me self, changed chan<- struct{}) cache.ResourceEventHandler {
	notice := func(needed bool) {
		if !needed {
			return
		}
		select {
		case changed <- struct{}{}:
		default: // One round answers any number of changes.
		}
	}
	mine := func(object any) bool {
		pod, ok := object.(metav1.Object)
		return ok && pod.GetUID() == me.uid
	}
	concerned := func(object any) bool {
		pod, ok := object.(metav1.Object)
		return ok && me.concerns(pod)
	}
	return cache.ResourceEventHandlerFuncs{
		AddFunc: func(object any) { notice(concerned(object)) },
		UpdateFunc: func(before, after any) {
			replaced := mine(before) && !mine(after)
			notice(replaced || concerned(after))
		},
		DeleteFunc: func(object any) {
			if tombstone, ok := object.(cache.DeletedFinalStateUnknown); ok {
				object = tombstone.Obj
			}
			notice(mine(object))
		},
	}
}

// Run implements controllers.Controller. It returns an error only if this process's
// Pod is gone from the API: then there is nothing that could be labelled.
func (c *controller) Run(ctx context.Context) error {
	logger := klog.FromContext(ctx).WithValues("pod", klog.KRef(c.instance.PodNamespace, c.instance.PodName))
	ctx = klog.NewContext(ctx, logger)
	// What is replayed at the start is in the cache, for the first round to see.
	select {
	case <-c.replayed.Done():
	case <-ctx.Done():
	}
	var retry time.Duration
	for ctx.Err() == nil {
		// Before the round reads the cache: a later change must find room.
		select {
		case <-c.changed:
		default:
		}
		err := c.round(ctx)
		switch {
		case err == nil:
			retry = 0
		case errors.Is(err, errPodGone):
			return err
		case controllers.IsNotLeader(err):
			// The run is ending; the next leader does it.
			<-ctx.Done()
			return nil
		case retry == 0:
			logger.Error(err, "Cannot set the leader label, will retry at growing intervals")
			retry = firstRetry
		default:
			logger.V(3).Info("Still cannot set the leader label", "err", err, "waited", retry)
			retry = min(2*retry, maxRetry)
		}
		c.rest(ctx, retry)
	}
	return nil
}

// rest waits for a change of a labelled Pod, for retry to pass unless it is 0, or
// for the end of ctx.
func (c *controller) rest(ctx context.Context, retry time.Duration) {
	var again <-chan time.Time
	if retry > 0 {
		timer := c.clock.NewTimer(retry)
		defer timer.Stop()
		again = timer.C()
	}
	select {
	case <-ctx.Done():
	case <-c.changed:
	case <-again:
	}
}

// round makes the labels what they should be.
func (c *controller) round(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), roundTimeout)
	defer cancel()
	if err := c.find(ctx); err != nil {
		return err
	}
	// The order matters: nobody is labelled before all others have lost the label,
	// so that a Service never has two leaders.
	labelled, err := c.oust(ctx)
	if err != nil || labelled {
		return err
	}
	return c.label(ctx)
}

// find asks the API server, once in a run, for the Pod of this process. The cache
// does not hold it before it is labelled.
func (c *controller) find(ctx context.Context) error {
	if c.found {
		return nil
	}
	list, err := c.client.List(ctx, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, c.instance.PodName).String(),
	})
	if err != nil {
		return fmt.Errorf("looking up this process's Pod: %w", err)
	}
	for i := range list.Items {
		if pod := &list.Items[i]; pod.UID == c.me.uid {
			c.me.owner, c.found = ownerOf(pod), true
			return nil
		}
	}
	return c.gone()
}

// oust takes the labels from all other Pods that must not have them, and tells
// whether this process's own Pod has them.
func (c *controller) oust(ctx context.Context) (labelled bool, err error) {
	var errs []error
	for _, object := range c.labelled.GetStore().List() {
		pod, ok := object.(metav1.Object)
		if !ok {
			return false, fmt.Errorf("the cache of Pods holds a %T", object)
		}
		labelled = labelled || c.me.labelled(pod)
		if !c.me.ousts(pod) {
			continue
		}
		err := c.patch(ctx, pod.GetName(), pod.GetUID(), map[string]any{LabelRole: nil, LabelLease: nil})
		switch {
		case err == nil:
			klog.FromContext(ctx).Info("Took the leader label from another Pod", "from", klog.KObj(pod), "uid", pod.GetUID())
		case !isAnotherPod(err): // Otherwise that Pod is gone, and its label with it.
			errs = append(errs, fmt.Errorf("taking the label from the Pod %s: %w", klog.KObj(pod), err))
		}
	}
	return labelled, errors.Join(errs...)
}

func (c *controller) label(ctx context.Context) error {
	err := c.patch(ctx, c.instance.PodName, c.me.uid, map[string]any{LabelRole: RoleLeader, LabelLease: c.me.mark})
	if isAnotherPod(err) {
		return c.gone()
	}
	if err != nil {
		return fmt.Errorf("labelling this process's Pod: %w", err)
	}
	klog.FromContext(ctx).Info("Labelled this process's Pod as the leader")
	return nil
}

func (c *controller) patch(ctx context.Context, name string, uid types.UID, labels map[string]any) error {
	_, err := c.client.Patch(ctx, name, types.MergePatchType, labelPatch(uid, labels), metav1.PatchOptions{})
	return err
}

func (c *controller) gone() error {
	return fmt.Errorf("%w: the API has no Pod %s/%s with the UID %s (POD_UID); it was deleted, or replaced by another of its name",
		errPodGone, c.instance.PodNamespace, c.instance.PodName, c.instance.PodUID)
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
