// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package status

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
)

// style is the page's only style sheet. It is in the page, and the page's policy
// allows it by its hash and nothing else: no script, image, font or frame.
//
//go:embed page.css
var style string

var policy = func() string {
	sum := sha256.Sum256([]byte(style))
	return fmt.Sprintf("default-src 'none'; style-src 'sha256-%s'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
		base64.StdEncoding.EncodeToString(sum[:]))
}()

// moods are all, the one that asks for most attention first.
var moods = []string{"bad", "wait", "good", "calm"}

// mood is the colour of a state. The state is always written out beside it.
func mood(state string) string {
	switch state {
	case Leader, "running", "completed":
		return "good"
	case "backoff", "stuck", "blocked":
		return "bad"
	case "building", "draining":
		return "wait"
	}
	return "calm"
}

// refresh is after how many seconds a browser loads the page again.
const refresh = "1"

// Handler serves the faces of one replica. take is called once for each request, from
// many goroutines. ?format=json, html or text chooses the face; otherwise the first
// type in the Accept header that is known does: application/json, text/html or
// text/plain. Who accepts anything, such as curl, gets text.
//
// The page loads itself again every second, until the reader stops it by the link on it.
func Handler(take func() Snapshot) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("Vary", "Accept")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		var body document
		var contentType string
		var err error
		switch format := face(r); format {
		case "json":
			contentType = "application/json"
			encoder := json.NewEncoder(&body)
			encoder.SetIndent("", "  ")
			err = encoder.Encode(take())
		case "html":
			contentType = "text/html; charset=utf-8"
			w.Header().Set("Content-Security-Policy", policy)
			w.Header().Set("Referrer-Policy", "no-referrer")
			paused := r.URL.Query().Get("refresh") == "off"
			if !paused {
				w.Header().Set("Refresh", refresh)
			}
			body.page(take(), paused)
		case "text":
			contentType = "text/plain; charset=utf-8"
			err = WriteText(&body, 0, take())
		default:
			http.Error(w, fmt.Sprintf("format=%q is not a choice; use json, html or text", format), http.StatusBadRequest)
			return
		}
		if err != nil {
			w.Header().Del("Content-Security-Policy")
			w.Header().Del("Refresh")
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", contentType)
		_, _ = w.Write(body.Bytes())
	})
}

// face is the form that a request asks for, not necessarily one that exists.
func face(r *http.Request) string {
	if query := r.URL.Query(); query.Has("format") {
		return query.Get("format")
	}
	for accepted := range strings.SplitSeq(strings.Join(r.Header.Values("Accept"), ","), ",") {
		mediaType, _, _ := strings.Cut(accepted, ";")
		switch strings.ToLower(strings.TrimSpace(mediaType)) {
		case "application/json":
			return "json"
		case "text/html":
			return "html"
		case "text/plain":
			return "text"
		}
	}
	return "text"
}
