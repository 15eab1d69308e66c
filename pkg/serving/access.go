// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package serving

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	authorizationclient "k8s.io/client-go/kubernetes/typed/authorization/v1"
)

// permissions decides on requests to paths that are not open. It asks what the delegated
// authorizer of k8s.io/apiserver asks, which would link CEL for conditions that nobody
// can set here.
type permissions struct {
	options *Authorization
	client  authorizationclient.SubjectAccessReviewInterface // nil reviews nothing
	answers *memory[answer]                                  // by the question in JSON
}

// answer is what a review has said.
type answer struct {
	allowed bool
	reason  string
}

func newPermissions(config Config) (*permissions, error) {
	p := &permissions{options: config.Authorization, answers: newMemory[answer]()}
	reviews, err := reviewer("authorization-kubeconfig", p.options.Kubeconfig, config.REST)
	if err != nil || reviews == nil {
		return p, err
	}
	client, err := authorizationclient.NewForConfig(reviews)
	if err != nil {
		return nil, fmt.Errorf("client for access reviews: %w", err)
	}
	p.client = client.SubjectAccessReviews()
	return p, nil
}

// decide tells whether who may use verb on path. The error means that nobody knows.
func (p *permissions) decide(ctx context.Context, who user.Info, verb, path string) (answer, error) {
	for _, group := range p.options.AlwaysAllowGroups {
		if slices.Contains(who.GetGroups(), group) {
			return answer{allowed: true}, nil
		}
	}
	if p.client == nil {
		return answer{reason: "no API server is there to review access"}, nil
	}
	question := authorizationv1.SubjectAccessReviewSpec{
		User:                  who.GetName(),
		UID:                   who.GetUID(),
		Groups:                who.GetGroups(),
		Extra:                 extra(who),
		NonResourceAttributes: &authorizationv1.NonResourceAttributes{Verb: verb, Path: path},
	}
	key, err := json.Marshal(question)
	if err != nil {
		return answer{}, err
	}
	return p.answers.recall(ctx, string(key), func(ctx context.Context) (answer, time.Duration, error) {
		given, err := p.review(ctx, question)
		return given, p.ttl(given), err
	})
}

func (p *permissions) review(ctx context.Context, question authorizationv1.SubjectAccessReviewSpec) (answer, error) {
	review, err := ask(ctx, p.options.Timeout, func(ctx context.Context) (*authorizationv1.SubjectAccessReview, error) {
		return p.client.Create(ctx, &authorizationv1.SubjectAccessReview{Spec: question}, metav1.CreateOptions{})
	})
	if err != nil {
		return answer{}, err
	}
	return answer{allowed: review.Status.Allowed && !review.Status.Denied, reason: review.Status.Reason}, nil
}

func (p *permissions) ttl(a answer) time.Duration {
	if a.allowed {
		return p.options.AllowCacheTTL
	}
	return p.options.DenyCacheTTL
}

func extra(who user.Info) map[string]authorizationv1.ExtraValue {
	values := map[string]authorizationv1.ExtraValue{}
	for name, value := range who.GetExtra() {
		values[name] = value
	}
	return values
}
