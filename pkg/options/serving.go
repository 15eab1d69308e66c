// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package options

import (
	"cmp"
	"fmt"
	"net"
	"strings"

	genericoptions "k8s.io/apiserver/pkg/server/options"
	cliflag "k8s.io/component-base/cli/flag"

	"github.com/incumbent-io/incumbent/pkg/serving"
)

// DefaultSecurePort is where health is served by default, over HTTPS.
const DefaultSecurePort = 10257

func newServing(name string) *genericoptions.SecureServingOptions {
	secure := genericoptions.NewSecureServingOptions()
	secure.BindPort = DefaultSecurePort
	secure.ServerCert = genericoptions.GeneratableKeyCert{PairName: name} // in memory unless --cert-dir says otherwise
	return secure
}

// validateServing finds what would otherwise come to light when the port is bound.
func validateServing(secure *genericoptions.SecureServingOptions, p *places) (errs []error) {
	if secure.BindPort < 0 || secure.BindPort > 65535 {
		errs = append(errs, fmt.Errorf("%s must be between 1 and 65535, or 0 to serve nothing", p.at("serving.securePort", secure.BindPort)))
	}
	key := secure.ServerCert.CertKey
	if (key.CertFile == "") != (key.KeyFile == "") {
		given, missing := "serving.tlsCertFile", "serving.tlsPrivateKeyFile"
		if key.CertFile == "" {
			given, missing = missing, given
		}
		errs = append(errs, fmt.Errorf("%s goes with the other file of the pair; set %s, too", p.of(given), p.hint(missing, "PATH")))
	}
	if _, err := cliflag.TLSVersion(secure.MinTLSVersion); err != nil {
		errs = append(errs, fmt.Errorf("%s is not known; use one of %s", p.at("serving.tlsMinVersion", secure.MinTLSVersion), strings.Join(cliflag.TLSPossibleVersions(), ", ")))
	}
	known := append(cliflag.PreferredTLSCipherNames(), cliflag.InsecureTLSCipherNames()...)
	for i, suite := range secure.CipherSuites {
		if _, err := cliflag.TLSCipherSuites([]string{suite}); err != nil {
			errs = append(errs, fmt.Errorf("%s: %s", p.of(fmt.Sprintf("serving.tlsCipherSuites[%d]", i)), unknown("cipher suite", suite, known)))
		}
	}
	return errs
}

// newAuthentication trusts the tokens that the API server recognises. Without a file
// of CAs for client certificates it looks nothing up in the cluster, so that it needs
// no right to read the cluster's own.
func newAuthentication() *genericoptions.DelegatingAuthenticationOptions {
	authentication := genericoptions.NewDelegatingAuthenticationOptions()
	authentication.RemoteKubeConfigFileOptional = true
	authentication.SkipInClusterLookup = true
	return authentication
}

// newAuthorization lets everybody ask for health, and others for what the API server
// grants them.
func newAuthorization() *genericoptions.DelegatingAuthorizationOptions {
	authorization := genericoptions.NewDelegatingAuthorizationOptions()
	authorization.RemoteKubeConfigFileOptional = true
	authorization.AlwaysAllowPaths = []string{"/healthz", "/healthz/*", "/livez", "/livez/*", "/readyz", "/readyz/*"}
	return authorization
}

// completeServing returns nil if nothing is to be served.
func (o *Options) completeServing() *serving.Config {
	if o.serving.BindPort == 0 {
		return nil
	}
	if o.serving.BindAddress == nil {
		o.serving.BindAddress = net.IPv4zero
	}
	// Outside a Pod, those who review are where the manager's own API server is.
	if kubeconfig := o.client.connection.Kubeconfig; kubeconfig != "" {
		o.authentication.RemoteKubeConfigFile = cmp.Or(o.authentication.RemoteKubeConfigFile, kubeconfig)
		o.authorization.RemoteKubeConfigFile = cmp.Or(o.authorization.RemoteKubeConfigFile, kubeconfig)
	}
	return &serving.Config{Secure: o.serving, Authentication: o.authentication, Authorization: o.authorization}
}
