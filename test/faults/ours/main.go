// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

// Command ours is Incumbent as a candidate of the fault campaign: the whole manager,
// with one controller that writes and keeps a journal.
package main

import (
	"context"
	"os"
	"time"

	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/client-go/tools/cache"

	"github.com/incumbent-io/incumbent/pkg/clients"
	"github.com/incumbent-io/incumbent/pkg/controllers"
	"github.com/incumbent-io/incumbent/pkg/manager"
	"github.com/incumbent-io/incumbent/test/faults/candidate"
	"github.com/incumbent-io/incumbent/test/faults/mono"
)

// options are the settings of the writer.
type options struct {
	every, drain time.Duration
}

func (o *options) AddFlags(flags *pflag.FlagSet) {
	flags.DurationVar(&o.every, "every", o.every, "Pause between two writes; 0 writes nothing.")
	flags.DurationVar(&o.drain, "drain", o.drain, "How long to go on after being told to stop.")
}

func (*options) Validate(*field.Path) field.ErrorList { return nil }

// writer is the controller.
type writer struct {
	work   candidate.Work
	marker cache.SharedIndexInformer
}

func newWriter(ctx context.Context, c *controllers.Context, o *options) (controllers.Controller, error) {
	i := c.Instance
	w := &writer{
		work: candidate.Work{
			Client: c.Clients.Kubernetes(), Namespace: i.PodNamespace, Identity: i.Identity,
			Every: o.every, Drain: o.drain, IsRefusal: controllers.IsNotLeader,
		},
		marker: c.Informers.In(clients.Scope{
			Namespace: i.PodNamespace, FieldSelector: "metadata.name=" + candidate.Marker,
		}).Typed().Core().V1().ConfigMaps().Informer(),
	}
	candidate.Note(candidate.Record{What: candidate.Built, Who: i.Identity, Note: os.Getenv("POD_IP")})
	if _, err := w.marker.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { w.knows(object) },
		UpdateFunc: func(_, object any) { w.knows(object) },
	}); err != nil {
		return nil, err
	}
	go func() {
		if cache.WaitForCacheSync(ctx.Done(), w.marker.HasSynced) {
			candidate.Note(candidate.Record{What: candidate.Warm, Who: i.Identity})
		}
	}()
	return w, nil
}

// Run implements controllers.Controller.
func (w *writer) Run(ctx context.Context) error {
	term := controllers.TermFrom(ctx)
	w.work.Epoch, w.work.Permitted = term.Epoch, term.Check
	w.work.Run(ctx)
	return nil
}

// knows notes what the informer tells of the marker, from the begin of the work on.
func (w *writer) knows(object any) {
	candidate.Note(candidate.Record{What: candidate.Knows, Who: w.work.Identity, Note: object.(*corev1.ConfigMap).Data["value"]})
}

func main() {
	candidate.Note(candidate.Record{What: candidate.Began, At: mono.Began})
	os.Exit(manager.Main("ours", controllers.NewRegistry(controllers.Descriptor[*options]{
		Name:    "writer",
		Summary: "Writes as fast as it is told to, and keeps a journal.",
		Options: func() *options { return &options{} },
		Init:    newWriter,
	})))
}
