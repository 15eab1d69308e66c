// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package serving

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	openpaths "k8s.io/apiserver/pkg/authorization/path"
	"k8s.io/client-go/rest"
	cliflag "k8s.io/component-base/cli/flag"
)

const (
	// reviewTimeout bounds a TokenReview, and after it a SubjectAccessReview, each with
	// all its retries.
	reviewTimeout = 5 * time.Second
	// cacheTTL is how long the answer of a review counts.
	cacheTTL = 10 * time.Second
)

// Config tells where and to whom a manager serves. Use Defaults. All fields are
// required except REST.
type Config struct {
	// SecureServing is the address, the certificates and the TLS settings.
	SecureServing *SecureServing
	// Authentication tells whose credentials count.
	Authentication *Authentication
	// Authorization tells which paths are open, and how permissions are asked for.
	Authorization *Authorization
	// REST reaches the API server that reviews tokens and permissions, unless
	// --authentication-kubeconfig or --authorization-kubeconfig names another. It
	// is copied, and its rate limiter is not used. With nil and no kubeconfig,
	// tokens and permissions are not reviewed: all that is not open is refused,
	// except to the groups that are always allowed.
	REST *rest.Config
}

// SecureServing tells where HTTPS is served, and how.
type SecureServing struct {
	// Listener is a port that is bound already. With it the address, the port and
	// PermitPortSharing do not count.
	Listener net.Listener
	// BindAddress is the address to listen on; an unspecified one stands for all.
	BindAddress net.IP
	// BindPort is the TCP port. With 0 nothing is to be served: do not call Listen.
	BindPort int
	// PermitPortSharing has several processes bind the port at a time. Not on Windows.
	PermitPortSharing bool
	// PermitAddressSharing is accepted for compatibility: where it is safe, Go always
	// binds so.
	PermitAddressSharing bool

	// CertFile and KeyFile are the certificate, with its chain, and its key in PEM.
	// They go together.
	CertFile, KeyFile string
	// CertDirectory holds PairName.crt and PairName.key, which are used if CertFile is
	// empty. They are made if they are not there.
	CertDirectory, PairName string
	// SNICertKeys are further certificates, chosen by the name that a client asks for.
	SNICertKeys []cliflag.NamedCertKey

	// MinTLSVersion is a name such as VersionTLS13; empty stands for 1.2.
	MinTLSVersion string
	// CipherSuites are the names of what TLS 1.2 may use; Go's choice if empty.
	CipherSuites []string
	// CurvePreferences are the numbers of the key exchanges; Go's choice if empty.
	CurvePreferences []int32

	// DisableHTTP2 leaves HTTP/1.1 alone.
	DisableHTTP2 bool
	// HTTP2MaxStreams bounds the requests at a time on a connection of HTTP/2; 100 if 0.
	HTTP2MaxStreams int
}

// Authentication tells whose credentials count.
type Authentication struct {
	// Kubeconfig names the API server that reviews tokens. Empty stands for Config.REST.
	Kubeconfig string
	// Timeout bounds a review with its retries. Default 5 s.
	Timeout time.Duration
	// CacheTTL is how long the answer about a token counts. Default 10 s.
	CacheTTL time.Duration
	// ClientCAFile has the CAs of client certificates in PEM. Empty accepts none,
	// unless the cluster's own is looked up.
	ClientCAFile string
	// SkipLookup leaves the cluster's own CA of client certificates alone. Default
	// false: it is looked up when somebody shows a certificate, if there is an API
	// server to ask.
	SkipLookup bool
	// TolerateLookupFailure is accepted for compatibility: a lookup that fails is
	// always tried again.
	TolerateLookupFailure bool
	// FrontProxy tells which proxy may say who its users are.
	FrontProxy FrontProxy
}

// FrontProxy is believed what its headers say about users.
type FrontProxy struct {
	// ClientCAFile has the CAs of the proxy's client certificates in PEM. Empty
	// believes nobody.
	ClientCAFile string
	// AllowedNames are the common names of those certificates; empty stands for all.
	AllowedNames []string
	// The headers that tell of users. Default X-Remote-User, X-Remote-Group,
	// X-Remote-Extra-, and none for UIDs.
	UsernameHeaders, UIDHeaders, GroupHeaders, ExtraHeaderPrefixes []string
}

// Authorization tells what is permitted.
type Authorization struct {
	// Kubeconfig names the API server that reviews access. Empty stands for Config.REST.
	Kubeconfig string
	// Timeout bounds a review with its retries. Default 5 s.
	Timeout time.Duration
	// AllowCacheTTL and DenyCacheTTL are how long an answer counts. Default 10 s.
	AllowCacheTTL, DenyCacheTTL time.Duration
	// AlwaysAllowPaths are open to everybody. A path that ends in * stands for all
	// that begin so.
	AlwaysAllowPaths []string
	// AlwaysAllowGroups may do everything. Default system:masters, as at the API server.
	AlwaysAllowGroups []string
}

// Defaults returns the configuration of a manager before its flags are parsed: HTTPS
// on port with a self-signed certificate in memory, which is made again at each start
// and valid for a year. name becomes the base name of the certificate files when
// --cert-dir is given.
func Defaults(name string, port int) Config {
	return Config{
		SecureServing: &SecureServing{BindAddress: net.IPv4zero, BindPort: port, PairName: name},
		Authentication: &Authentication{
			Timeout:  reviewTimeout,
			CacheTTL: cacheTTL,
			FrontProxy: FrontProxy{
				UsernameHeaders:     []string{"x-remote-user"},
				GroupHeaders:        []string{"x-remote-group"},
				ExtraHeaderPrefixes: []string{"x-remote-extra-"},
			},
		},
		Authorization: &Authorization{
			Timeout:           reviewTimeout,
			AllowCacheTTL:     cacheTTL,
			DenyCacheTTL:      cacheTTL,
			AlwaysAllowPaths:  []string{"/livez", "/livez/*", "/readyz", "/readyz/*", "/healthz", "/healthz/*"},
			AlwaysAllowGroups: []string{"system:masters"},
		},
	}
}

// Validate returns what is wrong with the settings of authentication and authorization,
// each under the name of its flag. Those of SecureServing, which the configuration file
// has too, are for the caller to name.
func (c Config) Validate() (errs []error) {
	proxy := c.Authentication.FrontProxy
	for _, list := range []struct {
		flag  string
		names []string
	}{
		{"requestheader-username-headers", proxy.UsernameHeaders},
		{"requestheader-uid-headers", proxy.UIDHeaders},
		{"requestheader-group-headers", proxy.GroupHeaders},
		{"requestheader-extra-headers-prefix", proxy.ExtraHeaderPrefixes},
		{"requestheader-allowed-names", proxy.AllowedNames},
	} {
		if slices.ContainsFunc(list.names, func(name string) bool { return strings.TrimSpace(name) == "" }) {
			errs = append(errs, fmt.Errorf("--%s=%q has an empty name; leave it out", list.flag, list.names))
		}
	}
	if _, err := openpaths.NewAuthorizer(c.Authorization.AlwaysAllowPaths); err != nil {
		errs = append(errs, fmt.Errorf("--authorization-always-allow-paths: %w; a path may end in *, which stands for all that begin so", err))
	}
	return errs
}

// complete says which part of the configuration a caller has forgotten.
func (c Config) complete() error {
	if c.SecureServing == nil || c.Authentication == nil || c.Authorization == nil {
		return errors.New("serving: SecureServing, Authentication and Authorization are required; start from Defaults")
	}
	return nil
}
