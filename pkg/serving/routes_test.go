// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package serving_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	flagz "k8s.io/apiserver/pkg/server/flagz/api/v1beta1"
	statusz "k8s.io/apiserver/pkg/server/statusz/api/v1beta1"
	"k8s.io/component-base/metrics"

	"github.com/incumbent-io/incumbent/pkg/serving"
)

// says answers every request with its text and the path it sees.
func says(text string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = fmt.Fprint(w, text, " ", r.URL.Path) })
}

// counting is a registry with one counter that has been counted up n times.
func counting(name string, n float64) metrics.KubeRegistry {
	registry := metrics.NewKubeRegistry()
	counter := metrics.NewCounter(&metrics.CounterOpts{Name: name, Help: "Counts."})
	registry.MustRegister(counter)
	counter.Add(n)
	return registry
}

func allRoutes() serving.Routes {
	return serving.Routes{
		Manager: "fleet", Version: "v1.2.3-dev",
		Live: says("live"), Ready: says("ready"), Health: says("health"), Status: says("status"),
		Metrics:   serving.Metrics(counting("errors_total", 0).Registerer(), counting("one_total", 1), counting("two_total", 2)),
		SLIs:      serving.Metrics(counting("errors_total", 0).Registerer(), counting("sli_total", 3)),
		Config:    func() any { return map[string]int{"quota": 5} },
		Flags:     map[string]string{"workers": "2", "controllers": "*"},
		Profiling: true,
		Debug: func(controller string) http.Handler {
			if controller != "quota" {
				return nil
			}
			return says("debug")
		},
	}
}

func ask(handler http.Handler, method, target, body string) (int, string) {
	recorder := httptest.NewRecorder()
	handler.ServeHTTP(recorder, httptest.NewRequest(method, target, strings.NewReader(body)))
	return recorder.Code, recorder.Body.String()
}

func TestRoutesLeadToTheirHandlers(t *testing.T) {
	handler := allRoutes().Handler()
	for name, tc := range map[string]struct {
		method, target string
		status         int
		contains       string
		not            string
	}{
		"liveness":                    {target: "/livez", status: 200, contains: "live /livez"},
		"one check":                   {target: "/readyz/election", status: 200, contains: "ready /readyz/election"},
		"health of a controller":      {target: "/healthz/quota", status: 200, contains: "health /healthz/quota"},
		"status":                      {target: "/controllers", status: 200, contains: "status"},
		"the manager's metrics":       {target: "/metrics", status: 200, contains: "one_total 1"},
		"the process's metrics":       {target: "/metrics", status: 200, contains: "two_total 2", not: "sli_total"},
		"SLIs":                        {target: "/metrics/slis", status: 200, contains: "sli_total 3"},
		"configuration":               {target: "/configz", status: 200, contains: `"quota": 5`},
		"flags":                       {target: "/flagz", status: 200, contains: "controllers=*\nworkers=2\n"},
		"statusz":                     {target: "/statusz", status: 200, contains: "Binary version: v1.2.3-dev\n"},
		"statusz lists the paths":     {target: "/statusz", status: 200, contains: "/controllers"},
		"statusz lists itself":        {target: "/statusz", status: 200, contains: " /statusz"},
		"profiles":                    {target: "/debug/pprof/", status: 200, contains: "goroutine"},
		"a profile":                   {target: "/debug/pprof/goroutine?debug=1", status: 200, contains: "goroutine profile"},
		"the command line stays here": {target: "/debug/pprof/cmdline", status: 404},
		"a controller's pages":        {target: "/debug/controllers/quota/queue", status: 200, contains: "debug /queue"},
		"a controller's first page":   {target: "/debug/controllers/quota/", status: 200, contains: "debug /"},
		"a slash is added":            {target: "/debug/controllers/quota", status: 307},
		"a controller without pages":  {target: "/debug/controllers/drain/", status: 404, contains: `"drain"`},
		"nothing":                     {target: "/nothing", status: 404},
		"reading only":                {method: "POST", target: "/configz", status: 405},
		"HEAD is reading":             {method: "HEAD", target: "/configz", status: 200},
	} {
		t.Run(name, func(t *testing.T) {
			method := tc.method
			if method == "" {
				method = "GET"
			}
			status, body := ask(handler, method, tc.target, "")
			if status != tc.status || !strings.Contains(body, tc.contains) || tc.not != "" && strings.Contains(body, tc.not) {
				t.Errorf("got %d %s\nwant %d with %q and without %q", status, body, tc.status, tc.contains, tc.not)
			}
		})
	}
}

func TestIndexListsThePaths(t *testing.T) {
	for name, tc := range map[string]struct {
		routes serving.Routes
		want   []string
	}{
		"all": {allRoutes(), []string{
			"/configz", "/controllers", "/debug/controllers/NAME/", "/debug/flags/v", "/debug/pprof/", "/flagz",
			"/healthz", "/livez", "/metrics", "/metrics/slis", "/readyz", "/statusz",
		}},
		"few": {serving.Routes{Manager: "fleet", Version: "(devel)", Live: says("live")}, []string{"/debug/flags/v", "/livez", "/statusz"}},
	} {
		t.Run(name, func(t *testing.T) {
			handler := tc.routes.Handler()
			_, body := ask(handler, "GET", "/", "")
			var index struct{ Paths []string }
			if err := json.Unmarshal([]byte(body), &index); err != nil {
				t.Fatalf("%v in %s", err, body)
			}
			if diff := cmp.Diff(tc.want, index.Paths); diff != "" {
				t.Errorf("paths (-want +got):\n%s", diff)
			}
			for _, path := range index.Paths {
				if status, body := ask(handler, "GET", strings.Replace(path, "NAME", "quota", 1), ""); status != 200 {
					t.Errorf("%s is listed but answers %d %s", path, status, body)
				}
			}
		})
	}
}

// TestPagesAreObjectsForWhoAsksForTheKind asks as kubectl and collectors do.
func TestPagesAreObjectsForWhoAsksForTheKind(t *testing.T) {
	handler := allRoutes().Handler()
	ask := func(path, accept string) (contentType, body string) {
		request := httptest.NewRequest("GET", path, nil)
		request.Header.Set("Accept", accept)
		recorder := httptest.NewRecorder()
		handler.ServeHTTP(recorder, request)
		return recorder.Header().Get("Content-Type"), recorder.Body.String()
	}
	_, body := ask("/statusz", "text/html, application/json;g=config.k8s.io;v=v1beta1;as=Statusz")
	var status statusz.Statusz
	if err := json.Unmarshal([]byte(body), &status); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	if status.Kind != "Statusz" || status.APIVersion != "config.k8s.io/v1beta1" || status.Name != "fleet" || status.BinaryVersion != "v1.2.3-dev" ||
		time.Since(status.StartTime.Time) > time.Hour || !slices.Contains(status.Paths, "/flagz") {
		t.Errorf("got %s", body)
	}
	_, body = ask("/flagz", "application/json;as=Flagz;v=v1beta1;g=config.k8s.io")
	var flags flagz.Flagz
	if err := json.Unmarshal([]byte(body), &flags); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	if diff := cmp.Diff(allRoutes().Flags, flags.Flags); diff != "" || flags.Kind != "Flagz" {
		t.Errorf("%s; flags (-want +got):\n%s", body, diff)
	}
	for _, accept := range []string{"", "*/*", "application/json", "application/json;g=config.k8s.io;v=v9;as=Statusz", "application/json;g=config.k8s.io;v=v1beta1;as=Flagz", ";;;"} {
		if got, _ := ask("/statusz", accept); got != "text/plain; charset=utf-8" {
			t.Errorf("Accept: %q: got %s, want text", accept, got)
		}
	}
}

func TestMetricsSurviveAClash(t *testing.T) {
	errors := metrics.NewKubeRegistry()
	handler := serving.Metrics(errors.Registerer(), counting("same_total", 1), counting("same_total", 2), counting("other_total", 3))
	status, body := ask(handler, "GET", "/metrics", "")
	if status != 200 || !strings.Contains(body, "other_total 3") || strings.Count(body, "\nsame_total ") != 1 {
		t.Errorf("got %d %s\nwant 200 with other_total, and same_total once", status, body)
	}
	recorder := httptest.NewRecorder()
	serving.Metrics(prometheus.NewRegistry(), errors).ServeHTTP(recorder, httptest.NewRequest("GET", "/metrics", nil))
	if want := `promhttp_metric_handler_errors_total{cause="gathering"} 1`; !strings.Contains(recorder.Body.String(), want) {
		t.Errorf("got %s\nwant it to contain %s", recorder.Body.String(), want)
	}
}

func TestMetricsSpeakProtobuf(t *testing.T) {
	request := httptest.NewRequest("GET", "/metrics", nil)
	request.Header.Set("Accept", "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited")
	recorder := httptest.NewRecorder()
	serving.Metrics(prometheus.NewRegistry(), counting("one_total", 1)).ServeHTTP(recorder, request)
	if got := recorder.Header().Get("Content-Type"); !strings.HasPrefix(got, "application/vnd.google.protobuf") {
		t.Errorf("got %q, want protobuf", got)
	}
}

func TestVerbosityIsShownAndSet(t *testing.T) {
	handler := allRoutes().Handler()
	_, before := ask(handler, "GET", "/debug/flags/v", "")
	defer ask(handler, "PUT", "/debug/flags/v", before)
	if status, body := ask(handler, "PUT", "/debug/flags/v", "7\n"); status != 200 {
		t.Errorf("PUT 7: got %d %s, want 200", status, body)
	}
	if _, got := ask(handler, "GET", "/debug/flags/v", ""); got != "7\n" {
		t.Errorf("after PUT 7: got %q, want 7", got)
	}
	for _, wrong := range []string{"loud", "-1", ""} {
		if status, body := ask(handler, "PUT", "/debug/flags/v", wrong); status != 400 {
			t.Errorf("PUT %q: got %d %s, want 400", wrong, status, body)
		}
	}
	if _, got := ask(handler, "GET", "/debug/flags/v", ""); got != "7\n" {
		t.Errorf("after mistakes: got %q, want 7 still", got)
	}
}

func TestConfigurationThatCannotBeShownIsAnError(t *testing.T) {
	if status, body := ask(serving.JSON(func() any { return func() {} }), "GET", "/", ""); status != 500 {
		t.Errorf("got %d %s, want 500", status, body)
	}
}

func ExampleRoutes() {
	routes := serving.Routes{
		Manager: "fleet-manager",
		Version: "v1.0.0",
		Live:    http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }),
		Config: func() any {
			return map[string]any{"controllers": map[string]any{"quota": map[string]any{"workers": 2}}}
		},
	}
	recorder := httptest.NewRecorder()
	routes.Handler().ServeHTTP(recorder, httptest.NewRequest("GET", "/livez", nil))
	fmt.Println(recorder.Body.String())
	// Output: ok
}
