// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package configpropagation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/klog/v2"

	"github.com/incumbent-io/incumbent/pkg/controllers"
	"github.com/incumbent-io/incumbent/pkg/reconciler"
)

// confirmAfter is when a target is judged again after a write: a cache whose watch broke
// at the wrong moment never tells of an object that was written and then deleted.
const confirmAfter = 5 * time.Second

// target is what this run remembers of a place for a copy. Its fields but problems
// belong to the worker that has its key.
type target struct {
	seen sight // what the copy was when it was last read or written
	// written is the version that the last write made. As long as the cache has none as
	// new, there is nothing to judge.
	written string
	deleted types.UID // what was deleted, of which the cache may still tell
	// problems has, by the namespace of a source, why it is not copied. nil: not judged
	// yet. Guarded by controller.mu.
	problems map[string]string
}

// copy does what is due about one target.
func (c *controller) copy(ctx context.Context, at id) (reconciler.Result, error) {
	ctx = klog.NewContext(ctx, klog.FromContext(ctx).WithValues("kind", at.kind, "copy", klog.KRef(at.namespace, at.name)))
	k, objects := c.kinds[at.kind], c.objects[at.kind]
	synced := objects.GetStore().LastStoreSyncResourceVersion() // before the look at the cache: it has all until then
	there, err := cached(objects, at.namespace, at.name)
	if err != nil {
		return reconciler.Result{}, err
	}
	t := c.target(at)
	if t.isBehind(there, synced) {
		return reconciler.Result{RequeueAfter: confirmAfter}, nil
	}
	namespace, err := cached(c.namespaces, "", at.namespace)
	if err != nil {
		return reconciler.Result{}, err
	}
	v := c.rules.judge(situation{kind: k, namespace: namespace, there: there, sources: c.indexed(k, sourcesByName, at.name)})
	err = c.act(ctx, k, at, t, there, v)
	if err == nil || v.problems[sourceNamespace(v)] != "" {
		c.note(at, t, v, there)
	}
	if err == nil && t.written != "" {
		return reconciler.Result{RequeueAfter: confirmAfter}, nil
	}
	return reconciler.Result{}, err
}

func sourceNamespace(v verdict) string {
	if v.source == nil {
		return ""
	}
	return v.source.Namespace
}

// isBehind tells whether the cache, in which the target was there when all versions up to
// synced were in it, is older than the last write.
func (t *target) isBehind(there *meta, synced string) bool {
	if t.written == "" {
		return false
	}
	order, err := resourceversion.CompareResourceVersion(synced, t.written)
	if there != nil && there.ResourceVersion == t.written || err != nil || order >= 0 {
		t.written = ""
	}
	return t.written != ""
}

// act does what the verdict says. What the API server refuses is both an error, so that
// it is tried again, and a problem of the source.
func (c *controller) act(ctx context.Context, k kind, at id, t *target, there *meta, v verdict) error {
	if there != nil && there.UID == t.deleted {
		return nil
	}
	var err error
	switch v.action {
	case remove:
		if err = c.delete(ctx, k, t, there); err == nil {
			klog.FromContext(ctx).V(2).Info("Removed copy", "from", there.Labels[LabelFrom])
		}
	case ensure:
		err = c.ensure(ctx, k, at, t, there, v)
	}
	switch {
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause), apierrors.IsNotFound(err):
		return nil // The namespace goes, or has gone; its own event follows.
	case isRefusal(err) && v.source != nil:
		v.problems[v.source.Namespace] = "the API server refuses it: " + cut(err.Error(), maxReason)
	}
	return err
}

// isRefusal tells whether the same request would be answered in the same way until
// somebody does something about it.
func isRefusal(err error) bool {
	var status apierrors.APIStatus
	if !errors.As(err, &status) || controllers.IsNotLeader(err) {
		return false
	}
	switch status.Status().Code {
	case http.StatusUnauthorized, http.StatusNotFound, http.StatusConflict, http.StatusTooManyRequests, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return false
	}
	return !apierrors.IsTimeout(err) && !apierrors.IsServerTimeout(err)
}

// ensure makes the target a copy of v.source.
func (c *controller) ensure(ctx context.Context, k kind, at id, t *target, there *meta, v verdict) error {
	want, err := c.reader.original(ctx, k, v.source)
	if err != nil || want == nil {
		return err // What is not there any more is an event.
	}
	if want.content.secretType == corev1.SecretTypeServiceAccountToken {
		v.problems[v.source.Namespace] = fmt.Sprintf("Secrets of type %s are not copied, those of all other types are", want.content.secretType)
		if there == nil {
			return nil
		}
		return c.delete(ctx, k, t, there)
	}
	if there == nil {
		return c.write(ctx, k, at, t, nil, v.source, want)
	}
	if known, err := c.look(ctx, k, at, t, there); err != nil || !known {
		return err
	}
	switch {
	case t.seen.fingerprint == want.fingerprint && isCopyOf(there, v.source):
		return nil
	case want.content.replaces(t.seen.shape):
		return c.replace(ctx, k, at, t, there, v.source, want)
	}
	err = c.write(ctx, k, at, t, there, v.source, want)
	if !apierrors.IsInvalid(err) {
		return err
	}
	live, readErr := k.get(ctx, c.client, at.namespace, at.name)
	if readErr != nil || live.ResourceVersion != there.ResourceVersion || !want.content.overlaps(&live.content) {
		return err
	}
	return c.replace(ctx, k, at, t, there, v.source, want)
}

// look has t.seen tell of the copy in the version that the cache has. If it is not
// known, the copy has changed meanwhile, and the event follows.
func (c *controller) look(ctx context.Context, k kind, at id, t *target, there *meta) (known bool, err error) {
	if t.seen.version == there.ResourceVersion {
		return true, nil
	}
	if t.seen, err = c.surveys[k.name].take(ctx, c.client, k, at); err != nil || t.seen.version == there.ResourceVersion {
		return err == nil, err
	}
	live, err := k.get(ctx, c.client, at.namespace, at.name)
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("reading the copy: %w", err)
	}
	t.seen = sightOf(live)
	return t.seen.version == there.ResourceVersion, nil
}

// replace deletes a copy and creates it anew.
func (c *controller) replace(ctx context.Context, k kind, at id, t *target, there, source *meta, want *original) error {
	if err := c.delete(ctx, k, t, there); err != nil {
		return err
	}
	return c.write(ctx, k, at, t, nil, source, want)
}

// write applies a copy over what is there, or where nothing is.
func (c *controller) write(ctx context.Context, k kind, at id, t *target, there, source *meta, want *original) error {
	i := intent{
		namespace: at.namespace, name: at.name, content: &want.content,
		labels:      map[string]string{LabelFrom: source.Namespace},
		annotations: map[string]string{AnnotationCopy: mark(at.namespace, source)},
	}
	if there != nil {
		i.over = &there.ObjectMeta
	}
	written, err := k.apply(ctx, c.client, i)
	if err != nil {
		return fmt.Errorf("writing the copy of %s/%s: %w", source.Namespace, source.Name, err)
	}
	t.seen, t.written = sightOf(written), written.ResourceVersion
	if t.seen.fingerprint != want.fingerprint {
		if err := c.prune(ctx, k, t, written, want); err != nil {
			return fmt.Errorf("removing what the source has not from its copy: %w", err)
		}
	}
	klog.FromContext(ctx).V(2).Info("Wrote copy", "from", source.Namespace, "new", there == nil, "resourceVersion", t.written)
	return nil
}

// prune removes the keys that others have added to a copy: an apply leaves them.
func (c *controller) prune(ctx context.Context, k kind, t *target, have *object, want *original) error {
	text, bytes := want.content.surplus(&have.content)
	patch := map[string]any{"metadata": map[string]any{"uid": have.UID, "resourceVersion": have.ResourceVersion}}
	for field, keys := range map[string][]string{"data": text, k.bytesField: bytes} {
		if len(keys) > 0 {
			patch[field] = nulls(keys)
		}
	}
	content, err := json.Marshal(patch)
	if err != nil {
		return err
	}
	pruned, err := c.metadata.Resource(k.resource).Namespace(have.Namespace).Patch(ctx, have.Name, types.MergePatchType, content, metav1.PatchOptions{FieldManager: applyOptions.FieldManager})
	if err != nil {
		return err
	}
	t.seen = sight{pruned.ResourceVersion, want.fingerprint, shape{want.content.immutable, want.content.secretType}}
	t.written = pruned.ResourceVersion
	return nil
}

func nulls(keys []string) map[string]any {
	values := map[string]any{}
	for _, key := range keys {
		values[key] = nil
	}
	return values
}

// delete deletes just the copy that was judged.
func (c *controller) delete(ctx context.Context, k kind, t *target, there *meta) error {
	err := c.metadata.Resource(k.resource).Namespace(there.Namespace).Delete(ctx, there.Name, metav1.DeleteOptions{
		Preconditions: &metav1.Preconditions{UID: &there.UID, ResourceVersion: &there.ResourceVersion},
	})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("deleting the copy: %w", err)
	}
	t.deleted = there.UID
	return nil
}

func (c *controller) target(at id) *target {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.targets[at] == nil {
		c.targets[at] = &target{}
	}
	return c.targets[at]
}

// note remembers the problems of a target, and has the sources tell of them whose
// problems have changed.
func (c *controller) note(at id, t *target, v verdict, there *meta) {
	c.mu.Lock()
	before := t.problems
	t.problems = v.problems
	if !v.claimed && t.written == "" && (there == nil || !isCopy(there)) {
		delete(c.targets, at)
	}
	c.mu.Unlock()
	changed := map[string]bool{}
	for namespace, problem := range before {
		changed[namespace] = changed[namespace] || v.problems[namespace] != problem
	}
	for namespace, problem := range v.problems {
		changed[namespace] = changed[namespace] || before[namespace] != problem
	}
	maps.DeleteFunc(changed, func(_ string, yes bool) bool { return !yes })
	for namespace := range changed {
		select {
		case c.changed <- key{telling, id{at.kind, namespace, at.name}}:
		case <-c.over:
		}
	}
}

// cut shortens a text to so many bytes.
func cut(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most-len("...")], "") + "..."
}
