// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package status_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/incumbent-io/incumbent/pkg/status"
)

var update = flag.Bool("update", false, "write the golden files in testdata anew")

var now = time.Date(2026, 3, 4, 15, 16, 17, 0, time.UTC)

func ago(d time.Duration) time.Time { return now.Add(-d) }

// leader is a replica that leads one of its two groups.
func leader() status.Snapshot {
	depth := 0
	return status.Snapshot{
		Manager: "fleet-manager", Version: "v1.4.0", Identity: "fleet-manager-7d9c-x2x_b1", Pod: "fleet/fleet-manager-7d9c-x2x",
		Started: ago(49 * time.Hour), Taken: now,
		Groups: []status.Group{
			{Name: "default", Lease: "fleet/fleet-manager", State: status.Leader, Holder: "fleet-manager-7d9c-x2x_b1", Epoch: 12, Since: ago(3*time.Hour + 12*time.Minute), LeaseAge: metav1.Duration{Duration: 400 * time.Millisecond}, FenceOpen: true, InFlight: 2},
			{Name: "nodes", Lease: "fleet/fleet-manager-nodes", State: "standby", Holder: "fleet-manager-7d9c-k8p_c7", HolderEpoch: 4, HolderSince: ago(48 * time.Hour), LeaseAge: metav1.Duration{Duration: 1300 * time.Millisecond}},
		},
		Controllers: []status.Controller{
			{Name: "archive", Group: "default", Summary: "Keeps old reports elsewhere.", State: "disabled", Reason: "not in --controllers", Since: ago(49 * time.Hour)},
			{Name: "drain", Group: "nodes", Summary: "Empties nodes before they go.", State: "warm", Since: ago(48 * time.Hour)},
			{Name: "label", Summary: "Labels the Pod of each replica.", State: "running", Since: ago(49 * time.Hour)},
			{Name: "quota", Group: "default", Summary: "Keeps a ResourceQuota in every namespace that asks for one.", State: "running", Since: ago(3 * time.Hour), QueueDepth: &depth},
			{Name: "report", Group: "default", Summary: "Writes a report each night.", State: "backoff", Since: ago(4 * time.Second), Restarts: map[string]int{"panicked": 1, "failed": 4}, LastError: "storage is full", LastErrorAt: ago(4 * time.Second), RetryAt: now.Add(12 * time.Second)},
			{Name: "widget", Group: "default", Summary: "Makes widgets.", State: "blocked", Reason: "the API widgets.example.com/v1 is not there", Since: ago(90 * time.Minute)},
		},
		Config: status.Config{File: "/etc/fleet/config.yaml", LoadedAt: ago(2 * time.Hour), Error: `controllers.quota.workers: 0 is not positive`, NeedsRestart: []string{"leaderElection.leaseDuration"}, Pinned: []string{"controllers.drain.workers"}},
	}
}

// standby is another replica of the same manager.
func standby() status.Snapshot {
	s := leader()
	s.Identity, s.Pod = "fleet-manager-7d9c-k8p_c7", "fleet/fleet-manager-7d9c-k8p"
	s.Groups = []status.Group{
		{Name: "default", Lease: "fleet/fleet-manager", State: "standby", Holder: "fleet-manager-7d9c-x2x_b1", LeaseAge: metav1.Duration{Duration: 600 * time.Millisecond}},
		{Name: "nodes", Lease: "fleet/fleet-manager-nodes", State: status.Leader, Holder: "fleet-manager-7d9c-k8p_c7", Epoch: 4, Since: ago(48 * time.Hour), LeaseAge: metav1.Duration{Duration: 200 * time.Millisecond}, FenceOpen: true},
	}
	s.Controllers = []status.Controller{
		{Name: "drain", Group: "nodes", State: "running", Since: ago(48 * time.Hour)},
		{Name: "label", State: "running", Since: ago(49 * time.Hour)},
		{Name: "quota", Group: "default", State: "warm", Since: ago(49 * time.Hour)},
	}
	s.Config = status.Config{}
	return s
}

// get asks the handler of a snapshot.
func get(snapshot status.Snapshot, target, accept string) *httptest.ResponseRecorder {
	request := httptest.NewRequest("GET", target, nil)
	if accept != "" {
		request.Header.Set("Accept", accept)
	}
	recorder := httptest.NewRecorder()
	status.Handler(func() status.Snapshot { return snapshot }).ServeHTTP(recorder, request)
	return recorder
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got; go test -update writes it anew):\n%s", path, diff)
	}
}

func TestFaces(t *testing.T) {
	bare := status.Snapshot{Manager: "fleet-manager", Version: "(devel)", Identity: "host_1", Started: ago(time.Minute), Taken: now}
	for file, got := range map[string]string{
		"leader.json": get(leader(), "/controllers", "application/json").Body.String(),
		"leader.html": get(leader(), "/controllers", "text/html").Body.String(),
		"leader.txt":  get(leader(), "/controllers", "*/*").Body.String(),
		"bare.html":   get(bare, "/controllers?refresh=off", "text/html").Body.String(),
		"bare.txt":    get(bare, "/controllers", "").Body.String(),
		"both.txt":    text(t, 0, standby(), leader()),
		"narrow.txt":  text(t, 80, leader(), standby()),
		"nobody.txt":  text(t, 0),
	} {
		golden(t, file, got)
	}
}

func text(t *testing.T, width int, replicas ...status.Snapshot) string {
	t.Helper()
	var out bytes.Buffer
	if err := status.WriteText(&out, width, replicas...); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestTheRequestChoosesTheFace(t *testing.T) {
	for name, tc := range map[string]struct {
		target, accept string
		status         int
		contentType    string
	}{
		"curl":                    {"/", "*/*", 200, "text/plain; charset=utf-8"},
		"no preference":           {"/", "", 200, "text/plain; charset=utf-8"},
		"a browser":               {"/", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", 200, "text/html; charset=utf-8"},
		"a program":               {"/", "application/json", 200, "application/json"},
		"the first that is known": {"/", "image/png, application/json;q=0.9, text/html", 200, "application/json"},
		"the query wins":          {"/?format=json", "text/html", 200, "application/json"},
		"the query asks for text": {"/?format=text", "text/html", 200, "text/plain; charset=utf-8"},
		"the query asks for html": {"/?format=html", "", 200, "text/html; charset=utf-8"},
		"an unknown format":       {"/?format=yaml", "", 400, "text/plain; charset=utf-8"},
	} {
		got := get(leader(), tc.target, tc.accept)
		if got.Code != tc.status || got.Header().Get("Content-Type") != tc.contentType {
			t.Errorf("%s: got %d %s, want %d %s", name, got.Code, got.Header().Get("Content-Type"), tc.status, tc.contentType)
		}
		for header, want := range map[string]string{"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"} {
			if got := got.Header().Get(header); got != want {
				t.Errorf("%s: %s is %q, want %q", name, header, got, want)
			}
		}
	}
}

func TestJSONComesBackAsItWas(t *testing.T) {
	var got status.Snapshot
	if err := json.Unmarshal(get(leader(), "/", "application/json").Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(leader(), got); diff != "" {
		t.Errorf("snapshot (-want +got):\n%s", diff)
	}
}

// hostile has every text field set to what should do harm.
func hostile(text string) status.Snapshot {
	return status.Snapshot{
		Manager: text, Version: text, Identity: text, Pod: text + "/" + text, Started: now, Taken: now,
		Groups:      []status.Group{{Name: text, Lease: text, State: text, Holder: text, LastError: text}},
		Controllers: []status.Controller{{Name: text, Group: text, Summary: text, State: text, Reason: text, Restarts: map[string]int{text: 1}, LastError: text}},
		Config:      status.Config{File: text, Error: text, NeedsRestart: []string{text}, Pinned: []string{text}},
	}
}

func TestHostileTextDoesNothingToThePage(t *testing.T) {
	tags := regexp.MustCompile(`<[^>]*>`)
	want := tags.FindAllString(get(hostile("plain"), "/", "text/html").Body.String(), -1)
	for _, evil := range []string{
		`<script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, `' onmouseover='alert(1)`, `</style><style>*{display:none}</style>`,
		`{{.Pod}}`, `javascript:alert(1)`, `<!--`, "\x00<b>",
	} {
		got := tags.FindAllString(get(hostile(evil), "/", "text/html").Body.String(), -1)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q changes the tags of the page (-want +got):\n%s", evil, diff)
		}
	}
}

func TestHostileTextDoesNothingToATerminal(t *testing.T) {
	lines := func(text string) int { return strings.Count(text, "\n") }
	want := lines(text(t, 0, hostile("plain")))
	for _, evil := range []string{"\x1b[2J\x1b]0;title\x07", "one\ntwo", "one\ttwo", "\r\u202egpj.exe", "\x00\x9b31m", "\xff\xfe"} {
		got := text(t, 0, hostile(evil))
		if lines(got) != want {
			t.Errorf("%q: %d lines, want %d:\n%s", evil, lines(got), want, got)
		}
		for _, r := range got {
			if r != '\n' && !unicode.IsPrint(r) {
				t.Errorf("%q: the table holds %U", evil, r)
			}
		}
	}
}

func TestLinesAreCut(t *testing.T) {
	for line := range strings.SplitSeq(text(t, 40, leader()), "\n") {
		if n := utf8.RuneCountInString(line); n > 40 {
			t.Errorf("%d characters in %q, want at most 40", n, line)
		}
	}
}

func TestThePolicyAllowsTheStyleAndNothingElse(t *testing.T) {
	answer := get(leader(), "/", "text/html")
	style := regexp.MustCompile(`(?s)<style>(.*)</style>`).FindStringSubmatch(answer.Body.String())
	sum := sha256.Sum256([]byte(style[1]))
	want := "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
	if diff := cmp.Diff(want, answer.Header().Get("Content-Security-Policy")); diff != "" {
		t.Errorf("Content-Security-Policy (-want +got):\n%s", diff)
	}
	for _, foreign := range []string{"<script", "style=", "src=", "<link", "http://", "https://", "url(", "@import"} {
		if strings.Contains(answer.Body.String(), foreign) {
			t.Errorf("the page contains %s, which its policy forbids or which loads something", foreign)
		}
	}
}

func TestThePageIsAccessible(t *testing.T) {
	body := get(leader(), "/", "text/html").Body.String()
	for part, want := range map[string]int{
		`<html lang="en">`: 1, "<title>": 1, "<h1>": 1, "<main>": 1, `<table role="table">`: 2, "<caption>": 2,
		`scope="col"`: 6, `scope="row"`: 8, "<th>": 0, `name="viewport"`: 1,
	} {
		if got := strings.Count(body, part); got != want {
			t.Errorf("%s: %d times, want %d", part, got, want)
		}
	}
	for target, want := range map[string]string{"/": "1", "/?refresh=off": ""} {
		if got := get(leader(), target, "text/html").Header().Get("Refresh"); got != want {
			t.Errorf("%s: the browser is told to refresh after %q seconds, want %q", target, got, want)
		}
	}
}

// TestColoursHaveContrast computes the contrast ratio of WCAG 2.2 (1.4.3, AA) of every
// colour that text has, in both schemes.
func TestColoursHaveContrast(t *testing.T) {
	source, err := os.ReadFile("page.css")
	if err != nil {
		t.Fatal(err)
	}
	schemes := regexp.MustCompile(`:root \{([^}]*)\}`).FindAllStringSubmatch(string(source), -1)
	if len(schemes) != 2 {
		t.Fatalf("found %d colour schemes, want 2", len(schemes))
	}
	for _, scheme := range schemes {
		colours := map[string]float64{}
		for _, pair := range regexp.MustCompile(`--(\w+): #([0-9a-f]{6})`).FindAllStringSubmatch(scheme[1], -1) {
			colours[pair[1]] = luminance(t, pair[2])
		}
		for _, name := range []string{"ink", "soft", "good", "wait", "bad", "link"} {
			light, dark := max(colours[name], colours["paper"]), min(colours[name], colours["paper"])
			if ratio := (light + .05) / (dark + .05); ratio < 4.5 {
				t.Errorf("%s: contrast %.2f, want at least 4.5 in %s", name, ratio, scheme[1])
			}
		}
	}
}

func luminance(t *testing.T, hex string) float64 {
	var sum float64
	for i, weight := range []float64{.2126, .7152, .0722} {
		value, err := strconv.ParseUint(hex[2*i:2*i+2], 16, 8)
		if err != nil {
			t.Fatal(err)
		}
		channel := float64(value) / 255
		if channel <= .04045 {
			sum += weight * channel / 12.92
		} else {
			sum += weight * math.Pow((channel+.055)/1.055, 2.4)
		}
	}
	return sum
}

func TestThePageIsSmall(t *testing.T) {
	many := func(n int) status.Snapshot {
		s := leader()
		s.Controllers = slices.Repeat([]status.Controller{{
			Name: "a-controller-with-a-long-name", Group: "default", Summary: "Does something that takes a full sentence to say, as summaries do.",
			State: "backoff", Reason: "a reason that is not short either", Since: now, Restarts: map[string]int{"failed": 7}, LastError: "the server could not find the requested resource", LastErrorAt: now, RetryAt: now,
		}}, n)
		return s
	}
	if got := get(many(50), "/", "text/html").Body.Len(); got >= 50_000 {
		t.Errorf("50 controllers take %d bytes, want fewer than 50,000", got)
	}
	t.Logf("1,000 controllers take %d bytes", get(many(1000), "/", "text/html").Body.Len())
}

func BenchmarkPage(b *testing.B) {
	s := leader()
	s.Controllers = slices.Repeat(s.Controllers, 10)
	for b.Loop() {
		get(s, "/", "text/html")
	}
}

func ExampleWriteText() {
	taken := time.Date(2026, 3, 4, 15, 16, 17, 0, time.UTC)
	err := status.WriteText(os.Stdout, 0, status.Snapshot{
		Manager: "fleet-manager", Version: "v1.4.0", Pod: "fleet/fleet-manager-0", Taken: taken,
		Groups: []status.Group{{
			Name: "default", Lease: "fleet/fleet-manager", State: status.Leader,
			Epoch: 12, Since: taken.Add(-3 * time.Hour), LeaseAge: metav1.Duration{Duration: 400 * time.Millisecond}, FenceOpen: true,
		}},
		Controllers: []status.Controller{{Name: "quota", Group: "default", State: "running", Since: taken.Add(-3 * time.Hour)}},
	})
	if err != nil {
		fmt.Println(err)
	}
	// Output:
	// fleet-manager v1.4.0, 1 replica, 2026-03-04T15:16:17Z
	//
	// GROUP     STATE    EPOCH   FOR   RENEWED    FENCE   WRITES   LEASE                 NOTE
	// default   leader   12      3h    0.4s ago   open    0        fleet/fleet-manager
	//
	// CONTROLLER   STATE     FOR   RESTARTS   QUEUE   NOTE
	// quota        running   3h    0          -
}
