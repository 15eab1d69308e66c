// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package faults

import "sync"

// maxPods is how many Pods of all trials run at the same time; those that write much
// count for more. With more, the machine and not the candidates would be the reason of
// what is measured.
const maxPods = 100

// room lets trials begin in turn while there is room for their Pods.
type room struct {
	mu   sync.Mutex
	free int
	left *sync.Cond
}

func newRoom(pods int) *room {
	r := &room{free: pods}
	r.left = sync.NewCond(&r.mu)
	return r
}

func (r *room) take(pods int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.free < pods {
		r.left.Wait()
	}
	r.free -= pods
}

func (r *room) give(pods int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.free += pods
	r.left.Broadcast()
}
