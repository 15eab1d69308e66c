// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package configrollout

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/events"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/incumbent-io/incumbent/pkg/controllers"
	"github.com/incumbent-io/incumbent/pkg/reconciler"
)

const (
	// timeout bounds one reconcile.
	timeout = 30 * time.Second
	// After a conflict the workload is read and judged again at once, attempts times
	// in all, and after conflictWait if others keep changing it.
	attempts     = 10
	conflictWait = time.Second
	// maxNote is how many bytes of a note the API accepts.
	maxNote = 1024
	// maxContests is how often a record is put right that somebody else has replaced by
	// another valid one.
	maxContests = 3
)

// errGone is the outcome of a write to a workload that is not there any more.
var errGone = errors.New("the workload is gone")

type controller struct {
	*reconciler.Reconciler[id]
	client                kubernetes.Interface
	clock                 clock.PassiveClock
	recorder              events.EventRecorder
	reader                *reader
	quietPeriod, maxDelay time.Duration
	// Invariant: written by newController, and then only read.
	kinds     map[string]kind // those that are served
	informers map[string]cache.SharedIndexInformer

	mu     sync.Mutex
	states map[id]*state
}

var _ controllers.Controller = (*controller)(nil)

// state is what is remembered of a workload that is, or was, annotated. It belongs to
// the worker that has the workload's key.
type state struct {
	uid types.UID // of the workload that last and pending are about
	// last is the record that was last seen on it or written. It stands in for one that
	// has been displaced or taken away. Nil: none yet.
	last    record
	pending *change // nil: nothing is due
	warned  string  // the problem with its annotation that an Event has told of
	refused string  // the refusal of a write that an Event has told of
	// contests counts how often another record than last was found where last had been
	// written, though nothing has changed. There are no more writes but rollouts after
	// maxContests: only another manager does that, and both would go on for ever.
	contests int
	// written is the version that the last write has made. As long as the cache has an
	// older one, there is nothing to judge: this one is on its way, and calls again.
	written string
}

// change is content that a workload is to be rolled for.
//
//	      content changes        quiet, or long enough: roll
//	none ────────────────► pending ────────────────────────► none
//	  ▲                     │   ▲ │
//	  └── as it was again ──┘   └─┘ content changes: quiet begins anew
type change struct {
	digest      string // of the content
	first, last time.Time
	held        string // the obstacle that an Event has told of
}

func newController(c *controllers.Context, o *Options) (*controller, error) {
	client := c.Clients.Kubernetes()
	rolls := &controller{
		client: client, clock: c.Clock, recorder: c.Events(scheme.Scheme),
		reader:      newReader(client, &keeper{secrets: client.CoreV1().Secrets, namespace: c.Instance.Namespace}),
		quietPeriod: o.QuietPeriod.Duration, maxDelay: o.MaxDelay.Duration,
		kinds: map[string]kind{}, informers: map[string]cache.SharedIndexInformer{}, states: map[id]*state{},
	}
	for name, kind := range kinds() {
		if c.Served(kind.resource) {
			rolls.kinds[name] = kind
		}
	}
	if len(rolls.kinds) == 0 {
		return nil, controllers.Skip("none of deployments, statefulsets and daemonsets of apps/v1 is served and granted")
	}
	watches, err := rolls.watches(c, o)
	if err != nil {
		return nil, err
	}
	rolls.Reconciler, err = reconciler.New(reconciler.Config[id]{
		Name: Name, Reconcile: rolls.reconcile, Watches: watches, Workers: o.Workers, Timeout: timeout,
		Metrics: c.Metrics, Tracer: c.Tracer, Clock: c.Clock,
	})
	return rolls, err
}

// watches asks for the caches: of workloads in full, of what they refer to the metadata.
func (c *controller) watches(cc *controllers.Context, o *Options) ([]reconciler.Watch[id], error) {
	var watches []reconciler.Watch[id]
	for _, name := range slices.Sorted(maps.Keys(c.kinds)) {
		informer := c.kinds[name].informer(cc.Informers.Typed())
		if err := informer.AddIndexers(cache.Indexers{sourceIndex: indexed}); err != nil {
			return nil, fmt.Errorf("index of %ss: %w", name, err)
		}
		c.informers[name] = informer
		watches = append(watches, reconciler.Each(informer, func(object metav1.Object) []id {
			return []id{{kind: name, name: cache.MetaObjectToName(object)}}
		}, concerns[metav1.Object]))
	}
	c.reader.caches[configMap] = cc.Informers.Metadata(configMaps).Informer()
	if o.Secrets {
		c.reader.caches[secret] = cc.Informers.Metadata(secrets).Informer()
	}
	for _, name := range slices.Sorted(maps.Keys(c.reader.caches)) {
		watches = append(watches, reconciler.Each(c.reader.caches[name], func(object metav1.Object) []id {
			return c.referring(source{name, object.GetName()}.in(object.GetNamespace()))
		}))
	}
	return watches, nil
}

// referring returns the annotated workloads that refer to a source.
func (c *controller) referring(name string) []id {
	var list []id
	for kind, informer := range c.informers {
		keys, err := informer.GetIndexer().IndexKeys(sourceIndex, name)
		if err != nil {
			continue // There is no such index, which AddIndexers would have told.
		}
		for _, key := range keys {
			if name, err := cache.ParseObjectName(key); err == nil {
				list = append(list, id{kind, name})
			}
		}
	}
	if len(list) == 0 {
		c.reader.forget(name)
	}
	return list
}

func (c *controller) reconcile(ctx context.Context, key id) (reconciler.Result, error) {
	ctx = klog.NewContext(ctx, klog.FromContext(ctx).WithValues("kind", key.kind, "workload", klog.KRef(key.name.Namespace, key.name.Name)))
	found, exists, err := c.informers[key.kind].GetStore().GetByKey(key.name.String())
	if err != nil {
		return reconciler.Result{}, err
	}
	if !exists {
		c.forget(key)
		return reconciler.Result{}, nil
	}
	if object, ok := found.(metav1.Object); ok && c.isOutdated(key, object.GetResourceVersion()) {
		return reconciler.Result{}, nil
	}
	for attempt := range attempts {
		w, ok := workloadOf(found)
		if !ok {
			return reconciler.Result{}, fmt.Errorf("the cache of %ss holds a %T", key.kind, found)
		}
		result, err := c.judge(ctx, key, w, attempt > 0)
		if errors.Is(err, errGone) {
			c.forget(key)
			return reconciler.Result{}, nil
		}
		if !apierrors.IsConflict(err) {
			return result, err
		}
		klog.FromContext(ctx).V(4).Info("Workload changed before it could be written, judging the newer one")
		found, err = c.kinds[key.kind].get(ctx, c.client, key.name)
		if apierrors.IsNotFound(err) {
			c.forget(key)
			return reconciler.Result{}, nil
		}
		if err != nil {
			return reconciler.Result{}, err
		}
	}
	return reconciler.Result{RequeueAfter: conflictWait}, nil
}

// judge does what is due for a workload now, which is live if it was read past the cache.
// The error is a conflict if the workload is no longer what was judged.
func (c *controller) judge(ctx context.Context, key id, w workload, live bool) (reconciler.Result, error) {
	if w.DeletionTimestamp != nil {
		c.forget(key)
		return reconciler.Result{}, nil
	}
	opted, problem := optedIn(w.kind, w.Name, w.Annotations)
	switch {
	case problem != nil:
		c.warn(key, w, problem)
		return reconciler.Result{}, nil
	case opted:
		return c.follow(ctx, key, w, live)
	}
	if !w.marked() {
		c.forget(key)
		return reconciler.Result{}, nil
	}
	// Whoever opts in again begins anew, even if that is what the cache has next.
	s := c.stateOf(key)
	s.last, s.pending, s.contests = nil, nil, 0
	return reconciler.Result{}, c.write(ctx, s, w, marks{})
}

// follow compares the content that a workload refers to with what is recorded.
func (c *controller) follow(ctx context.Context, key id, w workload, live bool) (reconciler.Result, error) {
	s := c.stateOf(key)
	if s.uid != w.UID { // It was made anew.
		*s = state{uid: w.UID}
	}
	s.warned = ""
	refs := slices.DeleteFunc(referencesOf(&w.template.Spec), func(r reference) bool { return !c.reader.watches(r.kind) })
	before, standing := s.recordOn(w)
	// The first record of a live workload must not be of what an older cache has. Later
	// ones are compared: what the cache does not have yet follows.
	found, err := c.contents(ctx, w.Namespace, refs, before, live && before == nil)
	if err != nil {
		return reconciler.Result{}, err
	}
	now := compare(before, refs, found)
	if standing == displaced && before == nil && sealOf(w.UID, now.kept) != w.Labels[LabelSeal] {
		now.changed = []string{"what it refers to"}
	}
	if len(now.changed) > 0 {
		return c.roll(ctx, s, w, now)
	}
	s.pending = nil
	if standing != recorded && len(now.kept) > 0 || standing == recorded && now.kept.digest() != before.digest() {
		return reconciler.Result{}, c.record(ctx, s, w, standing, now.kept)
	}
	s.last = now.kept
	return reconciler.Result{}, nil
}

// recordOn returns the record on a workload, or else the one that was there before.
func (s *state) recordOn(w workload) (record, standing) {
	found, standing := recordOn(w.UID, w.Labels, w.Annotations)
	if standing == unrecorded || standing == displaced && sealOf(w.UID, s.last) == w.Labels[LabelSeal] {
		return s.last, standing
	}
	return found, standing
}

// record writes a record without a rollout.
func (c *controller) record(ctx context.Context, s *state, w workload, was standing, kept record) error {
	if was == recorded && s.last != nil && kept.digest() == s.last.digest() {
		s.contests++
		if s.contests == maxContests {
			c.tell(w, corev1.EventTypeWarning, "RecordContested", "Ignore", "Another manager replaces what this one records here, which is left to it from now on: changes may go unnoticed. "+
				"Run config-rollout in one manager of a cluster only")
		}
	}
	if s.contests < maxContests {
		if err := c.write(ctx, s, w, marks{record: kept}); err != nil {
			return err
		}
		klog.FromContext(ctx).V(2).Info("Recorded what the workload refers to", "sources", slices.Sorted(maps.Keys(kept)))
	}
	s.last = kept
	return nil
}

// contents returns the contents of all sources of the references that are there.
func (c *controller) contents(ctx context.Context, namespace string, refs []reference, before record, live bool) (map[source]*contents, error) {
	found := map[source]*contents{}
	for _, from := range sourcesOf(refs) {
		version, err := c.reader.version(namespace, from)
		if err != nil {
			return nil, err
		}
		if live {
			if found[from], err = c.reader.read(ctx, namespace, from, version); err != nil {
				return nil, err
			}
			continue
		}
		if version == "" {
			c.reader.forget(from.in(namespace))
			continue
		}
		if found[from], err = c.contentsOf(ctx, namespace, from, version, refs, before); err != nil {
			return nil, err
		}
	}
	return found, nil
}

func (c *controller) contentsOf(ctx context.Context, namespace string, from source, version string, refs []reference, before record) (*contents, error) {
	key := ""
	if from.kind == secret {
		current, err := c.reader.key.get(ctx)
		if err != nil {
			return nil, err
		}
		key = current.id
	}
	if known := before.contentsFor(from, version, key, refs); known != nil {
		return known, nil
	}
	return c.reader.contents(ctx, namespace, from, version)
}

// roll rolls a workload once its change is due and nothing is in the way.
func (c *controller) roll(ctx context.Context, s *state, w workload, now comparison) (reconciler.Result, error) {
	p := s.note(now.kept.digest(), c.clock.Now())
	if obstacle := obstacleOf(w, now); obstacle != "" {
		if p.held != obstacle {
			p.held = obstacle
			c.tell(w, corev1.EventTypeNormal, "RolloutHeld", "Hold", fmt.Sprintf("Changed: %s; not rolled while %s", strings.Join(now.changed, ", "), obstacle))
		}
		return reconciler.Result{}, nil // What removes the obstacle is an update.
	}
	if wait := c.due(p).Sub(c.clock.Now()); wait > 0 {
		return reconciler.Result{RequeueAfter: wait}, nil
	}
	// The generation makes the hash a new one, even if the content is one that there
	// was before: an older ReplicaSet would keep Pods that have seen other content.
	hash := fmt.Sprintf("%s-%d", now.rolled.digest(), w.Generation)
	if err := c.write(ctx, s, w, marks{record: now.rolled, hash: hash}); err != nil {
		return reconciler.Result{}, err
	}
	s.last, s.pending = now.rolled, nil
	klog.FromContext(ctx).Info("Rolled workload", "changed", now.changed, "hash", hash)
	c.tell(w, corev1.EventTypeNormal, "RolloutTriggered", "Roll", "Rolled, because this changed: "+strings.Join(now.changed, ", "))
	return reconciler.Result{}, nil
}

// note starts the quiet period of a change, anew if its content is not what it was.
func (s *state) note(digest string, now time.Time) *change {
	if s.pending == nil {
		s.pending = &change{digest: digest, first: now, last: now}
	}
	if s.pending.digest != digest {
		s.pending.digest, s.pending.last = digest, now
	}
	return s.pending
}

// due is when a change has been quiet for long enough, or waited for too long.
func (c *controller) due(p *change) time.Time {
	quiet, latest := p.last.Add(c.quietPeriod), p.first.Add(c.maxDelay)
	if latest.Before(quiet) {
		return latest
	}
	return quiet
}

// obstacleOf says why a workload must not be rolled now, or "".
func obstacleOf(w workload, now comparison) string {
	switch {
	case w.paused:
		return "it is paused"
	case len(now.missing) > 0:
		return "what new Pods need is missing: " + strings.Join(now.missing, ", ")
	}
	return ""
}

// write is the only write to workloads. The error is errGone if there is none any more.
func (c *controller) write(ctx context.Context, s *state, w workload, m marks) error {
	written, err := c.kinds[w.kind].patch(ctx, c.client, cache.MetaObjectToName(&w.ObjectMeta), w.patch(m))
	switch {
	case apierrors.IsNotFound(err):
		return errGone
	case apierrors.IsInvalid(err), apierrors.IsForbidden(err):
		c.refuse(s, w, m, err)
		return err
	case err != nil:
		return err
	}
	s.refused = ""
	if written.GetResourceVersion() != w.ResourceVersion {
		s.written = written.GetResourceVersion()
	}
	return nil
}

// refuse tells once that the API server does not accept a write.
func (c *controller) refuse(s *state, w workload, m marks, err error) {
	reason, note := "RecordFailed", "Changes cannot be followed, the API server refuses the record: "+err.Error()
	switch {
	case m.hash != "":
		reason, note = "RolloutFailed", "Not rolled, the API server refuses: "+err.Error()
	case m.record == nil:
		note = "The record cannot be removed, the API server refuses: " + err.Error()
	}
	if s.refused == note {
		return
	}
	s.refused = note
	c.tell(w, corev1.EventTypeWarning, reason, "Write", note)
}

// warn tells of a malformed annotation, once for each value.
func (c *controller) warn(key id, w workload, problem error) {
	s := c.stateOf(key)
	said := string(w.UID) + " " + problem.Error()
	if s.warned == said {
		return
	}
	s.warned = said
	c.tell(w, corev1.EventTypeWarning, "InvalidAnnotation", "Ignore", "Left alone: "+problem.Error())
}

// tell makes an Event of a note, which is cut to what the API accepts.
func (c *controller) tell(w workload, eventType, reason, action, note string) {
	if len(note) > maxNote {
		note = strings.ToValidUTF8(note[:maxNote-len("...")], "") + "..."
	}
	c.recorder.Eventf(w.Object, nil, eventType, reason, action, "%s", note)
}

func (c *controller) stateOf(key id) *state {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.states[key] == nil {
		c.states[key] = &state{}
	}
	return c.states[key]
}

func (c *controller) isOutdated(key id, version string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.states[key]
	if s == nil || s.written == "" {
		return false
	}
	order, err := resourceversion.CompareResourceVersion(version, s.written)
	return err == nil && order < 0
}

func (c *controller) forget(key id) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.states, key)
}
