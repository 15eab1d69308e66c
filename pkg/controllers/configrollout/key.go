// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package configrollout

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/klog/v2"
)

const (
	// KeySecret is the Secret, in the manager's own namespace, that holds the key of
	// the fingerprints of Secrets. The controller makes it when it first needs it.
	KeySecret = "incumbent-config-rollout"
	// keyField is where in KeySecret the key is.
	keyField = "key"
	keyBytes = 32
)

// hashKey is the key of the fingerprints of Secrets.
type hashKey struct {
	id    string // tells fingerprints of different keys apart; nothing follows from it
	bytes []byte
}

func newHashKey(key []byte) *hashKey {
	sum := sha256.Sum256(append([]byte("incumbent.io config-rollout key "), key...))
	return &hashKey{id: hex.EncodeToString(sum[:4]), bytes: key}
}

// keeper gets the key once in a run.
type keeper struct {
	secrets   func(namespace string) corev1client.SecretInterface
	namespace string

	mu  sync.Mutex
	key *hashKey // nil until it was needed
}

// get returns the key of KeySecret, which it creates if it is not there.
func (k *keeper) get(ctx context.Context) (*hashKey, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.key != nil {
		return k.key, nil
	}
	found, err := k.secrets(k.namespace).Get(ctx, KeySecret, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		found, err = k.create(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("the key of the fingerprints of Secrets, Secret %s/%s: %w", k.namespace, KeySecret, err)
	}
	bytes := found.Data[keyField]
	if len(bytes) < keyBytes {
		return nil, fmt.Errorf("the Secret %s/%s has %d bytes in data.%s, want at least %d; delete it, and a new one is made", k.namespace, KeySecret, len(bytes), keyField, keyBytes)
	}
	k.key = newHashKey(bytes)
	return k.key, nil
}

func (k *keeper) create(ctx context.Context) (*corev1.Secret, error) {
	key := make([]byte, keyBytes)
	if _, err := rand.Read(key); err != nil {
		return nil, err
	}
	created, err := k.secrets(k.namespace).Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: k.namespace, Name: KeySecret},
		Immutable:  new(true),
		Data:       map[string][]byte{keyField: key},
	}, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) { // by a leader whose term has just ended
		return k.secrets(k.namespace).Get(ctx, KeySecret, metav1.GetOptions{})
	}
	if err == nil {
		klog.FromContext(ctx).Info("Created the key of the fingerprints of Secrets; what was recorded with another key cannot be compared", "secret", klog.KObj(created))
	}
	return created, err
}
