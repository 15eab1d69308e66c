// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package controllertest

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/managedfields"
	utilrand "k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/applyconfigurations"
	clientscheme "k8s.io/client-go/kubernetes/scheme"
	clienttesting "k8s.io/client-go/testing"
)

// server is the API server behind the fake clients: the objects, and what happened to
// them. The fakes of client-go alone know no resource versions, no UIDs, no conflicts
// and no finalizers, lose what happens between a list and its watch, and give each
// form of client a world of its own.
//
// The caller of its methods as an ObjectTracker holds mu.
type server struct {
	scheme *runtime.Scheme
	now    func() time.Time

	mu      sync.Mutex
	version int64 // of the newest change
	objects map[schema.GroupVersionResource]map[types.NamespacedName]runtime.Object
	history map[schema.GroupVersionResource][]change
	streams map[*stream]struct{}
	owners  map[schema.GroupVersionKind]*managedfields.FieldManager
}

// change is one event of a resource. Its objects are never changed.
type change struct {
	version       int64
	before, after runtime.Object // nil: there was, or is, none
}

var _ clienttesting.ObjectTracker = (*server)(nil)

func newServer(scheme *runtime.Scheme, now func() time.Time) *server {
	return &server{
		scheme: scheme, now: now,
		version: 1,
		objects: map[schema.GroupVersionResource]map[types.NamespacedName]runtime.Object{},
		history: map[schema.GroupVersionResource][]change{},
		streams: map[*stream]struct{}{},
		owners:  map[schema.GroupVersionKind]*managedfields.FieldManager{},
	}
}

// Add implements clienttesting.ObjectTracker: it puts an object there as it is.
func (s *server) Add(object runtime.Object) error {
	kinds, _, err := s.scheme.ObjectKinds(object)
	if err != nil {
		return fmt.Errorf("%T: %w; add its type to Config.Scheme", object, err)
	}
	gvr, _ := meta.UnsafeGuessKindToResource(kinds[0])
	return s.create(gvr, object, "", "controllertest", true)
}

// Get implements clienttesting.ObjectTracker.
func (s *server) Get(gvr schema.GroupVersionResource, namespace, name string, _ ...metav1.GetOptions) (runtime.Object, error) {
	object := s.objects[gvr][types.NamespacedName{Namespace: namespace, Name: name}]
	if object == nil {
		return nil, apierrors.NewNotFound(gvr.GroupResource(), name)
	}
	return object.DeepCopyObject(), nil
}

// Create implements clienttesting.ObjectTracker.
func (s *server) Create(gvr schema.GroupVersionResource, object runtime.Object, namespace string, opts ...metav1.CreateOptions) error {
	return s.create(gvr, object, namespace, first(opts).FieldManager, false)
}

// create adds an object; given keeps what only an API server sets.
func (s *server) create(gvr schema.GroupVersionResource, object runtime.Object, namespace, manager string, given bool) error {
	object, m, err := s.native(object)
	if err != nil {
		return err
	}
	if m.GetNamespace() == "" {
		m.SetNamespace(namespace)
	}
	switch {
	case namespace != "" && m.GetNamespace() != namespace:
		return apierrors.NewBadRequest(fmt.Sprintf("the namespace of the provided object does not match the namespace sent on the request: %q, %q", m.GetNamespace(), namespace))
	case m.GetName() == "":
		return apierrors.NewBadRequest("name or generateName is required")
	case !given && m.GetResourceVersion() != "":
		return apierrors.NewBadRequest("resourceVersion should not be set on objects to be created")
	case s.objects[gvr][nameOf(m)] != nil:
		return apierrors.NewAlreadyExists(gvr.GroupResource(), m.GetName())
	}
	if !given || m.GetUID() == "" {
		m.SetUID(uuid.NewUUID())
	}
	if stamp := m.GetCreationTimestamp(); !given || stamp.IsZero() {
		m.SetCreationTimestamp(metav1.NewTime(s.now().Truncate(time.Second)))
	}
	if !given {
		m.SetDeletionTimestamp(nil)
	}
	m.SetGeneration(max(m.GetGeneration(), 1))
	m.SetResourceVersion("")
	empty, err := s.New(kindOf(object))
	if err == nil {
		object, err = s.managed(empty, object, manager)
	}
	if err != nil {
		return err
	}
	return s.store(gvr, nil, object)
}

// Update implements clienttesting.ObjectTracker.
func (s *server) Update(gvr schema.GroupVersionResource, object runtime.Object, namespace string, opts ...metav1.UpdateOptions) error {
	return s.update(gvr, object, namespace, first(opts).FieldManager)
}

// Patch implements clienttesting.ObjectTracker; the patch is in the object already.
func (s *server) Patch(gvr schema.GroupVersionResource, object runtime.Object, namespace string, opts ...metav1.PatchOptions) error {
	return s.update(gvr, object, namespace, first(opts).FieldManager)
}

func (s *server) update(gvr schema.GroupVersionResource, object runtime.Object, namespace, manager string) error {
	object, m, err := s.native(object)
	if err != nil {
		return err
	}
	before, err := s.stored(gvr, namespace, m)
	if err != nil {
		return err
	}
	if object, err = s.managed(before.DeepCopyObject(), object, manager); err != nil {
		return err
	}
	return s.replace(gvr, before, object)
}

// stored returns the object that m is to replace, which may be of another time.
func (s *server) stored(gvr schema.GroupVersionResource, namespace string, m metav1.Object) (runtime.Object, error) {
	before := s.objects[gvr][types.NamespacedName{Namespace: namespace, Name: m.GetName()}]
	if before == nil {
		return nil, apierrors.NewNotFound(gvr.GroupResource(), m.GetName())
	}
	old, err := meta.Accessor(before)
	if err != nil {
		return nil, err
	}
	if uid := m.GetUID(); uid != "" && uid != old.GetUID() {
		return nil, apierrors.NewConflict(gvr.GroupResource(), m.GetName(), fmt.Errorf("the UID in the request is %s, that of the object %s", uid, old.GetUID()))
	}
	if v := m.GetResourceVersion(); v != "" && v != old.GetResourceVersion() {
		return nil, apierrors.NewConflict(gvr.GroupResource(), m.GetName(), fmt.Errorf("the object has been modified; please apply your changes to the latest version and try again"))
	}
	return before, nil
}

// Apply implements clienttesting.ObjectTracker.
func (s *server) Apply(gvr schema.GroupVersionResource, patch runtime.Object, namespace string, opts ...metav1.PatchOptions) error {
	m, err := meta.Accessor(patch)
	if err != nil {
		return err
	}
	before, err := s.stored(gvr, namespace, m)
	live := before
	switch {
	case apierrors.IsNotFound(err) && m.GetUID() != "":
		return apierrors.NewConflict(gvr.GroupResource(), m.GetName(), fmt.Errorf("uid mismatch: the provided object specified uid %s, and no existing object was found", m.GetUID()))
	case apierrors.IsNotFound(err):
		live, err = s.New(kindOf(patch))
	}
	if err != nil {
		return err
	}
	fieldManager, err := s.fieldManager(kindOf(patch))
	if err != nil {
		return err
	}
	options := first(opts)
	merged, err := fieldManager.Apply(live.DeepCopyObject(), patch, options.FieldManager, options.Force != nil && *options.Force)
	if err != nil {
		return err
	}
	merged, mm, err := s.native(merged)
	if err != nil {
		return err
	}
	if before != nil {
		return s.replace(gvr, before, merged)
	}
	mm.SetNamespace(namespace)
	mm.SetUID(uuid.NewUUID())
	mm.SetCreationTimestamp(metav1.NewTime(s.now().Truncate(time.Second)))
	mm.SetGeneration(1)
	return s.store(gvr, nil, merged)
}

// replace puts object in the place of before. What changes nothing is no event.
func (s *server) replace(gvr schema.GroupVersionResource, before, object runtime.Object) error {
	old, err := meta.Accessor(before)
	if err != nil {
		return err
	}
	m, err := meta.Accessor(object)
	if err != nil {
		return err
	}
	m.SetNamespace(old.GetNamespace())
	m.SetUID(old.GetUID())
	m.SetCreationTimestamp(old.GetCreationTimestamp())
	m.SetDeletionTimestamp(old.GetDeletionTimestamp())
	m.SetGeneration(old.GetGeneration() + changesOfSpec(before, object))
	m.SetResourceVersion(old.GetResourceVersion())
	if apiequality.Semantic.DeepEqual(before, object) {
		return nil
	}
	if m.GetDeletionTimestamp() != nil && len(m.GetFinalizers()) == 0 {
		return s.store(gvr, object, nil)
	}
	return s.store(gvr, before, object)
}

// changesOfSpec returns 1 if the objects have a spec, and not the same one, and else 0.
func changesOfSpec(before, after runtime.Object) int64 {
	was, errWas := runtime.DefaultUnstructuredConverter.ToUnstructured(before)
	is, errIs := runtime.DefaultUnstructuredConverter.ToUnstructured(after)
	if errWas != nil || errIs != nil || apiequality.Semantic.DeepEqual(was["spec"], is["spec"]) {
		return 0
	}
	return 1
}

// List implements clienttesting.ObjectTracker: a list of whatever form is stored.
func (s *server) List(gvr schema.GroupVersionResource, _ schema.GroupVersionKind, namespace string, opts ...metav1.ListOptions) (runtime.Object, error) {
	list := &metav1.List{ListMeta: metav1.ListMeta{ResourceVersion: strconv.FormatInt(s.version, 10)}}
	matches, err := filter(namespace, first(opts))
	if err != nil {
		return nil, err
	}
	for _, name := range slices.SortedFunc(maps.Keys(s.objects[gvr]), func(a, b types.NamespacedName) int { return strings.Compare(a.String(), b.String()) }) {
		if object := s.objects[gvr][name]; matches(object) {
			list.Items = append(list.Items, runtime.RawExtension{Object: object.DeepCopyObject()})
		}
	}
	return list, nil
}

// Delete implements clienttesting.ObjectTracker.
func (s *server) Delete(gvr schema.GroupVersionResource, namespace, name string, opts ...metav1.DeleteOptions) error {
	before := s.objects[gvr][types.NamespacedName{Namespace: namespace, Name: name}]
	if before == nil {
		return apierrors.NewNotFound(gvr.GroupResource(), name)
	}
	old, err := meta.Accessor(before)
	if err != nil {
		return err
	}
	if want := first(opts).Preconditions; want != nil {
		if want.UID != nil && *want.UID != old.GetUID() {
			return apierrors.NewConflict(gvr.GroupResource(), name, fmt.Errorf("the UID in the precondition (%s) does not match the UID in record (%s)", *want.UID, old.GetUID()))
		}
		if want.ResourceVersion != nil && *want.ResourceVersion != old.GetResourceVersion() {
			return apierrors.NewConflict(gvr.GroupResource(), name, fmt.Errorf("the ResourceVersion in the precondition (%s) does not match the ResourceVersion in record (%s)", *want.ResourceVersion, old.GetResourceVersion()))
		}
	}
	if len(old.GetFinalizers()) == 0 {
		return s.store(gvr, before, nil)
	}
	if old.GetDeletionTimestamp() != nil {
		return nil
	}
	after := before.DeepCopyObject()
	m, err := meta.Accessor(after)
	if err != nil {
		return err
	}
	stamp := metav1.NewTime(s.now().Truncate(time.Second))
	m.SetDeletionTimestamp(&stamp)
	return s.store(gvr, before, after)
}

// deleteCollection is what no ObjectReaction knows.
func (s *server) deleteCollection(gvr schema.GroupVersionResource, namespace string, options metav1.ListOptions) error {
	matches, err := filter(namespace, options)
	if err != nil {
		return err
	}
	for name, object := range s.objects[gvr] {
		if matches(object) {
			if err := s.Delete(gvr, name.Namespace, name.Name); err != nil {
				return err
			}
		}
	}
	return nil
}

// store makes a change, and tells the streams. One of the objects may be nil.
func (s *server) store(gvr schema.GroupVersionResource, before, after runtime.Object) error {
	s.version++
	c := change{version: s.version, before: before, after: after}
	last := after
	if after == nil {
		last = before.DeepCopyObject()
		c.before = last
	}
	m, err := meta.Accessor(last)
	if err != nil {
		return err
	}
	m.SetResourceVersion(strconv.FormatInt(s.version, 10))
	if s.objects[gvr] == nil {
		s.objects[gvr] = map[types.NamespacedName]runtime.Object{}
	}
	if after == nil {
		delete(s.objects[gvr], nameOf(m))
	} else {
		s.objects[gvr][nameOf(m)] = after
	}
	s.history[gvr] = append(s.history[gvr], c)
	for stream := range s.streams {
		if stream.gvr == gvr {
			stream.add(c)
		}
	}
	return nil
}

// Watch implements clienttesting.ObjectTracker.
func (s *server) Watch(gvr schema.GroupVersionResource, namespace string, opts ...metav1.ListOptions) (watch.Interface, error) {
	return s.watch(gvr, namespace, first(opts), func(object runtime.Object) (runtime.Object, error) { return object, nil })
}

// watch begins after the version in the options, or with all objects without one.
func (s *server) watch(gvr schema.GroupVersionResource, namespace string, options metav1.ListOptions, convert conversion) (*stream, error) {
	matches, err := filter(namespace, options)
	if err != nil {
		return nil, err
	}
	w := newStream(s, gvr, matches, convert)
	if v := options.ResourceVersion; v == "" || v == "0" {
		for _, object := range s.objects[gvr] {
			w.add(change{after: object})
		}
	} else {
		since, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("resourceVersion %q: %v", v, err))
		}
		for _, c := range s.history[gvr] {
			if c.version > since {
				w.add(c)
			}
		}
	}
	s.streams[w] = struct{}{}
	go w.pump()
	return w, nil
}

// versions returns the resource versions of all objects that a list would return.
func (s *server) versions(gvr schema.GroupVersionResource, namespace string, options metav1.ListOptions) (map[types.NamespacedName]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	matches, err := filter(namespace, options)
	if err != nil {
		return nil, err
	}
	found := map[types.NamespacedName]string{}
	for name, object := range s.objects[gvr] {
		if m, err := meta.Accessor(object); err == nil && matches(object) {
			found[name] = m.GetResourceVersion()
		}
	}
	return found, nil
}

// native returns a copy of the object in the form in which it is stored: typed if the
// scheme knows its kind, with the kind in it.
func (s *server) native(object runtime.Object) (runtime.Object, metav1.Object, error) {
	kind := kindOf(object)
	if u, ok := object.(*unstructured.Unstructured); ok && s.scheme.Recognizes(kind) {
		typed, err := s.scheme.New(kind)
		if err != nil {
			return nil, nil, err
		}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.UnstructuredContent(), typed); err != nil {
			return nil, nil, apierrors.NewBadRequest(err.Error())
		}
		object = typed
	} else {
		object = object.DeepCopyObject()
	}
	if kind.Empty() {
		kinds, _, err := s.scheme.ObjectKinds(object)
		if err != nil {
			return nil, nil, err
		}
		kind = kinds[0]
	}
	object.GetObjectKind().SetGroupVersionKind(kind)
	m, err := meta.Accessor(object)
	return object, m, err
}

// managed returns object with its managedFields.
func (s *server) managed(before, object runtime.Object, manager string) (runtime.Object, error) {
	if manager == "" {
		manager = "controllertest"
	}
	fieldManager, err := s.fieldManager(kindOf(object))
	if err != nil {
		return nil, err
	}
	return fieldManager.Update(before, object, manager)
}

// builtIn knows how the fields of the built-in types are merged.
var builtIn = sync.OnceValue(func() managedfields.TypeConverter {
	return applyconfigurations.NewTypeConverter(clientscheme.Scheme)
})

func (s *server) fieldManager(kind schema.GroupVersionKind) (*managedfields.FieldManager, error) {
	if known := s.owners[kind]; known != nil {
		return known, nil
	}
	schemas := builtIn()
	if !clientscheme.Scheme.Recognizes(kind) {
		schemas = managedfields.NewDeducedTypeConverter()
	}
	made, err := managedfields.NewDefaultFieldManager(schemas, unconverted{s.scheme}, undefaulted{}, s, kind, kind.GroupVersion(), "", nil)
	if err == nil {
		s.owners[kind] = made
	}
	return made, err
}

// New implements runtime.ObjectCreater for kinds that the scheme does not know, too. The
// object has nothing but its kind.
func (s *server) New(kind schema.GroupVersionKind) (object runtime.Object, err error) {
	object = &unstructured.Unstructured{Object: map[string]any{}}
	if s.scheme.Recognizes(kind) {
		if object, err = s.scheme.New(kind); err != nil {
			return nil, err
		}
	}
	object.GetObjectKind().SetGroupVersionKind(kind)
	return object, nil
}

// unconverted keeps objects as they are: each version of a resource is stored apart.
type unconverted struct{ *runtime.Scheme }

func (unconverted) ConvertToVersion(in runtime.Object, _ runtime.GroupVersioner) (runtime.Object, error) {
	return in, nil
}

type undefaulted struct{}

func (undefaulted) Default(runtime.Object) {}

// filter tells which objects a list or a watch is about.
func filter(namespace string, options metav1.ListOptions) (func(runtime.Object) bool, error) {
	selector, err := labels.Parse(options.LabelSelector)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	names, err := fields.ParseSelector(options.FieldSelector)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	for _, r := range names.Requirements() {
		if r.Field != "metadata.name" && r.Field != "metadata.namespace" {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("field label %q: the fake API server knows metadata.name and metadata.namespace only", r.Field))
		}
	}
	return func(object runtime.Object) bool {
		m, err := meta.Accessor(object)
		return err == nil && (namespace == "" || m.GetNamespace() == namespace) && selector.Matches(labels.Set(m.GetLabels())) &&
			names.Matches(fields.Set{"metadata.name": m.GetName(), "metadata.namespace": m.GetNamespace()})
	}, nil
}

// named returns the object with a name in the place of generateName.
func named(object runtime.Object) (runtime.Object, error) {
	m, err := meta.Accessor(object)
	if err != nil || m.GetName() != "" || m.GetGenerateName() == "" {
		return object, err
	}
	object = object.DeepCopyObject()
	if m, err = meta.Accessor(object); err == nil {
		m.SetName(m.GetGenerateName() + utilrand.String(5))
	}
	return object, err
}

func nameOf(m metav1.Object) types.NamespacedName {
	return types.NamespacedName{Namespace: m.GetNamespace(), Name: m.GetName()}
}

func kindOf(object runtime.Object) schema.GroupVersionKind {
	return object.GetObjectKind().GroupVersionKind()
}

func first[T any](options []T) (option T) {
	if len(options) > 0 {
		option = options[0]
	}
	return option
}
