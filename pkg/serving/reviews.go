// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package serving

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// The rate of reviews, for each of the two kinds. It is far above what scrapers and
// people need, and keeps a flood of invented tokens away from the API server.
const (
	reviewsPerSecond = 50
	reviewsBurst     = 100
)

// reviewer returns the client settings for reviews: those in the kubeconfig if there
// is one, otherwise the manager's own with a rate limiter of their own. It returns
// nil when there is neither.
func reviewer(flag, kubeconfig string, own *rest.Config) (*rest.Config, error) {
	var config *rest.Config
	switch {
	case kubeconfig != "":
		var err error
		if config, err = clientcmd.BuildConfigFromFlags("", kubeconfig); err != nil {
			return nil, fmt.Errorf("--%s=%s: %w", flag, kubeconfig, err)
		}
	case own != nil:
		config = rest.CopyConfig(own)
	default:
		return nil, nil
	}
	config.RateLimiter = nil
	config.QPS, config.Burst = reviewsPerSecond, reviewsBurst
	config.Timeout = 0 // the context of each review bounds it
	return config, nil
}

// ask sends a request, and again if the API server is unwell, for at most timeout.
func ask[A any](ctx context.Context, timeout time.Duration, send func(context.Context) (A, error)) (answer A, err error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	again := wait.Backoff{Duration: 500 * time.Millisecond, Factor: 1.5, Jitter: 0.2, Steps: 5}
	for {
		answer, err = send(ctx)
		if err == nil || !passing(err) || again.Steps <= 1 {
			return answer, err
		}
		select {
		case <-time.After(again.Step()):
		case <-ctx.Done():
			return answer, err
		}
	}
}

// passing tells whether an error may be gone in a moment.
func passing(err error) bool {
	if _, ok := apierrors.SuggestsClientDelay(err); ok {
		return true
	}
	return apierrors.IsInternalError(err) || apierrors.IsTimeout(err) || apierrors.IsTooManyRequests(err) ||
		utilnet.IsConnectionReset(err) || utilnet.IsHTTP2ConnectionLost(err)
}
