// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package options

import (
	"fmt"
	"net"
	"strings"

	"k8s.io/client-go/rest"
	cliflag "k8s.io/component-base/cli/flag"

	"github.com/incumbent-io/incumbent/pkg/serving"
)

// DefaultSecurePort is where health is served by default, over HTTPS.
const DefaultSecurePort = 10257

// validateServing finds what would otherwise come to light when the port is bound.
func validateServing(config serving.Config, p *places) (errs []error) {
	secure := config.SecureServing
	if secure.BindPort < 0 || secure.BindPort > 65535 {
		errs = append(errs, fmt.Errorf("%s must be between 1 and 65535, or 0 to serve nothing", p.at("serving.securePort", secure.BindPort)))
	}
	if (secure.CertFile == "") != (secure.KeyFile == "") {
		given, missing := "serving.tlsCertFile", "serving.tlsPrivateKeyFile"
		if secure.CertFile == "" {
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
	return append(errs, config.Validate()...)
}

// completeServing returns nil if nothing is to be served.
func (o *Options) completeServing(client *rest.Config) *serving.Config {
	config := o.serving
	if config.SecureServing.BindPort == 0 {
		return nil
	}
	if config.SecureServing.BindAddress == nil {
		config.SecureServing.BindAddress = net.IPv4zero
	}
	config.REST = client
	return &config
}
