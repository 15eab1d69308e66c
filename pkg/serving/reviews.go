// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package serving

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/authenticatorfactory"
	"k8s.io/apiserver/pkg/authentication/request/headerrequest"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/client-go/kubernetes"
	authenticationclient "k8s.io/client-go/kubernetes/typed/authentication/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// The rate of reviews, for each of the two kinds. It is far above what scrapers and
// people need, and keeps a flood of invented tokens away from the API server.
const (
	reviewsPerSecond = 50
	reviewsBurst     = 100
)

// reviewBackoff says when a review that failed is tried again, within its timeout.
func reviewBackoff() *wait.Backoff {
	return &wait.Backoff{Duration: 500 * time.Millisecond, Factor: 1.5, Jitter: 0.2, Steps: 5}
}

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

// credentials tells who sent a request.
type credentials struct {
	authenticator.Request
	// clientCA is what the server asks client certificates of; nil asks for none.
	clientCA dynamiccertificates.CAContentProvider
}

// newCredentials returns the authenticators of an aggregated API server. Anonymous
// requests are not authenticated: an open path needs no user, and every other refuses
// them.
func newCredentials(config Config) (*credentials, error) {
	options := config.Authentication
	reviews, err := reviewer("authentication-kubeconfig", options.Kubeconfig, config.REST)
	if err != nil {
		return nil, err
	}
	factory := authenticatorfactory.DelegatingAuthenticatorConfig{
		CacheTTL:                 options.CacheTTL,
		WebhookRetryBackoff:      reviewBackoff(),
		TokenAccessReviewTimeout: options.Timeout,
	}
	if reviews != nil {
		if factory.TokenAccessReviewClient, err = authenticationclient.NewForConfig(reviews); err != nil {
			return nil, fmt.Errorf("client for token reviews: %w", err)
		}
	}
	if factory.ClientCertificateCAContentProvider, err = certificateCA(options, reviews); err != nil {
		return nil, err
	}
	if factory.RequestHeaderConfig, err = options.FrontProxy.config(); err != nil {
		return nil, fmt.Errorf("--requestheader-client-ca-file=%s: %w", options.FrontProxy.ClientCAFile, err)
	}
	c := &credentials{clientCA: factory.ClientCertificateCAContentProvider}
	switch proxy := factory.RequestHeaderConfig; {
	case proxy == nil:
	case c.clientCA == nil:
		c.clientCA = proxy.CAContentProvider
	default:
		c.clientCA = dynamiccertificates.NewUnionCAContentProvider(c.clientCA, proxy.CAContentProvider)
	}
	if reviews == nil && c.clientCA == nil {
		c.Request = authenticator.RequestFunc(nobody)
		return c, nil
	}
	c.Request, _, err = factory.New()
	return c, err
}

// unanswered tells a review that could not be had from one with a bad outcome, whose
// error is text alone.
func unanswered(err error) bool {
	if several, ok := err.(utilerrors.Aggregate); ok {
		return slices.ContainsFunc(several.Errors(), unanswered)
	}
	var network *url.Error
	var answer apierrors.APIStatus
	return errors.As(err, &network) || errors.As(err, &answer) || errors.Is(err, context.DeadlineExceeded)
}

// nobody knows no credentials at all.
func nobody(*http.Request) (*authenticator.Response, bool, error) { return nil, false, nil }

// config returns nil if no proxy is believed.
func (p FrontProxy) config() (*authenticatorfactory.RequestHeaderConfig, error) {
	if p.ClientCAFile == "" {
		return nil, nil
	}
	ca, err := dynamiccertificates.NewDynamicCAContentFromFile("front-proxy-ca", p.ClientCAFile)
	if err != nil {
		return nil, err
	}
	return &authenticatorfactory.RequestHeaderConfig{
		CAContentProvider:   ca,
		AllowedClientNames:  headerrequest.StaticStringSlice(p.AllowedNames),
		UsernameHeaders:     headerrequest.StaticStringSlice(p.UsernameHeaders),
		UIDHeaders:          headerrequest.StaticStringSlice(p.UIDHeaders),
		GroupHeaders:        headerrequest.StaticStringSlice(p.GroupHeaders),
		ExtraHeaderPrefixes: headerrequest.StaticStringSlice(p.ExtraHeaderPrefixes),
	}, nil
}

// certificateCA returns the CA of client certificates, nil if none is accepted.
func certificateCA(options *Authentication, reviews *rest.Config) (dynamiccertificates.CAContentProvider, error) {
	if options.ClientCAFile != "" {
		ca, err := dynamiccertificates.NewDynamicCAContentFromFile("client-ca", options.ClientCAFile)
		if err != nil {
			return nil, fmt.Errorf("--client-ca-file=%s: %w", options.ClientCAFile, err)
		}
		return ca, nil
	}
	if options.SkipLookup {
		return nil, nil
	}
	if reviews == nil {
		return nil, errors.New("--authentication-skip-lookup=false needs an API server: give --authentication-kubeconfig, or skip the lookup")
	}
	client, err := kubernetes.NewForConfig(reviews)
	if err != nil {
		return nil, fmt.Errorf("client for the lookup of the client CA: %w", err)
	}
	return dynamiccertificates.NewDynamicCAFromConfigMapController("client-ca", metav1.NamespaceSystem, "extension-apiserver-authentication", "client-ca-file", client)
}
