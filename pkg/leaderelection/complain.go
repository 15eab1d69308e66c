// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package leaderelection

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"
)

const (
	firstSilence = 10 * time.Second
	maxSilence   = 10 * time.Minute
)

// complaints logs failures that repeat: each distinct cause at once, then at
// intervals that double, until it has passed. A refusal concerns its operation; that
// nobody answers concerns all, and is one cause.
type complaints struct{ causes map[string]*complaint }

type complaint struct {
	next    time.Duration // on the monotonic clock
	silence time.Duration
	count   int
	// answered means that the API server answered, with a refusal: other requests
	// that work say nothing about this one.
	answered bool
	text     string
	at       Reading
}

// failed logs err of the operation op, unless it did so lately.
func (c *complaints) failed(logger klog.Logger, now Reading, op string, err error) {
	key, answered := causeOf(err), apierrors.ReasonForError(err) != metav1.StatusReasonUnknown
	if answered {
		key = op + ": " + key
	}
	if c.causes == nil {
		c.causes = map[string]*complaint{}
	}
	known := c.causes[key]
	if known == nil {
		known = &complaint{next: now.Mono, silence: firstSilence, answered: answered}
		c.causes[key] = known
	}
	known.count++
	known.text, known.at = fmt.Sprintf("%s: %v", op, err), now
	if now.Mono < known.next {
		logger.V(4).Info("Lease request failed", "op", op, "err", err)
		return
	}
	logger.Info("Lease request failed, retrying", "op", op, "err", err, "count", known.count, "hint", hintFor(op, err))
	known.next = now.Mono + known.silence
	known.silence = min(2*known.silence, maxSilence)
}

// worked forgets the failures of the operation op, and those of others that came
// from not reaching the API server, and says so if there were any.
func (c *complaints) worked(logger klog.Logger, op string) {
	count := 0
	for key, known := range c.causes {
		if strings.HasPrefix(key, op+": ") || !known.answered {
			count += known.count
			delete(c.causes, key)
		}
	}
	if count > 0 {
		logger.Info("Lease requests work again", "op", op, "failed", count)
	}
}

// forget drops the refusals of the operation op: there is no longer a reason to
// try it, so nothing is known about how it would go now.
func (c *complaints) forget(op string) {
	for key := range c.causes {
		if strings.HasPrefix(key, op+": ") {
			delete(c.causes, key)
		}
	}
}

// newest returns the failure that was last seen among those that have not passed.
func (c *complaints) newest() (text string, at Reading) {
	for _, known := range c.causes {
		if text == "" || known.at.Mono > at.Mono {
			text, at = known.text, known.at
		}
	}
	return text, at
}

// causeOf names what went wrong without what differs from try to try, such as
// port numbers.
func causeOf(err error) string {
	var errno syscall.Errno
	var dns *net.DNSError
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return "timeout"
	case apierrors.ReasonForError(err) != metav1.StatusReasonUnknown:
		return string(apierrors.ReasonForError(err))
	case errors.As(err, &errno):
		return errno.Error()
	case errors.As(err, &dns):
		return "name resolution"
	}
	for inner := errors.Unwrap(err); inner != nil; inner = errors.Unwrap(err) {
		err = inner
	}
	return fmt.Sprintf("%T", err)
}

// hintFor says what the operator can do.
func hintFor(op string, err error) string {
	switch {
	case apierrors.IsForbidden(err) && op == "watch":
		return "the service account needs list and watch on leases in coordination.k8s.io"
	case apierrors.IsForbidden(err):
		return "the service account needs get, create and update on leases in coordination.k8s.io"
	case apierrors.IsUnauthorized(err):
		return "the credentials were not accepted"
	case apierrors.IsNotFound(err):
		return "does the namespace of the lease exist?"
	}
	return "is the API server reachable?"
}
