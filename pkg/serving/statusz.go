// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package serving

import (
	"context"
	"fmt"
	"maps"
	"mime"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	flagz "k8s.io/apiserver/pkg/server/flagz/api/v1beta1"
	statusz "k8s.io/apiserver/pkg/server/statusz/api/v1beta1"
	"k8s.io/component-base/metrics"
	"k8s.io/klog/v2"
)

// page is what every Kubernetes component has: a text for people, and an object for who
// asks for its kind (Accept: application/json;g=config.k8s.io;v=v1beta1;as=Statusz). The
// handlers of k8s.io/apiserver would link CEL and admission.
type page struct {
	kind   schema.GroupVersionKind
	text   func(context.Context) string
	object func(context.Context, metav1.TypeMeta) any
}

// ServeHTTP implements http.Handler.
func (p page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !p.askedFor(r) {
		write(w, "text/plain; charset=utf-8", p.text(r.Context()))
		return
	}
	header := metav1.TypeMeta{APIVersion: p.kind.GroupVersion().String(), Kind: p.kind.Kind}
	JSON(func() any { return p.object(r.Context(), header) }).ServeHTTP(w, r)
}

// askedFor tells whether a request accepts the object.
func (p page) askedFor(r *http.Request) bool {
	for clause := range strings.SplitSeq(strings.Join(r.Header.Values("Accept"), ","), ",") {
		media, parameters, err := mime.ParseMediaType(clause)
		if err == nil && media == "application/json" && parameters["g"] == p.kind.Group && parameters["v"] == p.kind.Version && parameters["as"] == p.kind.Kind {
			return true
		}
	}
	return false
}

// statusz tells what runs here, since when, and which paths it serves.
func (r Routes) statusz(paths []string) http.Handler {
	return page{
		kind: statusz.SchemeGroupVersion.WithKind("Statusz"),
		text: func(ctx context.Context) string {
			started, up := age(ctx)
			return fmt.Sprintf("%s statusz\n\nStarted: %s\nUp: %s\nGo version: %s\nBinary version: %s\nPaths: %s\n",
				r.Manager, started.UTC().Format(time.RFC3339), up, runtime.Version(), r.Version, strings.Join(paths, " "))
		},
		object: func(ctx context.Context, header metav1.TypeMeta) any {
			started, up := age(ctx)
			return statusz.Statusz{
				TypeMeta:      header,
				ObjectMeta:    metav1.ObjectMeta{Name: r.Manager},
				StartTime:     metav1.NewTime(started),
				UptimeSeconds: int64(up.Seconds()),
				GoVersion:     runtime.Version(),
				BinaryVersion: r.Version,
				Paths:         paths,
			}
		},
	}
}

// age tells when the process started and how long ago that is, in whole seconds.
func age(ctx context.Context) (started time.Time, up time.Duration) {
	seconds, err := metrics.GetProcessStart()
	if err != nil {
		klog.FromContext(ctx).Error(err, "Cannot find out when the process started")
	}
	started = time.Unix(int64(seconds), 0)
	return started, max(0, time.Since(started).Truncate(time.Second))
}

// flagz tells the values of the flags.
func (r Routes) flagz() http.Handler {
	return page{
		kind: flagz.SchemeGroupVersion.WithKind("Flagz"),
		text: func(context.Context) string {
			var text strings.Builder
			fmt.Fprintf(&text, "%s flagz\n\n", r.Manager)
			for _, name := range slices.Sorted(maps.Keys(r.Flags)) {
				fmt.Fprintf(&text, "%s=%s\n", name, r.Flags[name])
			}
			return text.String()
		},
		object: func(_ context.Context, header metav1.TypeMeta) any {
			return flagz.Flagz{TypeMeta: header, ObjectMeta: metav1.ObjectMeta{Name: r.Manager}, Flags: r.Flags}
		},
	}
}
