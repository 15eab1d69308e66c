// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

//go:build linux

package node

import (
	"context"
	"encoding/json"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"
)

// writeStatuses keeps the Pod's status in the API server up to date until ctx ends.
func (w *worker) writeStatuses(ctx context.Context) {
	for {
		select {
		case <-w.dirty:
		case <-ctx.Done():
			return
		}
		w.writeStatus(ctx)
	}
}

// status computes the Pod's status as it is now.
func (w *worker) status() corev1.PodStatus {
	w.mu.Lock()
	defer w.mu.Unlock()
	in := statusInput{
		pod: w.newest, previous: w.conditions, podIP: w.ip, hostIP: w.hostIP(), startTime: w.started,
		prepared: w.prepared, terminating: w.terminating, finished: w.finished, now: metav1.Now(),
	}
	for _, c := range w.containers {
		if c.init {
			in.inits = append(in.inits, *c.status.DeepCopy())
		} else {
			in.mains = append(in.mains, *c.status.DeepCopy())
		}
	}
	s := podStatus(in)
	w.conditions = s.Conditions
	return s
}

// writeStatus writes the status, trying until it is accepted, the Pod is gone, or ctx ends.
func (w *worker) writeStatus(ctx context.Context) {
	logger := klog.FromContext(ctx)
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, 2*time.Second) {
		s := w.status()
		if w.written != nil && equality.Semantic.DeepEqual(*w.written, s) {
			return
		}
		err := w.patchStatus(ctx, s)
		if err == nil {
			w.mu.Lock()
			w.written = &s
			w.mu.Unlock()
			return
		}
		// A conflict is one of UIDs: another Pod has this name now.
		if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
			return
		}
		if ctx.Err() != nil {
			return
		}
		logger.Info("Status was not accepted, will retry", "err", err)
		if !sleep(ctx, pause) {
			return
		}
	}
}

func (w *worker) patchStatus(ctx context.Context, s corev1.PodStatus) error {
	// A strategic merge patch keeps the conditions that others own, and the UID in it keeps it from another Pod.
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": w.uid}, "status": s})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	_, err = w.nodes.config.Client.CoreV1().Pods(w.namespace).Patch(ctx, w.name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	return err
}

// confirmDeletion writes the last status and lets the Pod vanish.
func (w *worker) confirmDeletion(ctx context.Context) {
	logger := klog.FromContext(ctx)
	w.writeStatus(ctx)
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, 2*time.Second) {
		attempt, cancel := context.WithTimeout(ctx, 10*time.Second)
		err := w.nodes.config.Client.CoreV1().Pods(w.namespace).Delete(attempt, w.name, metav1.DeleteOptions{
			GracePeriodSeconds: ptr.To(int64(0)), Preconditions: &metav1.Preconditions{UID: &w.uid},
		})
		cancel()
		if err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err) || ctx.Err() != nil {
			return
		}
		logger.Info("Pod could not be deleted, will retry", "err", err)
		if !sleep(ctx, pause) {
			return
		}
	}
}
