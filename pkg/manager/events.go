// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package manager

import (
	"context"
	"strings"

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
func (s *eventSource) leaseRecorder() resourcelock.EventRecorder { return leaseRecorder{s.own} }

// leaseRecorder gives an events.k8s.io recorder the shape that leader election in
// client-go knows.
type leaseRecorder struct{ recorder events.EventRecorder }

func (r leaseRecorder) Eventf(object runtime.Object, eventType, reason, message string, args ...any) {
	r.recorder.Eventf(object, nil, eventType, reason, "LeaderElection", message, args...)
}

// warn records a warning. It does nothing without an object to record it on.
func (s *eventSource) warn(about runtime.Object, reason, action, note string) {
	s.record(about, corev1.EventTypeWarning, reason, action, note)
}

func (s *eventSource) record(about runtime.Object, eventType, reason, action, note string) {
	if about == nil {
		return
	}
	if len(note) > maxNote {
		note = strings.ToValidUTF8(note[:maxNote-3], "") + "..."
	}
	s.own.Eventf(about, nil, eventType, reason, action, "%s", note)
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

// announce records what befalls a controller as an Event on this process's Pod.
func (h *host) announce(before, after runner.Status) {
	about, name := h.self(), "Controller "+after.Name
	switch {
	case after.State == runner.Backoff && after.LastErrorAt != before.LastErrorAt:
		h.events.warn(about, "ControllerFailed", "Restart", name+" failed and is restarted alone: "+after.LastError)
	case after.State == runner.Blocked:
		h.events.warn(about, "ControllerBlocked", "Block", name+" is blocked: "+after.Reason)
	case after.State == runner.Stuck:
		h.events.warn(about, "ControllerStuck", "Stop", name+" does not stop: "+after.Reason)
	case before.State == runner.Blocked && after.State == runner.Building:
		h.events.record(about, corev1.EventTypeNormal, "ControllerUnblocked", "Start", name+" is no longer blocked")
	}
}
