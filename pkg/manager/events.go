// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package manager

import (
	"context"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/client-go/util/flowcontrol"
	"k8s.io/klog/v2"
)

// eventQPS and eventBurst limit Events apart from the controllers' own requests.
const (
	eventQPS   = 10
	eventBurst = 50
)

// eventSource records Kubernetes Events. Its client is not fenced: an Event says
// what happened and changes nothing that a controller works on.
type eventSource struct {
	broadcaster events.EventBroadcaster
}

func newEventSource(config *rest.Config) (*eventSource, error) {
	config = rest.CopyConfig(config)
	config.RateLimiter = flowcontrol.NewTokenBucketRateLimiter(eventQPS, eventBurst)
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	return &eventSource{broadcaster: events.NewBroadcaster(&events.EventSinkImpl{Interface: client.EventsV1()})}, nil
}

// start sends Events until ctx ends.
func (s *eventSource) start(ctx context.Context) {
	if err := s.broadcaster.StartRecordingToSinkWithContext(ctx); err != nil {
		klog.FromContext(ctx).Error(err, "Events are not recorded")
	}
	context.AfterFunc(ctx, s.broadcaster.Shutdown)
}

// recorderFor returns what gives a controller its recorders.
func (s *eventSource) recorderFor(controller string) func(*runtime.Scheme) events.EventRecorder {
	return func(scheme *runtime.Scheme) events.EventRecorder {
		return s.broadcaster.NewRecorder(scheme, controller)
	}
}

// leaseRecorder returns the recorder of Events on the Lease.
func (s *eventSource) leaseRecorder(manager string) resourcelock.EventRecorder {
	return leaseRecorder{s.broadcaster.NewRecorder(scheme.Scheme, manager)}
}

// leaseRecorder gives an events.k8s.io recorder the shape that leader election in
// client-go knows.
type leaseRecorder struct{ recorder events.EventRecorder }

func (r leaseRecorder) Eventf(object runtime.Object, eventType, reason, message string, args ...any) {
	r.recorder.Eventf(object, nil, eventType, reason, "LeaderElection", message, args...)
}
