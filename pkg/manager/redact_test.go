// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package manager

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/klog/v2/textlogger"
)

func TestBodiesOfRequestsStayOutOfTheLog(t *testing.T) {
	var out bytes.Buffer
	none := textlogger.NewLogger(textlogger.NewConfig(textlogger.Verbosity(0)))
	logger := withoutBodies(textlogger.NewLogger(textlogger.NewConfig(textlogger.Output(&out), textlogger.Verbosity(10))), none)
	logger = logger.WithName("a").WithValues("b", "c")
	logger.V(8).Info("Response Body", "body", "swordfish")
	logger.V(8).WithCallDepth(0).Info("Request Body", "body", "swordfish")
	logger.Info("Something else", "body", "shown")
	logger.Error(errors.New("broken"), "Something is wrong")
	_, filtered := bodyFilter{}.FilterS("Request Body", []any{"body", "swordfish"})
	text := out.String()
	if strings.Contains(text, "swordfish") || filtered[1] != "(9 characters)" {
		t.Errorf("a body is in the log: %v\n%s", filtered, text)
	}
	for _, want := range []string{`"Response Body" logger="a" b="c" body="(9 characters)"`, `"Request Body"`, `"Something else" logger="a" b="c" body="shown"`, `"Something is wrong" err="broken"`} {
		if !strings.Contains(text, want) {
			t.Errorf("the log lacks %q:\n%s", want, text)
		}
	}
	if n := strings.Count(text, "redact_test.go:"); n != 4 {
		t.Errorf("%d of 4 lines name the place that logged them:\n%s", n, text)
	}
}

// TestVerbosityBySourceFileChanges wraps a logger that is not verbose itself.
func TestVerbosityBySourceFileChanges(t *testing.T) {
	var out bytes.Buffer
	modules := textlogger.NewConfig(textlogger.Verbosity(0))
	logger := withoutBodies(textlogger.NewLogger(textlogger.NewConfig(textlogger.Output(&out), textlogger.Verbosity(1))), textlogger.NewLogger(modules))
	direct := logger.WithName("direct")
	deep := logger.WithName("deep").WithCallDepth(1)
	through := func(text string) { deep.V(4).Info(text) } // this file calls this file
	for _, step := range []struct {
		vmodule string
		want    []string
	}{
		{"", nil},
		{"redact_test=4", []string{"direct at 4", "deep at 4"}},
		{"redact_test=3", nil},
		{"redact=9,logr=9", nil}, // what stands between is not what logs
		{"red*=9", []string{"direct at 4", "deep at 4", "direct at 9"}},
		{"", nil},
	} {
		if err := modules.VModule().Set(step.vmodule); err != nil {
			t.Fatal(err)
		}
		out.Reset()
		direct.V(4).Info("direct at 4")
		through("deep at 4")
		direct.V(9).Info("direct at 9")
		var got []string
		for line := range strings.Lines(out.String()) {
			got = append(got, strings.Split(line, `"`)[1])
		}
		if diff := cmp.Diff(step.want, got); diff != "" {
			t.Errorf("vmodule %q (-want +got):\n%s", step.vmodule, diff)
		}
	}
}
