// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package candidate

import (
	"context"
	"fmt"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/incumbent-io/incumbent/test/faults/mono"
)

const (
	// Object is the ConfigMap that the leader writes.
	Object = "record"
	// Marker is a ConfigMap that the campaign writes and candidates watch: what a
	// leader knows of it when it begins tells how fresh its informers are.
	Marker = "marker"
	// sampling is how often permission is looked at.
	sampling = 5 * time.Millisecond
	// writeTimeout bounds a write whose context is not cancelled with the term's.
	writeTimeout = 5 * time.Second
)

// Work is what a leader does: it puts its name and a rising number into an object,
// unconditionally, as fast as it is told to. Nothing in such a write tells the API
// server who leads, so whatever is accepted shows how well writing is guarded.
type Work struct {
	Client    kubernetes.Interface
	Namespace string
	Identity  string
	// Every is the pause between two writes; 0 writes nothing.
	Every time.Duration
	// Drain is how long the work goes on after it was told to stop, unless a write
	// is refused before. 0 stops at once.
	Drain time.Duration
	// Epoch returns the epoch to write.
	Epoch func() int64
	// Permitted returns nil while writing is permitted.
	Permitted func() error
	// IsRefusal tells the errors of writes that were not sent.
	IsRefusal func(error) bool

	written int64
}

// Run works until ctx ends and the drain is over.
func (w *Work) Run(ctx context.Context) {
	Note(Record{What: Run, Who: w.Identity, Epoch: w.Epoch()})
	over := make(chan struct{})
	var sampler sync.WaitGroup
	sampler.Go(func() { w.sample(over) })
	w.loop(ctx)
	ended := mono.Now()
	close(over)
	sampler.Wait()
	Note(Record{What: End, At: ended, Who: w.Identity})
}

func (w *Work) loop(ctx context.Context) {
	var ticks <-chan time.Time
	if w.Every > 0 {
		ticker := time.NewTicker(w.Every)
		defer ticker.Stop()
		ticks = ticker.C
		w.write(ctx)
	}
	stop, drained := ctx.Done(), (<-chan time.Time)(nil)
	for {
		select {
		case <-stop:
			if w.Drain == 0 {
				return
			}
			Note(Record{What: Draining, Who: w.Identity})
			stop, drained = nil, time.After(w.Drain)
		case <-drained:
			return
		case <-ticks:
			if refused := w.write(ctx); refused && stop == nil {
				return
			}
		}
	}
}

// write makes one write and reports whether it was refused.
func (w *Work) write(ctx context.Context) (refused bool) {
	if w.Drain > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), writeTimeout)
		defer cancel()
	}
	w.written++
	r := Record{What: Wrote, Who: w.Identity, Epoch: w.Epoch(), Seq: w.written, Call: mono.Now()}
	patch := fmt.Sprintf(`{"data":{"writer":%q,"epoch":"%d","seq":"%d"}}`, w.Identity, r.Epoch, r.Seq)
	_, err := w.Client.CoreV1().ConfigMaps(w.Namespace).Patch(ctx, Object, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	switch {
	case err == nil:
	case w.IsRefusal(err):
		r.What, r.Note, refused = Refused, err.Error(), true
	default:
		r.What, r.Note = Failed, err.Error()
	}
	Note(r)
	return refused
}

// sample writes down when writing is permitted. An interval in the journal is never
// longer than the real one: it begins after a look and ends before one, however long
// the process is frozen between two instructions.
func (w *Work) sample(over <-chan struct{}) {
	ticker := time.NewTicker(sampling)
	defer ticker.Stop()
	open, last := false, int64(0)
	look := func() {
		before := mono.Now()
		err := w.Permitted()
		switch {
		case err == nil && !open:
			open, last = true, mono.Now()
			Note(Record{What: Permitted, At: last, Who: w.Identity})
		case err == nil:
			last = before
		case open:
			open = false
			Note(Record{What: Forbidden, Who: w.Identity, Until: last, Note: err.Error()})
		}
	}
	for {
		look()
		select {
		case <-ticker.C:
		case <-over:
			if open {
				Note(Record{What: Forbidden, Who: w.Identity, Until: last, Note: "the work has ended"})
			}
			return
		}
	}
}
