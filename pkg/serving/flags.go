// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package serving

import (
	"strings"

	"github.com/spf13/pflag"
	cliflag "k8s.io/component-base/cli/flag"
)

// AddFlags adds the flags of kube-controller-manager, by their names and in its sections.
func (c Config) AddFlags(sections *cliflag.NamedFlagSets) {
	c.SecureServing.addFlags(sections.FlagSet("secure serving"))
	c.Authentication.addFlags(sections.FlagSet("authentication"))
	c.Authorization.addFlags(sections.FlagSet("authorization"))
}

func (s *SecureServing) addFlags(flags *pflag.FlagSet) {
	flags.IPVar(&s.BindAddress, "bind-address", s.BindAddress, "The IP address to serve HTTPS on. Empty, 0.0.0.0 and :: stand for all addresses of both families.")
	flags.IntVar(&s.BindPort, "secure-port", s.BindPort, "The port to serve HTTPS on. 0 serves nothing.")
	flags.BoolVar(&s.PermitPortSharing, "permit-port-sharing", s.PermitPortSharing, "Bind the port with SO_REUSEPORT, so that several processes can at a time. Not on Windows.")
	flags.BoolVar(&s.PermitAddressSharing, "permit-address-sharing", s.PermitAddressSharing, "Accepted for compatibility. The port is always bound with SO_REUSEADDR, except on Windows, where that is not safe.")

	flags.StringVar(&s.CertFile, "tls-cert-file", s.CertFile, "File with the certificate to serve, followed by its chain, in PEM. It is read again when it changes. Without this flag the pair in --cert-dir is served.")
	flags.StringVar(&s.KeyFile, "tls-private-key-file", s.KeyFile, "File with the private key of --tls-cert-file in PEM.")
	flags.StringVar(&s.CertDirectory, "cert-dir", s.CertDirectory, "Directory with a certificate and its key, which are made and kept there if they are missing. If empty, a self-signed certificate is made at each start. Not used with --tls-cert-file.")
	flags.Var(cliflag.NewNamedCertKeyArray(&s.SNICertKeys), "tls-sni-cert-key", "Files of a further certificate and its key, and the names that it is for, as \"cert.pem,key.pem:*.example.com,example.org\"; without names those in the certificate count. Addresses are names, too. May be given several times.")

	flags.StringVar(&s.MinTLSVersion, "tls-min-version", s.MinTLSVersion, "The oldest version of TLS to accept, by default 1.2. One of "+strings.Join(cliflag.TLSPossibleVersions(), ", ")+".")
	flags.StringSliceVar(&s.CipherSuites, "tls-cipher-suites", s.CipherSuites, "Cipher suites of TLS 1.2, by default Go's choice.\nPreferred: "+strings.Join(cliflag.PreferredTLSCipherNames(), ", ")+".\nInsecure: "+strings.Join(cliflag.InsecureTLSCipherNames(), ", ")+".")
	flags.Int32SliceVar(&s.CurvePreferences, "tls-curve-preferences", s.CurvePreferences, "Numbers of the key exchanges to accept, as crypto/tls has them (https://pkg.go.dev/crypto/tls#CurveID), by default Go's choice. Their order does not matter.")

	flags.BoolVar(&s.DisableHTTP2, "disable-http2-serving", s.DisableHTTP2, "Serve HTTP/1.1 only.")
	flags.IntVar(&s.HTTP2MaxStreams, "http2-max-streams-per-connection", s.HTTP2MaxStreams, "The requests at a time on one connection of HTTP/2. 0 stands for 100.")
}

func (a *Authentication) addFlags(flags *pflag.FlagSet) {
	flags.StringVar(&a.Kubeconfig, "authentication-kubeconfig", a.Kubeconfig, "kubeconfig file of the API server that may be asked to create tokenreviews.authentication.k8s.io. If empty, the manager's own client settings are used.")
	flags.DurationVar(&a.CacheTTL, "authentication-token-webhook-cache-ttl", a.CacheTTL, "How long the answer about a token counts.")
	flags.StringVar(&a.ClientCAFile, "client-ca-file", a.ClientCAFile, "File with the CAs of client certificates in PEM. Who has a certificate of theirs is the user whom its common name names.")
	flags.BoolVar(&a.SkipLookup, "authentication-skip-lookup", a.SkipLookup, "If false, the CA of client certificates is looked up in the ConfigMap kube-system/extension-apiserver-authentication unless --client-ca-file is given. It is read when somebody shows a certificate.")
	flags.BoolVar(&a.TolerateLookupFailure, "authentication-tolerate-lookup-failure", a.TolerateLookupFailure, "Accepted for compatibility. A lookup that fails is always tried again in the background, and no client certificate is accepted meanwhile.")

	proxy := &a.FrontProxy
	flags.StringVar(&proxy.ClientCAFile, "requestheader-client-ca-file", proxy.ClientCAFile, "File with the CAs, in PEM, of the client certificate of a front proxy, which is believed what its headers say about users. If empty, nobody is.")
	flags.StringSliceVar(&proxy.AllowedNames, "requestheader-allowed-names", proxy.AllowedNames, "Common names of a front proxy's certificate. If empty, every certificate of --requestheader-client-ca-file is a front proxy's.")
	flags.StringSliceVar(&proxy.UsernameHeaders, "requestheader-username-headers", proxy.UsernameHeaders, "Headers in which a front proxy names the user. The first that is there counts.")
	flags.StringSliceVar(&proxy.UIDHeaders, "requestheader-uid-headers", proxy.UIDHeaders, "Headers in which a front proxy tells the user's UID; X-Remote-Uid is common.")
	flags.StringSliceVar(&proxy.GroupHeaders, "requestheader-group-headers", proxy.GroupHeaders, "Headers in which a front proxy names the user's groups.")
	flags.StringSliceVar(&proxy.ExtraHeaderPrefixes, "requestheader-extra-headers-prefix", proxy.ExtraHeaderPrefixes, "What the headers begin with in which a front proxy tells more about the user.")
}

func (a *Authorization) addFlags(flags *pflag.FlagSet) {
	flags.StringVar(&a.Kubeconfig, "authorization-kubeconfig", a.Kubeconfig, "kubeconfig file of the API server that may be asked to create subjectaccessreviews.authorization.k8s.io. If empty, the manager's own client settings are used.")
	flags.DurationVar(&a.AllowCacheTTL, "authorization-webhook-cache-authorized-ttl", a.AllowCacheTTL, "How long a permission counts once it is known.")
	flags.DurationVar(&a.DenyCacheTTL, "authorization-webhook-cache-unauthorized-ttl", a.DenyCacheTTL, "How long the lack of a permission counts once it is known.")
	flags.StringSliceVar(&a.AlwaysAllowPaths, "authorization-always-allow-paths", a.AlwaysAllowPaths, "HTTP paths that are open to everybody, without credentials. A path that ends in * stands for all that begin so. Keep the paths of probes in the list: probes send no credentials.")
}
