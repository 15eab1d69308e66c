// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package manager

import (
	"context"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/client-go/util/flowcontrol"
	"k8s.io/klog/v2"

	"github.com/incumbent-io/incumbent/pkg/controllers/runner"
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
	own         events.EventRecorder // the manager's
}

func newEventSource(manager string, config *rest.Config) (*eventSource, error) {
	config = rest.CopyConfig(config)
	config.RateLimiter = flowcontrol.NewTokenBucketRateLimiter(eventQPS, eventBurst)
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	broadcaster := events.NewBroadcaster(&events.EventSinkImpl{Interface: client.EventsV1()})
	return &eventSource{broadcaster: broadcaster, own: broadcaster.NewRecorder(scheme.Scheme, manager)}, nil
}

// start sends Events until ctx ends.
func (s *eventSource) start(ctx context.Context) {
	sending, cancel := context.WithCancel(context.WithoutCancel(ctx))
	if err := s.broadcaster.StartRecordingToSinkWithContext(sending); err != nil {
		klog.FromContext(ctx).Error(err, "Events are not recorded")
	}
	context.AfterFunc(ctx, func() {
		s.broadcaster.Shutdown()
		time.AfterFunc(time.Second, cancel) // what is on its way may arrive
	})
}

// recorderFor returns what gives a controller its recorders.
func (s *eventSource) recorderFor(controller string) func(*runtime.Scheme) events.EventRecorder {
	return func(scheme *runtime.Scheme) events.EventRecorder {
		return s.broadcaster.NewRecorder(scheme, controller)
	}
}

// leaseRecorder returns the recorder of Events on the Lease.
func (s *eventSource) leaseRecorder() resourcelock.EventRecorder { return leaseRecorder{s.own} }

// leaseRecorder gives an events.k8s.io recorder the shape that leader election in
// client-go knows.
type leaseRecorder struct{ recorder events.EventRecorder }

func (r leaseRecorder) Eventf(object runtime.Object, eventType, reason, message string, args ...any) {
	r.recorder.Eventf(object, nil, eventType, reason, "LeaderElection", message, args...)
}

// record records an Event by the part of the manager, or the controller, that is
// called reporter. Of one reporter, Events with the same reason on the same object
// count as one that repeats itself. It does nothing without an object.
func (s *eventSource) record(about runtime.Object, reporter, eventType, reason, action, note string) {
	if about == nil {
		return
	}
	if len(note) > maxNote {
		note = strings.ToValidUTF8(note[:maxNote-3], "") + "..."
	}
	s.broadcaster.NewRecorder(scheme.Scheme, reporter).Eventf(about, nil, eventType, reason, action, "%s", note)
}

// maxNote is how long the API server lets the note of an Event be.
const maxNote = 1024

// self is the Pod of this process, or nil.
func (h *host) self() runtime.Object {
	if h.config.Pod.Name == "" || h.config.Pod.Namespace == "" {
		return nil
	}
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Name: h.config.Pod.Name, Namespace: h.config.Pod.Namespace, UID: types.UID(h.config.Pod.UID),
	}}
}

// noticed is told of every change of the state of a controller on every replica.
func (h *host) noticed(before, after runner.Status) {
	h.health.follow(after)
	h.announce(before, after)
}

// announce records what befalls a controller as an Event on this process's Pod.
func (h *host) announce(before, after runner.Status) {
	warn := func(reason, action, note string) {
		h.events.record(h.self(), after.Name, corev1.EventTypeWarning, reason, action, "Controller "+after.Name+" "+note)
	}
	switch {
	case after.State == runner.Backoff && after.LastErrorAt != before.LastErrorAt:
		warn("ControllerFailed", "Restart", "failed and is restarted alone: "+after.LastError)
	case after.State == runner.Blocked:
		warn("ControllerBlocked", "Block", "is blocked: "+after.Reason)
	case after.State == runner.Stuck:
		warn("ControllerStuck", "Stop", "does not stop: "+after.Reason)
	case before.State == runner.Blocked && after.State == runner.Building:
		h.events.record(h.self(), after.Name, corev1.EventTypeNormal, "ControllerUnblocked", "Start", "Controller "+after.Name+" is no longer blocked")
	}
}
