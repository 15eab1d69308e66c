// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package controllertest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/client-go/transport"
)

// wire is the transport to a real API server. What admit refuses is not sent.
type wire struct {
	next  http.RoundTripper
	admit admission
}

func through(admit admission) transport.WrapperFunc {
	return func(next http.RoundTripper) http.RoundTripper { return &wire{next: next, admit: admit} }
}

// paths tells requests for objects from those for discovery and health.
var paths = request.RequestInfoFactory{APIPrefixes: sets.NewString("api", "apis"), GrouplessAPIPrefixes: sets.NewString("api")}

// RoundTrip implements http.RoundTripper.
func (w *wire) RoundTrip(req *http.Request) (*http.Response, error) {
	info, err := paths.NewRequestInfo(req)
	if err != nil || !info.IsResourceRequest {
		return w.next.RoundTrip(req)
	}
	r := Request{
		Verb:      info.Verb,
		Resource:  schema.GroupVersionResource{Group: info.APIGroup, Version: info.APIVersion, Resource: info.Resource},
		Namespace: info.Namespace, Name: info.Name,
	}
	if info.Subresource != "" {
		r.Resource.Resource += "/" + info.Subresource
	}
	if info.Resource == "namespaces" {
		r.Namespace = "" // of a request for a namespace, it is the object's name
	}
	done, err := w.admit(r)
	if err != nil {
		if req.Body != nil {
			_ = req.Body.Close()
		}
		return answer(req, err)
	}
	defer done()
	return w.next.RoundTrip(req)
}

// WrappedRoundTripper lets client-go find the transport beneath.
func (w *wire) WrappedRoundTripper() http.RoundTripper { return w.next }

// answer makes of an error of the API what the API server would have sent.
func answer(req *http.Request, err error) (*http.Response, error) {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return nil, err
	}
	sent := status.Status()
	sent.APIVersion, sent.Kind = "v1", "Status"
	body, err := json.Marshal(sent)
	if err != nil {
		return nil, err
	}
	return &http.Response{
		StatusCode: int(sent.Code), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: req,
		Header: http.Header{"Content-Type": []string{runtime.ContentTypeJSON}},
		Body:   io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)),
	}, nil
}
