// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package leaderelection

import (
	"bytes"
	"io"
	"net/http"
	"time"

	"k8s.io/klog/v2"
)

// PolicyRefusal stands in the message with which the fencing policy of
// manifests/components/fencing refuses a write.
const PolicyRefusal = "incumbent fencing: this Pod does not hold the lease"

const (
	// rideOutTime is how long after the start of a term a refusal by the policy
	// is taken for its lag: the policy reads the Lease from a cache of the API
	// server that follows within milliseconds.
	rideOutTime     = 2 * time.Second
	rideOutPause    = 2 * time.Millisecond
	rideOutMaxPause = 50 * time.Millisecond
	// refusalSize bounds the part of an answer that is searched for the refusal.
	refusalSize = 64 << 10
)

// rideOut sends a request. If the fencing policy is installed and, at the start
// of the term, refuses the request because it has not seen yet who leads, the
// request is sent again: a refusal had no effect.
func (t *Term) rideOut(req *http.Request, next http.RoundTripper) (*http.Response, error) {
	for pause := rideOutPause; ; pause = min(2*pause, rideOutMaxPause) {
		resp, err := next.RoundTrip(req)
		if err != nil || !t.serverFenced || !refusedByPolicy(resp) {
			return resp, err
		}
		if t.clock.Read().spent(t.opened) >= rideOutTime {
			t.refused.Do(func() {
				klog.FromContext(t.ctx).Error(nil, "The fencing policy refuses the leader: either the API server does not follow the Lease (was the policy deleted and created again? restart the API server, or delete the policy's binding), or another Pod holds it")
			})
			return resp, err
		}
		again, ok := rewound(req)
		if !ok {
			return resp, err
		}
		wait := make(chan struct{})
		stop := t.clock.AfterFunc(pause, func() { close(wait) })
		select {
		case <-wait:
		case <-req.Context().Done():
			stop()
			return resp, err
		}
		_ = resp.Body.Close()
		req = again
	}
}

// refusedByPolicy tells whether the answer is the policy's refusal. The body can
// be read again afterwards.
func refusedByPolicy(resp *http.Response) bool {
	if resp.StatusCode != http.StatusForbidden {
		return false
	}
	start, err := io.ReadAll(io.LimitReader(resp.Body, refusalSize))
	rest := io.Reader(resp.Body)
	if err != nil {
		rest = failingReader{err}
	}
	resp.Body = &restoredBody{Reader: io.MultiReader(bytes.NewReader(start), rest), Closer: resp.Body}
	return bytes.Contains(start, []byte(PolicyRefusal))
}

type restoredBody struct {
	io.Reader
	io.Closer
}

type failingReader struct{ err error }

func (r failingReader) Read([]byte) (int, error) { return 0, r.err }

// rewound returns the request with its body from the start.
func rewound(req *http.Request) (*http.Request, bool) {
	again := req.Clone(req.Context())
	if req.Body == nil || req.Body == http.NoBody {
		return again, true
	}
	if req.GetBody == nil {
		return nil, false
	}
	body, err := req.GetBody()
	if err != nil {
		return nil, false
	}
	again.Body = body
	return again, true
}
