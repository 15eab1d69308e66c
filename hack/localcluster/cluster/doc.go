// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

// Package cluster runs a Kubernetes control plane on the loopback interface: each component as a child process,
// the process nodes of package node inside this one, and a control socket through which faults are injected.
//
// It guarantees that everything listens on 127.0.0.0/8 only, that no process outlives it (also when it is killed),
// that a component restarted by a fault comes back on the same port, and that one data folder serves one cluster at a
// time. It does not guarantee durability: etcd does not sync, and the state is wiped at start unless Config.Keep.
//
// The order of a start: lock and data folder, certificates, ports, etcd, kube-apiserver, then
// kube-controller-manager, kube-scheduler and the nodes, then waiting until Pods can be created.
package cluster
