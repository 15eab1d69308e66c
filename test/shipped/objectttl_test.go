// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package shipped

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/incumbent-io/incumbent/test/cluster"
)

const (
	ttl       = "incumbent.io/ttl"
	expiresAt = "incumbent.io/expires-at"
)

// expiry is a pair of annotations with what docs/controllers/object-ttl.md says of it.
type expiry struct {
	annotations map[string]string
	// due is when an object that was created then goes; nil: never.
	due func(created time.Time) time.Time
}

func at(instant time.Time) func(time.Time) time.Time {
	return func(time.Time) time.Time { return instant }
}

// after is a ttl of d: a second is added to the creation, which the API server cuts.
func after(d time.Duration) func(time.Time) time.Time {
	return func(created time.Time) time.Time { return created.Add(d + time.Second) }
}

// expiries are pairs of annotations of all kinds.
func expiries() []expiry {
	soon := time.Now().Add(2 * time.Second).Truncate(time.Second).UTC()
	past, future := "2020-01-01T00:00:00Z", "2999-01-01T00:00:00+01:00"
	return []expiry{
		{nil, nil},
		{map[string]string{ttl: "1s"}, after(time.Second)},
		{map[string]string{ttl: "0d2.5s"}, after(2500 * time.Millisecond)},
		{map[string]string{ttl: "1h"}, after(time.Hour)},
		{map[string]string{ttl: "7d"}, after(7 * 24 * time.Hour)},
		{map[string]string{expiresAt: past}, at(time.Unix(0, 0))},
		{map[string]string{expiresAt: soon.Format(time.RFC3339)}, at(soon)},
		{map[string]string{expiresAt: future}, nil},
		{map[string]string{ttl: "1h", expiresAt: past}, at(time.Unix(0, 0))},
		{map[string]string{ttl: "2s", expiresAt: future}, after(2 * time.Second)},
		{map[string]string{ttl: "soon"}, nil},
		{map[string]string{ttl: "-1s"}, nil},
		{map[string]string{ttl: "0s"}, nil},
		{map[string]string{ttl: ""}, nil},
		{map[string]string{ttl: "1000000d"}, nil},
		{map[string]string{expiresAt: "tomorrow"}, nil},
		{map[string]string{expiresAt: "2020-01-01"}, nil},
		{map[string]string{ttl: "one", expiresAt: past}, nil},
		{map[string]string{ttl: "1s", expiresAt: "now"}, nil},
	}
}

// possession is an object that only its owner and the controller change, so that the
// owner knows what must be there.
type possession struct {
	uid     types.UID
	expiry  expiry
	created time.Time
	held    bool // by a finalizer
}

// due says when it goes; the zero time: never.
func (p possession) due() time.Time {
	if p.expiry.due == nil {
		return time.Time{}
	}
	return p.expiry.due(p.created)
}

// overdue fails for an object that has gone before its time.
func (p possession) overdue() error {
	if due := p.due(); due.IsZero() || time.Now().Before(due) {
		return fmt.Errorf("it is gone at %v, but with %v and the creation at %v it goes at %v", time.Now(), p.expiry.annotations, p.created, due)
	}
	return nil
}

// owner is a writer with the ConfigMaps that are its own.
type owner struct {
	client corev1client.ConfigMapInterface
	prefix string
	owns   map[string]possession
}

// write does something to one of its own ConfigMaps, or changes the version of any.
func (o *owner) write(ctx context.Context, random *rand.Rand) error {
	name := fmt.Sprintf("%s%d", o.prefix, random.IntN(20))
	all := expiries()
	want := all[random.IntN(len(all))]
	had, exists := o.owns[name]
	switch action := random.IntN(10); {
	case action == 0: // Another's, whose resourceVersion changes under the controller.
		_, err := o.client.Patch(ctx, fmt.Sprintf("w%d-%d", random.IntN(chaosWriters), random.IntN(20)), types.MergePatchType,
			fmt.Appendf(nil, `{"metadata":{"labels":{"touched":"%d"}}}`, random.IntN(1000)), metav1.PatchOptions{})
		return ignore(err, apierrors.IsNotFound)
	case !exists:
		return o.create(ctx, name, want, random.IntN(10) == 0)
	case had.held:
		return o.letGo(ctx, name, had)
	case action == 1:
		if err := o.client.Delete(ctx, name, metav1.DeleteOptions{}); !apierrors.IsNotFound(err) {
			delete(o.owns, name)
			return err
		}
		delete(o.owns, name)
		return had.overdue()
	default:
		return o.annotate(ctx, name, had, want)
	}
}

func (o *owner) create(ctx context.Context, name string, want expiry, held bool) error {
	object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: want.annotations}}
	if held {
		object.Finalizers = []string{"example.com/hold"}
	}
	made, err := o.client.Create(ctx, object, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	o.owns[name] = possession{uid: made.UID, expiry: want, created: made.CreationTimestamp.Time, held: held}
	return nil
}

// letGo takes the finalizer away; until then the object is there.
func (o *owner) letGo(ctx context.Context, name string, had possession) error {
	object, err := o.client.Patch(ctx, name, types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{})
	if err != nil {
		return fmt.Errorf("an object with a finalizer: %w", err)
	}
	had.held = false
	o.owns[name] = had
	if object.DeletionTimestamp != nil {
		delete(o.owns, name)
		return had.overdue()
	}
	return nil
}

func (o *owner) annotate(ctx context.Context, name string, had possession, want expiry) error {
	annotations := map[string]any{ttl: nil, expiresAt: nil}
	for key, value := range want.annotations {
		annotations[key] = value
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": annotations}})
	if err != nil {
		return err
	}
	_, err = o.client.Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{})
	if apierrors.IsNotFound(err) {
		delete(o.owns, name)
		return had.overdue()
	}
	had.expiry = want
	o.owns[name] = had
	return err
}

func ignore(err error, kind func(error) bool) error {
	if kind(err) {
		return nil
	}
	return err
}

// bystanders makes objects that nobody may touch, and returns a check of that.
func bystanders(t *testing.T, namespace string) (untouched func()) {
	t.Helper()
	expired := map[string]string{expiresAt: "2020-01-01T00:00:00Z"}
	secret, err := shared.Client.CoreV1().Secrets(namespace).Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "of-another-kind", Annotations: expired}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	maps := shared.Client.CoreV1().ConfigMaps(namespace)
	plain, err := maps.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "plain", Labels: map[string]string{ttl: "1s"}, Annotations: map[string]string{"example.com/ttl": "1s"}}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if got, err := shared.Client.CoreV1().Secrets(namespace).Get(t.Context(), secret.Name, metav1.GetOptions{}); err != nil || got.ResourceVersion != secret.ResourceVersion {
			t.Errorf("a Secret, which the controller is not told of: %v; version %s, want %s", err, got.ResourceVersion, secret.ResourceVersion)
		}
		if got, err := maps.Get(t.Context(), plain.Name, metav1.GetOptions{}); err != nil || got.ResourceVersion != plain.ResourceVersion {
			t.Errorf("a ConfigMap without the annotations: %v; version %s, want %s", err, got.ResourceVersion, plain.ResourceVersion)
		}
	}
}

func TestObjectTTLChaos(t *testing.T) {
	const namespace = "ttl-chaos"
	shared.Namespace(t, namespace)
	untouched := bystanders(t, namespace)
	// One of its resources is not there.
	f := newFleet(t, 3, namespace, "object-ttl", "--object-ttl-resources=v1/configmaps,example.com/v1/reports")
	client := shared.Client.CoreV1().ConfigMaps(namespace)
	var owners [chaosWriters]*owner
	for i := range owners {
		owners[i] = &owner{client: client, prefix: fmt.Sprintf("w%d-", i), owns: map[string]possession{}}
	}
	chaos(t, f, func(ctx context.Context, writer int, random *rand.Rand) error {
		return owners[writer].write(context.WithoutCancel(ctx), random)
	})
	took := cluster.Eventually(t, 30*time.Second, "what must go is gone", func() error { return compare(t, client, owners[:]) })
	// What must stay stays.
	time.Sleep(2 * time.Second)
	if err := compare(t, client, owners[:]); err != nil {
		t.Error(err)
	}
	untouched()
	t.Logf("right %v after the last write", took.Round(time.Millisecond))
}

// compare says how the ConfigMaps differ from what their owners know.
func compare(t *testing.T, client corev1client.ConfigMapInterface, owners []*owner) error {
	t.Helper()
	list, err := client.List(t.Context(), metav1.ListOptions{})
	if err != nil {
		return err
	}
	found := map[string]corev1.ConfigMap{}
	for _, object := range list.Items {
		if strings.HasPrefix(object.Name, "w") {
			found[object.Name] = object
		}
	}
	var errs []error
	for _, o := range owners {
		for name, owned := range o.owns {
			object, exists := found[name]
			delete(found, name)
			due := owned.due()
			// At most an object that is about to go is not yet right.
			goes := !due.IsZero() && due.Before(time.Now().Add(time.Minute))
			switch {
			case !goes && (!exists || object.UID != owned.uid || object.DeletionTimestamp != nil):
				t.Fatalf("%s with %v is gone, or going, and must stay", name, owned.expiry.annotations)
			case !goes && !maps.Equal(object.Annotations, owned.expiry.annotations):
				t.Fatalf("%s has the annotations %v, want %v", name, object.Annotations, owned.expiry.annotations)
			case goes && owned.held && (!exists || object.DeletionTimestamp == nil):
				errs = append(errs, fmt.Errorf("%s with %v is not being deleted", name, owned.expiry.annotations))
			case goes && !owned.held && exists:
				errs = append(errs, fmt.Errorf("%s with %v is still there", name, owned.expiry.annotations))
			}
		}
	}
	for name := range found {
		t.Fatalf("%s is there, and its writer knows that it is gone", name)
	}
	return errors.Join(errs...)
}

// TestObjectTTLOnTheAPIServer has objects with each pair of annotations, and looks at
// when they go and what is said.
func TestObjectTTLOnTheAPIServer(t *testing.T) {
	const namespace = "ttl"
	shared.Namespace(t, namespace)
	untouched := bystanders(t, namespace)
	newFleet(t, 1, namespace, "object-ttl")
	client := shared.Client.CoreV1().ConfigMaps(namespace)
	gone := watchDeletions(t, client)
	var bad, good []string
	created := map[string]possession{}
	for i, e := range expiries() {
		name := fmt.Sprint("case-", i)
		made, err := client.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: e.annotations}}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		p := possession{uid: made.UID, expiry: e, created: made.CreationTimestamp.Time}
		created[name] = p
		if due := p.due(); !due.IsZero() && due.Before(time.Now().Add(time.Minute)) {
			good = append(good, name)
		} else if e.due == nil && len(e.annotations) > 0 && e.annotations[expiresAt] != "2999-01-01T00:00:00+01:00" {
			bad = append(bad, name)
		}
	}

	t.Run("changes at the last moment", func(t *testing.T) { lastMoment(t, client) })
	t.Run("replaced by another of its name", func(t *testing.T) { replaced(t, client) })

	for _, name := range good {
		p, went := created[name], gone.await(t, name)
		due := p.due()
		if due.Before(p.created) {
			due = p.created
		}
		if late := went.Sub(due); late < 0 || late > 5*time.Second {
			t.Errorf("%s with %v went %v after its time", name, p.expiry.annotations, late)
		}
	}
	cluster.Eventually(t, 10*time.Second, "events", func() error {
		return expectEvents(t, namespace, map[string][]string{"InvalidTTL": bad, "Expired": good}, created)
	})
	for name, p := range created {
		_, err := client.Get(t.Context(), name, metav1.GetOptions{})
		if wantGone := slices.Contains(good, name); wantGone != apierrors.IsNotFound(err) {
			t.Errorf("%s with %v: got %v, want it gone: %v", name, p.expiry.annotations, err, wantGone)
		}
	}
	untouched()
}

// lastMoment has an object change all the time while it expires, and another be kept
// longer just before.
func lastMoment(t *testing.T, client corev1client.ConfigMapInterface) {
	due := time.Now().Add(2 * time.Second).Truncate(time.Second).Add(time.Second).UTC()
	for _, name := range []string{"busy", "kept-longer"} {
		object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{expiresAt: due.Format(time.RFC3339)}}}
		if _, err := client.Create(t.Context(), object, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	var went time.Time
	var asked, kept bool
	for i := 0; went.IsZero(); i++ {
		if time.Since(due) > 20*time.Second {
			t.Fatal("an object that changes all the time is still there 20 s after its time")
		}
		_, err := client.Patch(t.Context(), "busy", types.MergePatchType, fmt.Appendf(nil, `{"data":{"n":"%d"}}`, i), metav1.PatchOptions{})
		switch {
		case apierrors.IsNotFound(err):
			went = time.Now()
		case err != nil:
			t.Fatal(err)
		}
		if !asked && time.Until(due) < 200*time.Millisecond {
			asked = true
			_, err := client.Patch(t.Context(), "kept-longer", types.MergePatchType, []byte(`{"metadata":{"annotations":{"incumbent.io/expires-at":"2999-01-01T00:00:00Z"}}}`), metav1.PatchOptions{})
			kept = err == nil
			if !kept && !(apierrors.IsNotFound(err) && time.Now().After(due)) { // then it came too late
				t.Fatal(err)
			}
		}
	}
	if went.Before(due) {
		t.Errorf("it went %v before its time", due.Sub(went))
	}
	if object, err := client.Get(t.Context(), "kept-longer", metav1.GetOptions{}); kept && (err != nil || object.DeletionTimestamp != nil) {
		t.Errorf("an object that was kept longer at the last moment: got %v, want it there", err)
	}
}

// replaced has an object deleted and made anew, without a ttl, before it expires.
func replaced(t *testing.T, client corev1client.ConfigMapInterface) {
	object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "replaced", Annotations: map[string]string{ttl: "1s"}}}
	if _, err := client.Create(t.Context(), object, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := client.Delete(t.Context(), "replaced", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	object.Annotations = nil
	if _, err := client.Create(t.Context(), object, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	time.Sleep(3 * time.Second)
	if _, err := client.Get(t.Context(), "replaced", metav1.GetOptions{}); err != nil {
		t.Errorf("the object that took over the name: %v", err)
	}
}

// expectEvents says how the events differ from one for each of these objects.
func expectEvents(t *testing.T, namespace string, want map[string][]string, of map[string]possession) error {
	t.Helper()
	list, err := shared.Client.EventsV1().Events(namespace).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		return err
	}
	got := map[string][]string{}
	for _, event := range list.Items {
		name := event.Regarding.Name
		if p, ours := of[name]; ours {
			got[event.Reason] = append(got[event.Reason], name)
			if event.Regarding.Kind != "ConfigMap" || event.Regarding.UID != p.uid || event.Note == "" {
				t.Errorf("an event %s on %v with the note %q, want it on the ConfigMap %s of the UID %s", event.Reason, event.Regarding, event.Note, name, p.uid)
			}
		}
	}
	for reason, names := range want {
		slices.Sort(names)
		slices.Sort(got[reason])
		if !slices.Equal(names, got[reason]) {
			return fmt.Errorf("events %s on %v, want them on %v", reason, got[reason], names)
		}
	}
	return nil
}

// deletions are when objects went.
type deletions struct {
	mu   sync.Mutex
	when map[string]time.Time
}

func watchDeletions(t *testing.T, client corev1client.ConfigMapInterface) *deletions {
	t.Helper()
	d := &deletions{when: map[string]time.Time{}}
	events, err := client.Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(events.Stop)
	go func() {
		for event := range events.ResultChan() {
			if object, ok := event.Object.(*corev1.ConfigMap); ok && event.Type == "DELETED" {
				d.mu.Lock()
				d.when[object.Name] = time.Now()
				d.mu.Unlock()
			}
		}
	}()
	return d
}

func (d *deletions) await(t *testing.T, name string) (when time.Time) {
	t.Helper()
	cluster.Eventually(t, 20*time.Second, name+" goes", func() error {
		d.mu.Lock()
		defer d.mu.Unlock()
		if when = d.when[name]; when.IsZero() {
			return errors.New("it is still there")
		}
		return nil
	})
	return when
}

// TestObjectTTLAmongManyObjects has some of many objects expire at one instant, and the
// leader killed shortly before.
func TestObjectTTLAmongManyObjects(t *testing.T) {
	const namespace = "ttl-many"
	all := many()
	stay := all * 7 / 10
	shared.Namespace(t, namespace)
	f := newFleet(t, 2, namespace, "object-ttl", "--object-ttl-workers=10")
	client := shared.Client.CoreV1().ConfigMaps(namespace)
	began := time.Now()
	due := began.Add(5*time.Second + time.Duration(all)*time.Millisecond).Truncate(time.Second).UTC()
	inParallel(t, all, func(i int) error {
		object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("go-%d", i), Annotations: map[string]string{expiresAt: due.Format(time.RFC3339)}}}
		if i < stay {
			object.Name, object.Annotations = fmt.Sprintf("stay-%d", i), map[string]string{ttl: "1h"}
		}
		_, err := client.Create(t.Context(), object, metav1.CreateOptions{})
		return err
	})
	filled := time.Since(began)
	f.killLeader(t)
	if ahead := time.Until(due); ahead > 0 {
		if got := names(t, client); len(got) < all {
			t.Errorf("%v before their time there are %d objects, want %d", ahead, len(got), all)
		}
	}
	cluster.Eventually(t, 60*time.Second, "the last has gone", func() error {
		if got := names(t, client); len(got) > stay {
			time.Sleep(100 * time.Millisecond) // each look costs the API server something
			return fmt.Errorf("there are %d objects, want %d", len(got), stay)
		}
		return nil
	})
	for _, name := range names(t, client) {
		if !strings.HasPrefix(name, "stay-") {
			t.Errorf("%s has stayed", name)
		}
	}
	if got := len(names(t, client)); got != stay {
		t.Errorf("%d objects have stayed, want %d", got, stay)
	}
	t.Logf("%d objects made in %v; %d were gone %v after their instant", all, filled.Round(time.Millisecond), all-stay, time.Since(due).Round(100*time.Millisecond))
}

// many is how many objects a test of large numbers has.
func many() int {
	if os.Getenv("CHAOS") != "" {
		return 10000
	}
	return 2000
}

// names returns those of the ConfigMaps of the test.
func names(t *testing.T, client corev1client.ConfigMapInterface) (names []string) {
	t.Helper()
	list, err := client.List(t.Context(), metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		t.Fatal(err)
	}
	for i := range list.Items {
		if name := list.Items[i].Name; name != "kube-root-ca.crt" {
			names = append(names, name)
		}
	}
	return names
}
