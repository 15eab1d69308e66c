// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package leaderelection

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

const (
	// identityBlock is the fixed size of the identity file, so that one write at
	// offset 0 replaces it.
	identityBlock = 16 << 10
	// maxIdentities and maxReclaims bound what the file remembers. A dead
	// identity is of use only while its lease has not expired; 24 restarts take
	// longer than that in any crash loop with back-off.
	maxIdentities = 24
	maxReclaims   = 8
)

// identityState is the content of an identity file: the processes that have
// held its lock, oldest first, and when leases were reclaimed (unix seconds).
// Identities are never used twice, so an entry that stays too long is harmless.
type identityState struct {
	Identities []string `json:"identities"`
	Reclaims   []int64  `json:"reclaims,omitempty"`
}

func (s *identityState) add(identity string) { s.Identities = append(s.Identities, identity) }

// reclaimedWithin reports whether a reclaim is noted less than d before or
// after now; the wall clock may have been set since.
func (s *identityState) reclaimedWithin(d time.Duration, now time.Time) bool {
	for _, at := range s.Reclaims {
		if now.Sub(time.Unix(at, 0)).Abs() < d {
			return true
		}
	}
	return false
}

// encode returns the file for s: a checksum, the JSON, and zeros.
func (s identityState) encode() ([]byte, error) {
	s.Identities = last(s.Identities, maxIdentities)
	s.Reclaims = last(s.Reclaims, maxReclaims)
	body, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(body)
	block := make([]byte, identityBlock)
	if n := copy(block, hex.EncodeToString(sum[:])+"\n"+string(body)+"\n"); n == len(block) {
		return nil, fmt.Errorf("%d bytes do not fit", len(body))
	}
	return block, nil
}

// decodeIdentityState reads a file; an empty one is an empty state.
func decodeIdentityState(block []byte) (identityState, error) {
	var s identityState
	block = bytes.TrimRight(block, "\x00")
	if len(block) == 0 {
		return s, nil
	}
	sum, body, _ := bytes.Cut(block, []byte("\n"))
	body = bytes.TrimSuffix(body, []byte("\n"))
	want := sha256.Sum256(body)
	if string(sum) != hex.EncodeToString(want[:]) {
		return s, errors.New("checksum does not match")
	}
	return s, json.Unmarshal(body, &s)
}

func last[T any](list []T, n int) []T { return list[max(0, len(list)-n):] }
