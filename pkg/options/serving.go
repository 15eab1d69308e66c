// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package options

import (
	"fmt"
	"net"
	"strings"

	genericoptions "k8s.io/apiserver/pkg/server/options"
	cliflag "k8s.io/component-base/cli/flag"
)

// DefaultSecurePort is where health is served by default, over HTTPS.
const DefaultSecurePort = 10257

func newServing(name string) *genericoptions.SecureServingOptions {
	serving := genericoptions.NewSecureServingOptions()
	serving.BindPort = DefaultSecurePort
	serving.ServerCert = genericoptions.GeneratableKeyCert{PairName: name} // in memory unless --cert-dir says otherwise
	return serving
}

// validateServing finds what would otherwise come to light when the port is bound.
func validateServing(serving *genericoptions.SecureServingOptions, p *places) (errs []error) {
	if serving.BindPort < 0 || serving.BindPort > 65535 {
		errs = append(errs, fmt.Errorf("%s must be between 1 and 65535, or 0 to serve nothing", p.at("serving.securePort", serving.BindPort)))
	}
	key := serving.ServerCert.CertKey
	if (key.CertFile == "") != (key.KeyFile == "") {
		given, missing := "serving.tlsCertFile", "serving.tlsPrivateKeyFile"
		if key.CertFile == "" {
			given, missing = missing, given
		}
		errs = append(errs, fmt.Errorf("%s goes with the other file of the pair; set %s, too", p.of(given), p.hint(missing, "PATH")))
	}
	if _, err := cliflag.TLSVersion(serving.MinTLSVersion); err != nil {
		errs = append(errs, fmt.Errorf("%s is not known; use one of %s", p.at("serving.tlsMinVersion", serving.MinTLSVersion), strings.Join(cliflag.TLSPossibleVersions(), ", ")))
	}
	known := append(cliflag.PreferredTLSCipherNames(), cliflag.InsecureTLSCipherNames()...)
	for i, suite := range serving.CipherSuites {
		if _, err := cliflag.TLSCipherSuites([]string{suite}); err != nil {
			errs = append(errs, fmt.Errorf("%s: %s", p.of(fmt.Sprintf("serving.tlsCipherSuites[%d]", i)), unknown("cipher suite", suite, known)))
		}
	}
	return errs
}

// completeServing returns nil if nothing is to be served.
func completeServing(serving *genericoptions.SecureServingOptions) *genericoptions.SecureServingOptions {
	if serving.BindPort == 0 {
		return nil
	}
	if serving.BindAddress == nil {
		serving.BindAddress = net.IPv4zero
	}
	return serving
}
