// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package serving

import (
	"context"
	"crypto/x509"
	"errors"
	"net/http"
	"slices"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/group"
	"k8s.io/apiserver/pkg/authentication/request/bearertoken"
	"k8s.io/apiserver/pkg/authentication/request/headerrequest"
	clientcertificate "k8s.io/apiserver/pkg/authentication/request/x509"
	"k8s.io/client-go/rest"
)

// credentials tell who sent a request: a front proxy's user, the owner of a client
// certificate, that of a token, in this order. Nobody is anonymous: an open path needs no
// user, and every other refuses who has no credentials.
type credentials struct {
	authenticator.Request
	// clientCAs sign the certificates that the server asks clients for; it asks for
	// none if there are none.
	clientCAs []authorities
}

// unanswered is why nobody knows whose credentials they are.
type unanswered struct{ error }

func (u unanswered) Unwrap() error { return u.error }

func newCredentials(config Config) (*credentials, error) {
	options := config.Authentication
	reviews, err := reviewer("authentication-kubeconfig", options.Kubeconfig, config.REST)
	if err != nil {
		return nil, err
	}
	c := &credentials{}
	var kinds anyOf
	if proxy := options.FrontProxy; proxy.ClientCAFile != "" {
		cas, err := newAuthoritiesFile("requestheader-client-ca-file", proxy.ClientCAFile)
		if err != nil {
			return nil, err
		}
		c.clientCAs = append(c.clientCAs, cas)
		kinds = append(kinds, certified{cas, proxy.user})
	}
	cas, err := options.authorities(reviews)
	if err != nil {
		return nil, err
	}
	if cas != nil {
		c.clientCAs = append(c.clientCAs, cas)
		kinds = append(kinds, certified{cas, ownUser})
	}
	if reviews != nil {
		tokens, err := newTokens(options, reviews)
		if err != nil {
			return nil, err
		}
		kinds = append(kinds, bearertoken.New(tokens))
	}
	c.Request = group.NewAuthenticatedGroupAdder(kinds)
	return c, nil
}

// authorities returns nil if no client certificates count.
func (a *Authentication) authorities(reviews *rest.Config) (authorities, error) {
	switch {
	case a.ClientCAFile != "":
		return newAuthoritiesFile("client-ca-file", a.ClientCAFile)
	case a.SkipLookup, reviews == nil:
		return nil, nil
	}
	return newAuthoritiesOfCluster(a, reviews)
}

// known returns all CAs that are known without asking anybody.
func (c *credentials) known(ctx context.Context) (all []*x509.Certificate) {
	for _, cas := range c.clientCAs {
		all = append(all, cas.known(ctx)...)
	}
	return all
}

// anyOf takes the first credentials that count. Its error is that of all the others.
type anyOf []authenticator.Request

// AuthenticateRequest implements authenticator.Request.
func (a anyOf) AuthenticateRequest(r *http.Request) (*authenticator.Response, bool, error) {
	var errs []error
	for _, kind := range a {
		response, ok, err := kind.AuthenticateRequest(r)
		if ok && err == nil {
			return response, true, nil
		}
		errs = append(errs, err)
	}
	return nil, false, errors.Join(errs...)
}

// certified finds the user of a client certificate that one of the CAs has signed.
type certified struct {
	cas  authorities
	user func(x509.VerifyOptions) authenticator.Request
}

// AuthenticateRequest implements authenticator.Request.
func (c certified) AuthenticateRequest(r *http.Request) (*authenticator.Response, bool, error) {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return nil, false, nil
	}
	roots, err := c.cas.wanted(r.Context())
	if err != nil {
		return nil, false, unanswered{err}
	}
	options := clientcertificate.DefaultVerifyOptions()
	options.Roots = pool(roots)
	return c.user(options).AuthenticateRequest(r)
}

// ownUser is whom the certificate names.
func ownUser(options x509.VerifyOptions) authenticator.Request {
	return clientcertificate.New(options, clientcertificate.CommonNameUserConversion)
}

// user is whom the proxy's headers name.
func (p FrontProxy) user(options x509.VerifyOptions) authenticator.Request {
	names := func(list []string) headerrequest.StaticStringSlice { return slices.Clone(list) }
	return headerrequest.NewDynamicVerifyOptionsSecure(clientcertificate.StaticVerifierFn(options), names(p.AllowedNames),
		names(p.UsernameHeaders), names(p.UIDHeaders), names(p.GroupHeaders), names(p.ExtraHeaderPrefixes))
}
