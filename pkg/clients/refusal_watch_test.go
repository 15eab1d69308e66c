// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package clients

import (
	"net/http"
	"sync/atomic"
	"testing"
	"time"
)

// A permission that is revoked ends no watch. The next one shows it.
func TestRevokedPermissionIsNoticedByTheNextWatch(t *testing.T) {
	inBubbleWith(t, defaultTiming, func(t *testing.T, h *harness) {
		var told atomic.Int32
		view := h.pool.View("c", func() { told.Add(1) })
		defer view.Release()
		view.Metadata(configMaps)
		h.synced(view)
		h.api.take()
		time.Sleep(10 * time.Minute)
		if got := len(h.api.take()); got < 9 || got > 21 {
			t.Errorf("ten minutes made %d requests, want a watch every 30 to 60 s and no list", got)
		}
		if told.Load() > 0 || view.Err() != nil {
			t.Errorf("while it is granted: told %d times, Err %v", told.Load(), view.Err())
		}
		h.api.setRefuse(func(*http.Request) int { return http.StatusForbidden })
		time.Sleep(62 * time.Second)
		if told.Load() == 0 {
			t.Error("nobody was told of the revoked permission within a minute")
		}
	})
}
