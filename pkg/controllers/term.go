// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package controllers

import (
	"context"
	"errors"
)

// Term is one uninterrupted tenure of this replica as leader, as a controller sees
// it. A controller needs it only for effects outside the Kubernetes API: its
// clients already carry the fence.
type Term interface {
	// Epoch is the fencing token: greater than that of every earlier term of the
	// lease. It rises within a term only when the Lease was deleted and made anew.
	// 0 means that no election takes place (--leader-elect=false or EveryReplica).
	Epoch() int64
	// Check returns nil while the term is provably valid at this moment, and an
	// error that IsNotLeader recognises once it is not.
	Check() error
}

type termKey struct{}

// WithTerm returns a context from which TermFrom gives term. The runner calls it.
func WithTerm(ctx context.Context, term Term) context.Context {
	return context.WithValue(ctx, termKey{}, term)
}

// TermFrom returns the term in which ctx runs. In a context that does not come from
// Run it returns a term that is over.
func TermFrom(ctx context.Context) Term {
	if term, ok := ctx.Value(termKey{}).(Term); ok {
		return term
	}
	return noTerm{}
}

// IsNotLeader tells whether err, or an error that it wraps, is a fence's refusal:
// the request was not sent because this replica is not provably the leader. Such an
// error needs no handling beyond returning; a retry in the same run cannot succeed.
func IsNotLeader(err error) bool {
	var refusal interface{ NotLeader() bool }
	return errors.As(err, &refusal) && refusal.NotLeader()
}

type noTerm struct{}

func (noTerm) Epoch() int64 { return 0 }
func (noTerm) Check() error { return outsideTerm{} }

type outsideTerm struct{}

func (outsideTerm) Error() string   { return "not the leader: the context does not come from a run" }
func (outsideTerm) NotLeader() bool { return true }
