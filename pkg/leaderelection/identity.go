// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package leaderelection

import (
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"
)

const (
	// identityMark stands before the nonce in the identities of this package's
	// candidates, and carries the version of their rules.
	identityMark = "_inc1-"
	// identityFile is the name of the file in IdentityConfig.Dir.
	identityFile = "incumbent-identity"
	// reclaimWindow is how long ago the last reclaim must be for the next one to
	// lead at once.
	reclaimWindow = 5 * time.Minute
)

// oursPattern is what an identity made by this package looks like.
var oursPattern = regexp.MustCompile(`^[^_]+_[^_]+` + identityMark + `[a-z2-7]{26}$`)

// IdentityConfig says where a candidate's identity comes from.
type IdentityConfig struct {
	// PodName and PodUID are the Pod's, from the downward API. Defaults: the
	// host's name, and "-".
	PodName, PodUID string
	// Dir is a directory that outlives the process but not the Pod, such as an
	// emptyDir, for the identity file. "" means no instant reclaim.
	Dir string
	// Logger reports why a reclaim is not possible. Default: klog's.
	Logger klog.Logger
}

// Identity is who a candidate is: one for each process, shared by all its
// electors, never used by another process. It is safe for concurrent use.
//
// With a directory, it proves deaths: the file there is locked by the process
// whose identity it names, the kernel drops the lock only when that process is
// gone, and so whoever gets the lock may take over the leases of the identities
// that it finds in the file.
type Identity struct {
	name string
	file *identityStore // nil without a lock
	dead []string       // identities whose processes are proven dead
	// looping says that a reclaim happened within reclaimWindow before this
	// process started.
	looping bool
}

// OpenIdentity makes the identity of this process. Whatever keeps the identity
// file from being used is logged and means no instant reclaim; the only error
// is a name from which no identity can be made.
func OpenIdentity(cfg IdentityConfig) (*Identity, error) {
	if cfg.Logger.GetSink() == nil {
		cfg.Logger = klog.Background()
	}
	if cfg.PodName == "" {
		host, err := os.Hostname()
		if err != nil {
			return nil, fmt.Errorf("no pod name given and no host name found: %w", err)
		}
		cfg.PodName = strings.ReplaceAll(host, "_", "-")
	}
	if cfg.PodUID == "" {
		cfg.PodUID = "-"
	}
	id := &Identity{name: cfg.PodName + "_" + cfg.PodUID + identityMark + nonce()}
	if !isOurs(id.name) {
		return nil, fmt.Errorf("pod name %q and pod uid %q: neither may be empty or contain %q", cfg.PodName, cfg.PodUID, "_")
	}
	if cfg.Dir == "" {
		return id, nil
	}
	if err := id.lock(cfg.Dir, cfg.Logger); err != nil {
		cfg.Logger.Info("Identity file not usable, a restarted process will wait for the lease to expire", "dir", cfg.Dir, "reason", err)
	}
	return id, nil
}

// lock takes the identity file in dir, learns from it who is dead, and writes
// this identity into it.
func (i *Identity) lock(dir string, logger logr.Logger) error {
	store, err := openIdentityStore(dir)
	if err != nil {
		return err
	}
	// From here on the lock is held until the process ends, whatever follows: a
	// later process must not conclude anything from a lock that was given back.
	i.file = store
	state, err := store.read()
	if err != nil {
		logger.Info("Identity file not readable, leases of earlier processes are not taken over at once", "dir", dir, "reason", err)
		state = identityState{}
	}
	i.dead = slices.Clone(state.Identities)
	i.looping = state.reclaimedWithin(reclaimWindow, time.Now())
	state.add(i.name)
	if err := store.write(state); err != nil {
		return fmt.Errorf("write %s: %w", identityFile, err)
	}
	return nil
}

// String returns the holder identity that this candidate writes.
func (i *Identity) String() string { return i.name }

// CanReclaim reports whether a later process will be able to take over this
// one's leases at once.
func (i *Identity) CanReclaim() bool { return i.file != nil }

// isDead reports whether the process with that identity is proven dead.
func (i *Identity) isDead(holder string) bool { return slices.Contains(i.dead, holder) }

// reclaimed notes in the file that a dead identity's lease was taken over. Its
// failure only makes the next restart's reclaim less careful.
func (i *Identity) reclaimed(now time.Time) error {
	if i.file == nil {
		return errors.New("no identity file")
	}
	return i.file.update(func(s *identityState) { s.Reclaims = append(s.Reclaims, now.Unix()) })
}

// isOurs reports whether holder is the identity of a candidate of this package.
// Anything else is stock: it may stop late and release early.
func isOurs(holder string) bool { return oursPattern.MatchString(holder) }

// nonce returns 128 random bits in base32.
func nonce() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b[:]))
}
