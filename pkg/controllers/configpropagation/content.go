// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package configpropagation

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"maps"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
)

// content is what a copy has in common with its source. It must not be logged.
type content struct {
	secretType corev1.SecretType // "" for ConfigMaps
	immutable  bool
	text       map[string]string // data of ConfigMaps
	bytes      map[string][]byte // binaryData of ConfigMaps, data of Secrets
}

// fingerprint tells contents apart.
type fingerprint [sha256.Size]byte

// fingerprint is the same for two contents if, and only if, they are equal. It stays in
// memory: whoever had that of a Secret could try passwords.
func (c *content) fingerprint() (f fingerprint) {
	h := sha256.New()
	add(h, []byte(c.secretType))
	add(h, strconv.AppendBool(nil, c.immutable))
	length(h, len(c.text))
	for _, key := range slices.Sorted(maps.Keys(c.text)) {
		add(h, []byte(key))
		add(h, []byte(c.text[key]))
	}
	length(h, len(c.bytes))
	for _, key := range slices.Sorted(maps.Keys(c.bytes)) {
		add(h, []byte(key))
		add(h, c.bytes[key])
	}
	h.Sum(f[:0])
	return f
}

func length(h hash.Hash, n int) { h.Write(binary.AppendUvarint(nil, uint64(n))) }

func add(h hash.Hash, part []byte) {
	length(h, len(part))
	h.Write(part)
}

// replaces tells whether a copy cannot be changed into c, and must be deleted and
// created anew.
func (c *content) replaces(shape shape) bool {
	return shape.immutable || shape.secretType != c.secretType
}

// overlaps tells whether a key changes between text and bytes, which the API server may
// refuse if others have added keys.
func (c *content) overlaps(old *content) bool {
	for key := range c.text {
		if _, there := old.bytes[key]; there {
			return true
		}
	}
	for key := range c.bytes {
		if _, there := old.text[key]; there {
			return true
		}
	}
	return false
}

// surplus returns the keys that have more than c.
func (c *content) surplus(have *content) (text, bytes []string) {
	for key := range have.text {
		if _, wanted := c.text[key]; !wanted {
			text = append(text, key)
		}
	}
	for key := range have.bytes {
		if _, wanted := c.bytes[key]; !wanted {
			bytes = append(bytes, key)
		}
	}
	return text, bytes
}
