// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

//go:build !linux

package leaderelection

import "errors"

// identityStore does not exist here: which locks survive what is known for
// Linux only.
type identityStore struct{}

func openIdentityStore(string) (*identityStore, error) {
	return nil, errors.New("identity files are supported on Linux only")
}

func (*identityStore) read() (identityState, error) { return identityState{}, nil }

func (*identityStore) write(identityState) error { return nil }

func (*identityStore) update(func(*identityState)) error { return nil }
