// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package leaderelection

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// leapingClock runs every function at once and moves on by its delay.
type leapingClock struct{ now Reading }

func (c *leapingClock) Read() Reading { return c.now }

func (c *leapingClock) AfterFunc(d time.Duration, f func()) func() bool {
	c.now.Boot += d
	c.now.Mono += d
	c.now.Wall += d
	f()
	return func() bool { return false }
}

// script answers requests in turn, the last answer for ever, and keeps the bodies.
type script struct {
	answers []string // "STATUS message"
	bodies  []string
}

func (s *script) RoundTrip(req *http.Request) (*http.Response, error) {
	body := ""
	if req.Body != nil {
		content, err := io.ReadAll(req.Body)
		if err != nil {
			return nil, err
		}
		body = string(content)
	}
	s.bodies = append(s.bodies, body)
	answer := s.answers[min(len(s.bodies), len(s.answers))-1]
	status := http.StatusOK
	if strings.HasPrefix(answer, "403") {
		status = http.StatusForbidden
	}
	return &http.Response{StatusCode: status, Body: io.NopCloser(strings.NewReader(answer))}, nil
}

func TestFirstWritesRideOutThePolicysLag(t *testing.T) {
	const refusal = "403 denied request: " + PolicyRefusal
	for name, tc := range map[string]struct {
		answers     []string
		notFenced   bool
		noBody      bool
		noGetBody   bool
		age         time.Duration
		wantAnswer  string
		wantTries   int
		atLeastThat bool
	}{
		"admitted at once":               {answers: []string{"200"}, wantAnswer: "200", wantTries: 1},
		"refused twice":                  {answers: []string{refusal, refusal, "200"}, wantAnswer: "200", wantTries: 3},
		"refused twice, without a body":  {answers: []string{refusal, refusal, "200"}, noBody: true, wantAnswer: "200", wantTries: 3},
		"another refusal is an answer":   {answers: []string{"403 forbidden by RBAC"}, wantAnswer: "403 forbidden by RBAC", wantTries: 1},
		"without the component":          {answers: []string{refusal}, notFenced: true, wantAnswer: refusal, wantTries: 1},
		"later in the term":              {answers: []string{refusal}, age: rideOutTime, wantAnswer: refusal, wantTries: 1},
		"a body that cannot be repeated": {answers: []string{refusal}, noGetBody: true, wantAnswer: refusal, wantTries: 1},
		"for ever: the refusal stands":   {answers: []string{refusal}, wantAnswer: refusal, wantTries: 10, atLeastThat: true},
	} {
		t.Run(name, func(t *testing.T) {
			clock := &leapingClock{}
			term := newTerm(t.Context(), clock, Timing{}.WithDefaults(), clock.Read(), 1)
			term.serverFenced = !tc.notFenced
			clock.now.Boot += tc.age
			clock.now.Mono += tc.age
			var body io.Reader = bytes.NewReader([]byte("object"))
			if tc.noBody {
				body = nil
			}
			req, err := http.NewRequest(http.MethodPost, "https://api/api/v1/namespaces", body)
			if err != nil {
				t.Fatal(err)
			}
			if tc.noGetBody {
				req.GetBody = nil
			}
			server := &script{answers: tc.answers}
			resp, err := term.rideOut(req, server)
			if err != nil {
				t.Fatal(err)
			}
			answer, err := io.ReadAll(resp.Body)
			if err != nil || string(answer) != tc.wantAnswer {
				t.Errorf("answer: got %q (%v), want %q", answer, err, tc.wantAnswer)
			}
			if tries := len(server.bodies); tries != tc.wantTries && (!tc.atLeastThat || tries < tc.wantTries) {
				t.Errorf("tries: got %d, want %d", tries, tc.wantTries)
			}
			for i, got := range server.bodies {
				if want := map[bool]string{false: "object", true: ""}[tc.noBody]; got != want {
					t.Errorf("body of try %d: got %q, want %q", i+1, got, want)
				}
			}
		})
	}
}

// TestPolicyRefusesWithTheWordsThatAreRiddenOut compares the manifest with the code.
func TestPolicyRefusesWithTheWordsThatAreRiddenOut(t *testing.T) {
	policy, err := os.ReadFile("../../manifests/components/fencing/policy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(policy), PolicyRefusal) {
		t.Errorf("the policy's message lacks %q", PolicyRefusal)
	}
}
