// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

// Package faults is the fault campaign: it does to a fleet of candidates what happens
// to processes, networks and control planes, on a real API server, and proves from the
// server's own history that no more than one of them led. There is nothing in it but
// tests.
//
//	ours   the whole manager with one controller that writes        (./ours)
//	stock  client-go's LeaderElector doing the same work            (./stock)
//
// The candidates run as Pods on hack/localcluster, every trial in a namespace of its
// own. The stock one is the negative control: it goes through the same harness, and
// a campaign in which it shows none of its known defects has seen nothing.
//
// Three sources are put in order by one clock (CLOCK_MONOTONIC) and by resource
// versions: what the API server tells a watch on Leases and on the written objects,
// what the candidates write into their journals, and what the test did to them. From
// these, verify finds, in every trial of every scenario:
//
//   - writes that were accepted although another candidate held the Lease by then;
//   - two candidates that were permitted to write at the same time;
//   - an epoch that did not rise with the holder, or that fell in the written object;
//   - a Lease that was released by another than its holder, or before its work ended;
//   - a history of writes that no fenced register could have had (porcupine).
//
// These are errors at once, unless the fleet is the control. How fast something went is
// written down, and compared with what is promised only in the long campaign, where
// medians and maxima mean something; the short one has wide bounds.
//
//	go test ./test/faults                          the short campaign: every scenario, 3 minutes
//	TRIALS=20 go test -timeout=2h ./test/faults    the long one, 20 minutes
//	REPORT=faults.md                               writes the table to this file, too
package faults
