// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package serving

import (
	"context"
	"errors"
	"fmt"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	authenticationclient "k8s.io/client-go/kubernetes/typed/authentication/v1"
	"k8s.io/client-go/rest"
)

// tokens tells whose a bearer token is, by what the API server says in a TokenReview.
type tokens struct {
	client  authenticationclient.TokenReviewInterface
	timeout time.Duration
	ttl     time.Duration
	answers *memory[owner]
}

// owner is what a review has said of a token.
type owner struct {
	who user.Info // nil: the token does not count
	why string    // it does not
}

func newTokens(options *Authentication, reviews *rest.Config) (*tokens, error) {
	client, err := authenticationclient.NewForConfig(reviews)
	if err != nil {
		return nil, fmt.Errorf("client for token reviews: %w", err)
	}
	return &tokens{client: client.TokenReviews(), timeout: options.Timeout, ttl: options.CacheTTL, answers: newMemory[owner]()}, nil
}

// AuthenticateToken implements authenticator.Token.
func (t *tokens) AuthenticateToken(ctx context.Context, token string) (*authenticator.Response, bool, error) {
	found, err := t.answers.recall(ctx, token, func(ctx context.Context) (owner, time.Duration, error) {
		found, err := t.review(ctx, token)
		return found, t.ttl, err
	})
	switch {
	case err != nil:
		return nil, false, unanswered{err}
	case found.who == nil:
		return nil, false, errors.New(found.why)
	}
	return &authenticator.Response{User: found.who}, true, nil
}

func (t *tokens) review(ctx context.Context, token string) (owner, error) {
	question := &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token}}
	review, err := ask(ctx, t.timeout, func(ctx context.Context) (*authenticationv1.TokenReview, error) {
		return t.client.Create(ctx, question, metav1.CreateOptions{})
	})
	if err != nil {
		return owner{}, fmt.Errorf("review of a token: %w", err)
	}
	if status := review.Status; !status.Authenticated {
		return owner{why: "the API server does not know the token: " + status.Error}, nil
	}
	who := review.Status.User
	extra := map[string][]string{}
	for name, values := range who.Extra {
		extra[name] = values
	}
	return owner{who: &user.DefaultInfo{Name: who.Username, UID: who.UID, Groups: who.Groups, Extra: extra}}, nil
}
