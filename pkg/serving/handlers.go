// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package serving

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/pprof"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/component-base/logs"
	"k8s.io/component-base/metrics"
	"k8s.io/klog/v2"
)

// Metrics serves the metrics of all gatherers as one list, in the formats that
// Kubernetes components speak. A metric that cannot be had, or that two gatherers both
// have with the same labels, is left out or served once, and counted by
// promhttp_metric_handler_errors_total, which goes into the registry of errors; the
// others are not affected.
func Metrics(errors prometheus.Registerer, gatherers ...metrics.Gatherer) http.Handler {
	merged := make(prometheus.Gatherers, len(gatherers))
	for i, gatherer := range gatherers {
		merged[i] = gatherer
	}
	return metrics.HandlerFor(merged, metrics.HandlerOpts{ErrorHandling: metrics.ContinueOnError, Registry: errors})
}

// JSON serves what content returns. Content is called once for each request, from
// many goroutines, and must hold no secrets.
func JSON(content func() any) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		body, err := json.MarshalIndent(content(), "", "  ")
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		write(w, "application/json", string(body)+"\n")
	})
}

// Profiling serves net/http/pprof below /debug/pprof/. The command line is left out:
// /flagz has it, without what is classified.
func Profiling() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return mux
}

// Verbosity shows the verbosity of the logs of this process (-v) on GET, and sets it
// to the request's body on PUT, until the process ends.
func Verbosity() http.Handler {
	flags := flag.NewFlagSet("klog", flag.ContinueOnError)
	klog.InitFlags(flags) // shares its values with klog
	verbosity := flags.Lookup("v").Value
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPut {
			write(w, "text/plain; charset=utf-8", verbosity.String()+"\n")
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		level := strings.TrimSpace(string(body))
		before := verbosity.String()
		if _, err := logs.GlogSetter(level); err != nil {
			http.Error(w, fmt.Sprintf("%q is not a verbosity; send a number such as 4", level), http.StatusBadRequest)
			return
		}
		klog.FromContext(r.Context()).Info("Log verbosity was changed", "from", before, "to", level)
		write(w, "text/plain; charset=utf-8", level+"\n")
	})
}

// named serves the handler that lookup has for the path value "name", as if that
// handler were mounted at the root.
func named(prefix string, lookup func(name string) http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := r.PathValue("name")
		handler := lookup(name)
		if handler == nil {
			http.Error(w, fmt.Sprintf("there is nothing to debug under the name %q", name), http.StatusNotFound)
			return
		}
		http.StripPrefix(prefix+name, handler).ServeHTTP(w, r)
	})
}

func write(w http.ResponseWriter, contentType, body string) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = io.WriteString(w, body)
}
