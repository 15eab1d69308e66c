// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package controllertest

import (
	"bytes"
	"context"
	"fmt"
	"runtime/pprof"
	"strings"
	"sync/atomic"
)

// brand marks goroutines: those that one of them starts have its mark, too. So the
// goroutines of a controller can be told from those of tests that run beside it.
type brand struct{ value string }

const brandKey = "controllertest"

var brands atomic.Int64

func newBrand(test string) brand { return brand{fmt.Sprintf("%s %d", test, brands.Add(1))} }

// run calls f on a marked goroutine.
func (b brand) run(f func()) {
	go pprof.Do(context.Background(), pprof.Labels(brandKey, b.value), func(context.Context) { f() })
}

// alive returns the stacks of the marked goroutines, one for each different stack.
func (b brand) alive() (stacks []string) {
	var profile bytes.Buffer
	if err := pprof.Lookup("goroutine").WriteTo(&profile, 1); err != nil {
		return []string{err.Error()}
	}
	for stack := range strings.SplitSeq(profile.String(), "\n\n") {
		if strings.Contains(stack, fmt.Sprintf("%q:%q", brandKey, b.value)) && !keepsConnection(stack) {
			stacks = append(stacks, stack)
		}
	}
	return stacks
}

// keepsConnection tells the goroutines of an HTTP connection that waits to be used
// again; client-go shares it with clients to come.
func keepsConnection(stack string) bool {
	for _, function := range []string{"http.(*persistConn).", "http.(*http2ClientConn).", "http2.(*ClientConn).", "http.(*Transport).dialConn", "client-go/transport."} {
		if strings.Contains(stack, function) {
			return true
		}
	}
	return false
}
