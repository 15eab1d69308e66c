// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

// Package healthz serves named health checks that can be added and removed while
// the process runs, in the format that kube-apiserver uses: /livez, /readyz or
// /healthz answers "ok" or lists the checks that fail, ?verbose lists all of them,
// ?exclude=NAME leaves one out, and /readyz/NAME asks one alone.
//
// Unlike kube-apiserver, the list says why a check fails and what one that passes
// has to tell ("standby, leader is X"): the texts are the manager's own and hold
// nothing secret, and an operator should not need a second permission to read them.
//
// Guarantees: a check that was removed is not called again once the remove function
// has returned, unless a request is inside it at that moment; checks run one after
// another in the order of their names.
package healthz
