// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package configrollout

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// contents are the fingerprints of an object's parts, as it was in one version: of each
// key, and of the whole. They stay in memory, what they are made of does not.
type contents struct {
	version string // resourceVersion
	parts   map[string]string
}

// fingerprintBytes is how much of a hash is kept: two contents of one key that are
// taken for the same are out of the question, and records stay short.
const fingerprintBytes = 16

// fingerprinter writes the fields of one object's parts into hashes. Each field is
// preceded by its length, so that no two lists of fields are the same bytes.
type fingerprinter struct {
	name []string // of the object: equal contents of two objects do not look equal
	hash func() hash.Hash
	mark string // goes before each fingerprint
}

func (f fingerprinter) of(fields ...string) string {
	h := f.hash()
	var length [8]byte
	for _, field := range append(slices.Clone(f.name), fields...) {
		binary.BigEndian.PutUint64(length[:], uint64(len(field)))
		h.Write(length[:])
		h.Write([]byte(field))
	}
	return f.mark + hex.EncodeToString(h.Sum(nil)[:fingerprintBytes])
}

// contentsOf fingerprints data by key, and all of it.
func (f fingerprinter) contentsOf(version string, data map[string]string, binaryData map[string][]byte) *contents {
	c := &contents{version: version, parts: make(map[string]string, len(data)+len(binaryData)+1)}
	var all []string
	for _, key := range slices.Sorted(maps.Keys(data)) {
		c.parts[key] = f.of("data", key, data[key])
		all = append(all, c.parts[key])
	}
	for _, key := range slices.Sorted(maps.Keys(binaryData)) {
		c.parts[key] = f.of("binaryData", key, string(binaryData[key]))
		all = append(all, c.parts[key])
	}
	c.parts[whole] = f.of(all...)
	return c
}

func contentsOfConfigMap(object *corev1.ConfigMap) *contents {
	f := fingerprinter{name: []string{configMap, object.Namespace, object.Name}, hash: sha256.New}
	return f.contentsOf(object.ResourceVersion, object.Data, object.BinaryData)
}

// contentsOfSecret uses a keyed hash, since fingerprints are written where people can
// read them who may not read the Secret: without the key, nobody can try out what a
// password might be. The fingerprints begin with the key's identifier.
func contentsOfSecret(object *corev1.Secret, key *hashKey) *contents {
	f := fingerprinter{
		name: []string{secret, object.Namespace, object.Name},
		hash: func() hash.Hash { return hmac.New(sha256.New, key.bytes) },
		mark: key.id + keySeparator,
	}
	data := make(map[string]string, len(object.Data))
	for name, value := range object.Data {
		data[name] = string(value)
	}
	return f.contentsOf(object.ResourceVersion, data, nil)
}

const keySeparator = ":"

// keyOf returns the identifier of the key that a fingerprint was made with, or "".
func keyOf(fingerprint string) string {
	id, _, keyed := strings.Cut(fingerprint, keySeparator)
	if !keyed {
		return ""
	}
	return id
}
