// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package controllertest

import (
	"fmt"
	"net/http"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	kubernetesfake "k8s.io/client-go/kubernetes/fake"
	metadatafake "k8s.io/client-go/metadata/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/incumbent-io/incumbent/pkg/clients"
)

// admission is asked about each request; see traffic.admit.
type admission func(Request) (done func(), err error)

// form is one of the three fakes: how it wants objects and lists.
type form struct {
	object conversion
	list   func(*metav1.List, clienttesting.ListActionImpl) (runtime.Object, error)
}

// fakes returns clients of all forms over the objects of s. kinds are resources that
// the scheme may not know.
func (s *server) fakes(admit admission, kinds []schema.GroupVersionResource) *clients.Fakes {
	typed := kubernetesfake.NewClientset()
	typed.Resources = s.discovery(kinds)
	s.serve(&typed.Fake, admit, form{object: bare, list: s.typedList})
	lists, known := map[schema.GroupVersionResource]string{}, s.resources()
	for _, gvr := range kinds {
		if known[gvr] == "" {
			lists[gvr] = "ObjectList"
		}
	}
	untyped := dynamicfake.NewSimpleDynamicClientWithCustomListKinds(s.unstructuredScheme(), lists)
	s.serve(&untyped.Fake, admit, form{object: toUnstructured, list: unstructuredList})
	partial := metadatafake.NewSimpleMetadataClient(metadatafake.NewTestScheme())
	s.serve(&partial.Fake, admit, form{object: toPartial, list: partialList})
	return &clients.Fakes{Kubernetes: typed, Dynamic: untyped, Metadata: partial}
}

// unstructuredScheme has the kinds of the server's scheme, for the dynamic fake, which
// learns from it how the lists of a resource are called.
func (s *server) unstructuredScheme() *runtime.Scheme {
	scheme := runtime.NewScheme()
	for kind := range s.scheme.AllKnownTypes() {
		if strings.HasSuffix(kind.Kind, "List") {
			scheme.AddKnownTypeWithName(kind, &unstructured.UnstructuredList{})
		}
	}
	return scheme
}

// resources returns the kinds of the resources that the scheme knows.
func (s *server) resources() map[schema.GroupVersionResource]string {
	known := map[schema.GroupVersionResource]string{}
	for kind := range s.scheme.AllKnownTypes() {
		if s.scheme.Recognizes(kind.GroupVersion().WithKind(kind.Kind + "List")) {
			gvr, _ := meta.UnsafeGuessKindToResource(kind)
			known[gvr] = kind.Kind
		}
	}
	return known
}

// serve has a fake answer from the server.
func (s *server) serve(fake *clienttesting.Fake, admit admission, f form) {
	react := clienttesting.ObjectReaction(s)
	fake.PrependReactor("*", "*", func(action clienttesting.Action) (bool, runtime.Object, error) {
		request, ok := requestOf(action)
		if !ok {
			return false, nil, nil // discovery
		}
		done, err := admit(request)
		if err != nil {
			return true, nil, err
		}
		defer done()
		object, err := s.handle(react, action)
		if err != nil || object == nil {
			return true, nil, err
		}
		if list, ok := object.(*metav1.List); ok {
			object, err = f.list(list, action.(clienttesting.ListActionImpl))
		} else {
			object, err = f.object(object)
		}
		return true, object, err
	})
	fake.PrependWatchReactor("*", func(action clienttesting.Action) (bool, watch.Interface, error) {
		request, _ := requestOf(action)
		done, err := admit(request)
		if err != nil {
			return true, nil, err
		}
		defer done()
		s.mu.Lock()
		defer s.mu.Unlock()
		stream, err := s.watch(action.GetResource(), action.GetNamespace(), action.(clienttesting.WatchActionImpl).ListOptions, f.object)
		return true, stream, err
	})
}

// handle does what the action says, and returns the object as it is afterwards.
func (s *server) handle(react clienttesting.ReactionFunc, action clienttesting.Action) (runtime.Object, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	there := false // before an update
	switch a := action.(type) {
	case clienttesting.DeleteCollectionActionImpl:
		return nil, s.deleteCollection(a.Resource, a.Namespace, a.ListOptions)
	case clienttesting.CreateActionImpl:
		object, err := named(a.Object)
		if err != nil {
			return nil, err
		}
		a.Object = object
		action = a
	case clienttesting.UpdateActionImpl:
		if a.Subresource == "status" {
			object, err := s.withStatus(a)
			if err != nil {
				return nil, err
			}
			a.Object = object
			action = a
		}
		if m, err := meta.Accessor(a.Object); err == nil {
			_, err = s.Get(a.Resource, a.Namespace, m.GetName())
			there = err == nil
		}
	}
	_, object, err := react(action)
	if update, updated := action.(clienttesting.UpdateActionImpl); updated && there && apierrors.IsNotFound(err) {
		return update.Object.DeepCopyObject(), nil // the update has removed the last finalizer
	}
	if err != nil || object == nil {
		return nil, err
	}
	if _, patched := action.(clienttesting.PatchActionImpl); patched {
		m, err := meta.Accessor(object)
		if err != nil {
			return nil, err
		}
		if object, err = s.Get(action.GetResource(), action.GetNamespace(), m.GetName()); apierrors.IsNotFound(err) {
			return nil, nil // the patch has removed the last finalizer
		}
	}
	return object, err
}

// withStatus returns the stored object with the status that the action brings.
func (s *server) withStatus(a clienttesting.UpdateActionImpl) (runtime.Object, error) {
	sent, m, err := s.native(a.Object)
	if err != nil {
		return nil, err
	}
	stored, err := s.stored(a.Resource, a.Namespace, m)
	if err != nil {
		return nil, err
	}
	from, err := runtime.DefaultUnstructuredConverter.ToUnstructured(sent)
	if err != nil {
		return nil, err
	}
	to, err := runtime.DefaultUnstructuredConverter.ToUnstructured(stored)
	if err != nil {
		return nil, err
	}
	to["status"] = from["status"]
	return &unstructured.Unstructured{Object: to}, nil
}

// requestOf returns the request that an action stands for, if it is one for objects.
func requestOf(action clienttesting.Action) (r Request, ok bool) {
	r = Request{Verb: action.GetVerb(), Resource: action.GetResource(), Namespace: action.GetNamespace()}
	if sub := action.GetSubresource(); sub != "" {
		r.Resource.Resource += "/" + sub
	}
	switch a := action.(type) {
	case clienttesting.GetActionImpl:
		r.Name = a.Name
	case clienttesting.CreateActionImpl:
		r.Name = a.Name
		if m, err := meta.Accessor(a.Object); err == nil && r.Name == "" {
			r.Name = m.GetName()
		}
	case clienttesting.UpdateActionImpl:
		if m, err := meta.Accessor(a.Object); err == nil {
			r.Name = m.GetName()
		}
	case clienttesting.PatchActionImpl:
		r.Name = a.Name
	case clienttesting.DeleteActionImpl:
		r.Name = a.Name
	case clienttesting.DeleteCollectionActionImpl:
		r.Verb = "deletecollection"
	case clienttesting.ListActionImpl, clienttesting.WatchActionImpl:
	default:
		return r, false
	}
	return r, true
}

// bare returns what a typed client returns: no kind in the object.
func bare(object runtime.Object) (runtime.Object, error) {
	object.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
	return object, nil
}

func toUnstructured(object runtime.Object) (runtime.Object, error) {
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(object)
	return &unstructured.Unstructured{Object: content}, err
}

// toPartial returns what a metadata client returns: not even the kind.
func toPartial(object runtime.Object) (runtime.Object, error) {
	m, err := meta.Accessor(object)
	if err != nil {
		return nil, err
	}
	partial := meta.AsPartialObjectMetadata(m)
	partial.SetGroupVersionKind(metav1.SchemeGroupVersion.WithKind("PartialObjectMetadata"))
	return partial, nil
}

func (s *server) typedList(found *metav1.List, action clienttesting.ListActionImpl) (runtime.Object, error) {
	list, err := s.scheme.New(action.Kind.GroupVersion().WithKind(action.Kind.Kind + "List"))
	if err != nil {
		return nil, err
	}
	objects := make([]runtime.Object, 0, len(found.Items))
	for _, item := range found.Items {
		object, _ := bare(item.Object)
		objects = append(objects, object)
	}
	if err := meta.SetList(list, objects); err != nil {
		return nil, err
	}
	m, err := meta.ListAccessor(list)
	if err == nil {
		m.SetResourceVersion(found.ResourceVersion)
	}
	return list, err
}

func unstructuredList(found *metav1.List, action clienttesting.ListActionImpl) (runtime.Object, error) {
	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(action.Kind.GroupVersion().WithKind(action.Kind.Kind + "List"))
	list.SetResourceVersion(found.ResourceVersion)
	for _, item := range found.Items {
		object, err := toUnstructured(item.Object)
		if err != nil {
			return nil, err
		}
		list.Items = append(list.Items, *object.(*unstructured.Unstructured))
	}
	return list, nil
}

func partialList(found *metav1.List, _ clienttesting.ListActionImpl) (runtime.Object, error) {
	for i, item := range found.Items {
		object, err := toPartial(item.Object)
		if err != nil {
			return nil, err
		}
		found.Items[i].Object = object
	}
	return found, nil
}

// discovery lists what the scheme knows, and the resources in kinds.
func (s *server) discovery(kinds []schema.GroupVersionResource) (lists []*metav1.APIResourceList) {
	byVersion := map[string]*metav1.APIResourceList{}
	add := func(gvr schema.GroupVersionResource, kind string) {
		version := gvr.GroupVersion().String()
		if byVersion[version] == nil {
			byVersion[version] = &metav1.APIResourceList{GroupVersion: version}
			lists = append(lists, byVersion[version])
		}
		byVersion[version].APIResources = append(byVersion[version].APIResources, metav1.APIResource{
			Name: gvr.Resource, Kind: kind, Namespaced: !clusterScoped[gvr.GroupResource()],
			Verbs: metav1.Verbs{"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"},
		})
	}
	known := s.resources()
	for gvr, kind := range known {
		add(gvr, kind)
	}
	for _, gvr := range kinds {
		if known[gvr] == "" && !strings.Contains(gvr.Resource, "/") {
			add(gvr, "Object")
		}
	}
	return lists
}

// clusterScoped are the built-in resources that belong to no namespace.
var clusterScoped = func() map[schema.GroupResource]bool {
	set := map[schema.GroupResource]bool{}
	for group, resources := range map[string][]string{
		"":                             {"namespaces", "nodes", "persistentvolumes"},
		"admissionregistration.k8s.io": {"mutatingwebhookconfigurations", "validatingadmissionpolicies", "validatingadmissionpolicybindings", "validatingwebhookconfigurations"},
		"apiextensions.k8s.io":         {"customresourcedefinitions"},
		"certificates.k8s.io":          {"certificatesigningrequests", "clustertrustbundles"},
		"flowcontrol.apiserver.k8s.io": {"flowschemas", "prioritylevelconfigurations"},
		"networking.k8s.io":            {"ingressclasses", "ipaddresses", "servicecidrs"},
		"node.k8s.io":                  {"runtimeclasses"},
		"rbac.authorization.k8s.io":    {"clusterrolebindings", "clusterroles"},
		"scheduling.k8s.io":            {"priorityclasses"},
		"storage.k8s.io":               {"csidrivers", "csinodes", "storageclasses", "volumeattachments"},
	} {
		for _, resource := range resources {
			set[schema.GroupResource{Group: group, Resource: resource}] = true
		}
	}
	return set
}()

// notServed is what the API server says of a resource that it does not know.
func notServed(r Request) error {
	return apierrors.NewGenericServerResponse(http.StatusNotFound, r.Verb, r.Resource.GroupResource(), "",
		fmt.Sprintf("the server could not find the requested resource (%s)", r.Resource.GroupResource()), 0, true)
}
