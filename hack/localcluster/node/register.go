// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

//go:build linux

package node

import (
	"context"
	"os"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"
)

// keepRegistered creates the i-th Node object and renews its lease until ctx ends.
func (n *Nodes) keepRegistered(ctx context.Context, i int) {
	logger := klog.LoggerWithValues(klog.FromContext(ctx), "node", nodeName(i))
	var registered *corev1.Node
	for {
		pause := 10 * time.Second // the kubelet's interval
		var err error
		if registered == nil {
			registered, err = n.register(ctx, i)
		}
		if err == nil {
			err = n.renewLease(ctx, registered)
		}
		if err != nil {
			if ctx.Err() != nil {
				return
			}
			logger.Info("Node heartbeat failed, will retry", "err", err)
			pause = 200 * time.Millisecond // at a start, the namespace of the leases is about to appear
		}
		if !sleep(ctx, pause) {
			return
		}
	}
}

func (n *Nodes) register(ctx context.Context, i int) (*corev1.Node, error) {
	name, address := nodeName(i), Address(n.config.Network, i).String()
	nodes := n.config.Client.CoreV1().Nodes()
	node, err := nodes.Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{
		corev1.LabelHostname:   name,
		corev1.LabelOSStable:   platform.os,
		corev1.LabelArchStable: platform.arch,
	}}}, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		node, err = nodes.Get(ctx, name, metav1.GetOptions{})
	}
	if err != nil {
		return nil, err
	}
	now := metav1.Now()
	condition := func(kind corev1.NodeConditionType, status corev1.ConditionStatus, reason, message string) corev1.NodeCondition {
		return corev1.NodeCondition{Type: kind, Status: status, Reason: reason, Message: message, LastHeartbeatTime: now, LastTransitionTime: now}
	}
	// Nothing limits a process, so the figures only have to leave room for what Pods request.
	resources := corev1.ResourceList{
		corev1.ResourceCPU:              resource.MustParse("64"),
		corev1.ResourceMemory:           resource.MustParse("256Gi"),
		corev1.ResourceEphemeralStorage: resource.MustParse("256Gi"),
		corev1.ResourcePods:             resource.MustParse("250"),
	}
	node.Status = corev1.NodeStatus{
		Capacity:    resources,
		Allocatable: resources,
		Addresses: []corev1.NodeAddress{
			{Type: corev1.NodeInternalIP, Address: address},
			{Type: corev1.NodeHostName, Address: name},
		},
		DaemonEndpoints: corev1.NodeDaemonEndpoints{KubeletEndpoint: corev1.DaemonEndpoint{Port: int32(n.config.Port)}},
		NodeInfo: corev1.NodeSystemInfo{
			OperatingSystem: platform.os, Architecture: platform.arch, KubeletVersion: n.config.KubeletVersion,
			ContainerRuntimeVersion: "process://1", OSImage: "processes of this machine", KernelVersion: kernelVersion(),
		},
		Conditions: []corev1.NodeCondition{
			condition(corev1.NodeReady, corev1.ConditionTrue, "KubeletReady", "the process node is running"),
			condition(corev1.NodeMemoryPressure, corev1.ConditionFalse, "NotMeasured", "a process node has no limits"),
			condition(corev1.NodeDiskPressure, corev1.ConditionFalse, "NotMeasured", "a process node has no limits"),
			condition(corev1.NodePIDPressure, corev1.ConditionFalse, "NotMeasured", "a process node has no limits"),
		},
	}
	return nodes.UpdateStatus(ctx, node, metav1.UpdateOptions{})
}

func (n *Nodes) renewLease(ctx context.Context, node *corev1.Node) error {
	leases := n.config.Client.CoordinationV1().Leases(corev1.NamespaceNodeLease)
	spec := coordinationv1.LeaseSpec{
		HolderIdentity:       ptr.To(node.Name),
		LeaseDurationSeconds: ptr.To(int32(40)),
		RenewTime:            ptr.To(metav1.NowMicro()),
	}
	lease, err := leases.Get(ctx, node.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		owner := metav1.OwnerReference{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID}
		_, err = leases.Create(ctx, &coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{Name: node.Name, OwnerReferences: []metav1.OwnerReference{owner}}, Spec: spec,
		}, metav1.CreateOptions{})
		return err
	}
	if err != nil {
		return err
	}
	lease.Spec = spec
	_, err = leases.Update(ctx, lease, metav1.UpdateOptions{})
	return err
}

func kernelVersion() string {
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(release))
}
