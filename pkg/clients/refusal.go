// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package clients

import (
	"bytes"
	"io"
	"net/http"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/cbor/direct"
	"k8s.io/client-go/kubernetes/scheme"
)

// refusals is a transport that tells when the API server refuses a request for
// want of a permission or of the resource itself.
type refusals struct {
	next http.RoundTripper
	tell func()
}

// RoundTrip implements http.RoundTripper.
func (t *refusals) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := t.next.RoundTrip(req)
	if err == nil && (resp.StatusCode == http.StatusForbidden || unserved(resp)) {
		t.tell()
	}
	return resp, err
}

// WrappedRoundTripper lets client-go find the transport beneath.
func (t *refusals) WrappedRoundTripper() http.RoundTripper { return t.next }

// maxStatus is more than any Status of the API server about a missing object.
const maxStatus = 64 << 10

// unserved says whether an answer means that nothing is served at this path, rather
// than that an object is missing. The API server calls both 404. For an object it names
// the resource in the details of its Status. For a path that it does not know it sends
// a Status without them, within its built-in API groups, and elsewhere, where no custom
// resource or aggregated API is, a line of plain text. The body can still be read.
func unserved(resp *http.Response) bool {
	if resp.StatusCode != http.StatusNotFound {
		return false
	}
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxStatus))
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(body), resp.Body), resp.Body}
	status, err := decodeStatus(resp.Header.Get("Content-Type"), body)
	return err != nil || status.Details == nil || status.Details.Kind == ""
}

func decodeStatus(contentType string, body []byte) (*metav1.Status, error) {
	status := &metav1.Status{}
	if strings.HasPrefix(contentType, runtime.ContentTypeCBOR) {
		return status, direct.Unmarshal(body, status)
	}
	_, _, err := scheme.Codecs.UniversalDeserializer().Decode(body, nil, status)
	return status, err
}

// join has v told of refusals from now on, and says whether there is one already.
func (c *resourceCache) join(v *view) (refused bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.views[v] = struct{}{}
	return c.barred()
}

// barred says whether the API server refuses the resource as missing or forbidden,
// and not for a reason that has nothing to do with access. The caller holds c.mu.
func (c *resourceCache) barred() bool {
	return c.phase == refused && (c.status == http.StatusForbidden || c.status == http.StatusNotFound)
}

// tellRefused calls who wants to know of it. The caller holds no lock.
func tellRefused(views []*view) {
	for _, v := range views {
		if v.onRefused != nil {
			v.onRefused()
		}
	}
}
