// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

//go:build linux

// Package node plays the nodes of a Kubernetes cluster: it runs the containers of the Pods that are bound to them as
// processes of this machine.
//
// It guarantees what an author of a controller relies on in a kubelet: status and conditions, restarts with the
// kubelet's back-off, probes, graceful termination, environment and volumes with the downward API, tokens that are
// bound to their Pod and renewed, configuration that follows its ConfigMap, logs, exec and port-forward, and Events. Each
// Pod has an address of 127.0.0.0/8 of its own, and reaches the API server through a proxy of its own that can be told
// to fail (package netfault). Each container runs in the Pod's own root folder.
//
// It does not limit resources, does not isolate networks (a process that listens on all addresses does so on the
// machine, so let it listen on its Pod's address), does not give Services addresses, and does not survive a restart:
// all processes end with it. What a Pod asks for beyond what is known here is refused with a reason in its status.
//
// The parts: Nodes registers the Node objects and gives each Pod to a worker; a worker prepares the Pod (root, volumes, address,
// proxy) and runs its containers; a container runs one process after another; prober, volumes and statusWriter serve a worker.
package node
