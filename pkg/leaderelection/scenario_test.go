// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package leaderelection

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestSmoke(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newSimWorld(1)
		w.keepLog = true
		a := w.prepare("a", 1, nil)
		a.launch()
		time.Sleep(5 * time.Second)
		b := w.prepare("b", 1, nil)
		b.launch()
		time.Sleep(10 * time.Second)
		a.stop()
		<-a.ended
		time.Sleep(10 * time.Second)
		c := w.prepare("c", 1, nil)
		c.launch()
		time.Sleep(3 * time.Second)
		b.crash()
		time.Sleep(20 * time.Second)
		c.stop()
		<-c.ended
		<-b.ended
		time.Sleep(time.Minute)
		for _, l := range w.log {
			t.Log(l)
		}
		for _, v := range w.violations {
			t.Error(v)
		}
	})
}
