// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package manager

import (
	"bytes"
	"strings"
	"testing"

	"k8s.io/klog/v2/textlogger"
)

func TestBodiesOfRequestsStayOutOfTheLog(t *testing.T) {
	var out bytes.Buffer
	logger := withoutBodies(textlogger.NewLogger(textlogger.NewConfig(textlogger.Output(&out), textlogger.Verbosity(10))))
	logger = logger.WithName("a").WithValues("b", "c")
	logger.V(8).Info("Response Body", "body", "swordfish")
	logger.V(8).WithCallDepth(0).Info("Request Body", "body", "swordfish")
	logger.Info("Something else", "body", "shown")
	_, filtered := bodyFilter{}.FilterS("Request Body", []any{"body", "swordfish"})
	text := out.String()
	if strings.Contains(text, "swordfish") || filtered[1] != "(9 characters)" {
		t.Errorf("a body is in the log: %v\n%s", filtered, text)
	}
	for _, want := range []string{`"Response Body" logger="a" b="c" body="(9 characters)"`, `"Request Body"`, `"Something else" logger="a" b="c" body="shown"`} {
		if !strings.Contains(text, want) {
			t.Errorf("the log lacks %q:\n%s", want, text)
		}
	}
	if n := strings.Count(text, "redact_test.go:"); n != 3 {
		t.Errorf("%d of 3 lines name the place that logged them:\n%s", n, text)
	}
}
