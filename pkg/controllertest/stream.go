// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package controllertest

import (
	"sync"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
)

// conversion gives an object the form that a client expects.
type conversion func(runtime.Object) (runtime.Object, error)

// stream is a watch. It holds whatever its reader has not taken yet.
type stream struct {
	server  *server
	gvr     schema.GroupVersionResource
	matches func(runtime.Object) bool
	convert conversion
	result  chan watch.Event
	ended   chan struct{}
	end     sync.Once

	mu      sync.Mutex
	pending []change
	more    chan struct{} // has room for one
}

var _ watch.Interface = (*stream)(nil)

func newStream(s *server, gvr schema.GroupVersionResource, matches func(runtime.Object) bool, convert conversion) *stream {
	return &stream{
		server: s, gvr: gvr, matches: matches, convert: convert,
		result: make(chan watch.Event), ended: make(chan struct{}), more: make(chan struct{}, 1),
	}
}

// add is called with the server's lock, so that nothing overtakes.
func (w *stream) add(c change) {
	w.mu.Lock()
	w.pending = append(w.pending, c)
	w.mu.Unlock()
	select {
	case w.more <- struct{}{}:
	default:
	}
}

func (w *stream) take() []change {
	w.mu.Lock()
	defer w.mu.Unlock()
	taken := w.pending
	w.pending = nil
	return taken
}

// pump hands events to the reader until the watch is stopped.
func (w *stream) pump() {
	defer close(w.result)
	for {
		for _, c := range w.take() {
			event, concerns := w.event(c)
			if !concerns {
				continue
			}
			select {
			case w.result <- event:
			case <-w.ended:
				return
			}
		}
		select {
		case <-w.more:
		case <-w.ended:
			return
		}
	}
}

// event tells how a change looks to one who sees matching objects only.
func (w *stream) event(c change) (event watch.Event, concerns bool) {
	was := c.before != nil && w.matches(c.before)
	is := c.after != nil && w.matches(c.after)
	object := c.after
	switch {
	case is && was:
		event.Type = watch.Modified
	case is:
		event.Type = watch.Added
	case was:
		event.Type = watch.Deleted
		if object == nil {
			object = c.before
		}
	default:
		return event, false
	}
	var err error
	if event.Object, err = w.convert(object.DeepCopyObject()); err != nil {
		return event, false
	}
	return event, true
}

// ResultChan implements watch.Interface.
func (w *stream) ResultChan() <-chan watch.Event { return w.result }

// Stop implements watch.Interface.
func (w *stream) Stop() {
	w.end.Do(func() {
		w.server.mu.Lock()
		delete(w.server.streams, w)
		w.server.mu.Unlock()
		close(w.ended)
	})
}
