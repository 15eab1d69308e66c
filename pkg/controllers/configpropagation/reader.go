// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package configpropagation

import (
	"context"
	"fmt"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// reader reads the content of sources, and keeps it for as long as they are sources.
type reader struct {
	client kubernetes.Interface

	mu    sync.Mutex
	reads map[id]*read
}

// read is the last read of one source. Its lock is held while it is being read, so that
// the source of many copies is read once.
type read struct {
	mu sync.Mutex
	// cached is the version in which the cache had the source when it was read.
	cached string
	source *original // nil: it was not there, or asked for something else
}

// original is the content of a source in one version.
type original struct {
	version     string
	content     content
	fingerprint fingerprint
}

// original returns what a source that the cache has is in its version, or in a newer one
// that asks for the same: whoever takes the annotation away in one write with new content
// does not want that copied. nil: there is no such version, and the event follows.
func (r *reader) original(ctx context.Context, k kind, source *meta) (*original, error) {
	last := r.lastRead(id{k.name, source.Namespace, source.Name})
	last.mu.Lock()
	defer last.mu.Unlock()
	if version := source.ResourceVersion; last.cached == version || last.source != nil && last.source.version == version {
		return last.source, nil
	}
	found, err := k.get(ctx, r.client, source.Namespace, source.Name)
	if err != nil && !apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("reading the source %s %s/%s: %w", k.name, source.Namespace, source.Name, err)
	}
	last.cached, last.source = source.ResourceVersion, nil
	if err == nil && found.UID == source.UID && isSource(found) && found.Annotations[AnnotationTo] == source.Annotations[AnnotationTo] {
		last.source = &original{found.ResourceVersion, found.content, found.content.fingerprint()}
	}
	return last.source, nil
}

func (r *reader) lastRead(source id) *read {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.reads[source] == nil {
		r.reads[source] = &read{}
	}
	return r.reads[source]
}

// forget drops what was read of one that is no longer a source.
func (r *reader) forget(source id) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.reads, source)
}

// pageSize is how many copies are read at a time: each may have a megabyte.
const pageSize = 100

// survey is what lists tell of all copies of a kind, so that a new leader need not get
// each to find that it is as it should be.
type survey struct {
	mu    sync.Mutex
	done  bool
	next  string // page
	found map[id]sight
}

// sight is what a copy is in one version.
type sight struct {
	version     string
	fingerprint fingerprint
	shape       shape
}

func sightOf(o *object) sight {
	return sight{o.ResourceVersion, o.content.fingerprint(), o.shape()}
}

// few is how many copies are rather read one by one.
const few = 10

// begin is called once, with the number of copies at the start of the run.
func (s *survey) begin(copies int) {
	s.done, s.found = copies <= few, map[id]sight{}
}

// take returns, once, what the list has told of a target.
func (s *survey) take(ctx context.Context, client kubernetes.Interface, k kind, target id) (sight, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for !s.done {
		if err := s.turn(ctx, client, k); err != nil {
			return sight{}, fmt.Errorf("listing the copies of %ss: %w", k.name, err)
		}
	}
	seen := s.found[target]
	delete(s.found, target)
	return seen, nil
}

// turn reads the next page. After an error the list goes on where it was, if it can.
func (s *survey) turn(ctx context.Context, client kubernetes.Interface, k kind) error {
	page, next, err := k.list(ctx, client, metav1.ListOptions{LabelSelector: LabelFrom, Limit: pageSize, Continue: s.next})
	if apierrors.IsResourceExpired(err) {
		s.next = ""
	}
	if err != nil {
		return err
	}
	for _, o := range page {
		if isCopy(o) {
			s.found[id{k.name, o.Namespace, o.Name}] = sightOf(o)
		}
	}
	s.next, s.done = next, next == ""
	return nil
}
