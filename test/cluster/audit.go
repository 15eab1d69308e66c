// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package cluster

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Request is what the API server's audit log tells of a request. Of a watch it tells
// twice: at the Stages ResponseStarted and ResponseComplete.
type Request struct {
	Stage, Verb, RequestURI, UserAgent string
	User                               struct {
		Username string
		Extra    map[string][]string
	}
	ObjectRef                                struct{ APIGroup, Resource, Subresource, Namespace, Name string }
	RequestReceivedTimestamp, StageTimestamp time.Time
	ResponseStatus                           struct {
		Code    int
		Message string
	}
	Annotations map[string]string
}

// Allowed tells whether the authorizer allowed it. The status does not: a namespace that
// is being removed answers 403 as well.
func (r Request) Allowed() bool { return r.Annotations["authorization.k8s.io/decision"] == "allow" }

// IsWrite tells whether it asked for a change.
func (r Request) IsWrite() bool {
	return r.Verb != "get" && r.Verb != "list" && r.Verb != "watch"
}

func (r Request) String() string {
	return fmt.Sprintf("%s %s: %d %s", r.Verb, r.RequestURI, r.ResponseStatus.Code, r.ResponseStatus.Message)
}

// AuditLog is a part of the API server's audit log. It is for one goroutine at a time.
type AuditLog struct {
	cluster  *Cluster
	since    time.Time
	text     string
	offset   int64 // of what was not read yet
	requests []Request
}

// Audit returns the part of the audit log that tells of the requests since a time (zero
// for all) and has the text, such as a user name or a user agent, in its lines.
func (c *Cluster) Audit(since time.Time, text string) *AuditLog {
	return &AuditLog{cluster: c, since: since, text: text}
}

// Requests returns all requests that have been answered by now, in the order of their
// answers. For the log to be complete, it waits until a request of its own is in it.
func (l *AuditLog) Requests(ctx context.Context) ([]Request, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	marker := fmt.Sprintf("audit-marker-%d", time.Now().UnixNano())
	_, err := l.cluster.Client.CoreV1().ConfigMaps("default").Get(ctx, marker, metav1.GetOptions{})
	if !apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("read ConfigMap %s, which does not exist: %w", marker, err)
	}
	err = Poll(ctx, func() error { return l.readTo([]byte(marker)) })
	return l.requests, err
}

// readTo reads until the line of the marker, or up to the last whole line.
func (l *AuditLog) readTo(marker []byte) error {
	file, err := os.Open(filepath.Join(l.cluster.Data, "audit.log"))
	if err != nil {
		return err
	}
	defer file.Close()
	if _, err := file.Seek(l.offset, io.SeekStart); err != nil {
		return err
	}
	for lines := bufio.NewReader(file); ; {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return fmt.Errorf("%s, %s: %w", file.Name(), marker, err)
		}
		l.offset += int64(len(line))
		if bytes.Contains(line, marker) {
			return nil
		}
		if !bytes.Contains(line, []byte(l.text)) {
			continue
		}
		var r Request
		if err := json.Unmarshal(line, &r); err != nil {
			return fmt.Errorf("%s: %w: %s", file.Name(), err, line)
		}
		if r.RequestReceivedTimestamp.After(l.since) {
			l.requests = append(l.requests, r)
		}
	}
}
