// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package serving

import (
	"errors"
	"time"

	"github.com/spf13/pflag"
	genericoptions "k8s.io/apiserver/pkg/server/options"
	"k8s.io/client-go/rest"
	cliflag "k8s.io/component-base/cli/flag"
)

// reviewTimeout bounds a TokenReview, and after it a SubjectAccessReview, each with
// all its retries.
const reviewTimeout = 5 * time.Second

// Config tells where and to whom a manager serves. Use Defaults. All fields are
// required except REST.
type Config struct {
	// SecureServing is the address, the certificates and the TLS settings.
	SecureServing *genericoptions.SecureServingOptions
	// Authentication tells whose credentials count.
	Authentication *genericoptions.DelegatingAuthenticationOptions
	// Authorization tells which paths are open, and how permissions are asked for.
	Authorization *genericoptions.DelegatingAuthorizationOptions
	// REST reaches the API server that reviews tokens and permissions, unless
	// --authentication-kubeconfig or --authorization-kubeconfig names another. It
	// is copied, and its rate limiter is not used. With nil and no kubeconfig,
	// tokens and permissions are not reviewed: all that is not open is refused,
	// except to the groups that are always allowed.
	REST *rest.Config
}

// Defaults returns the configuration of a manager before its flags are parsed: HTTPS
// on port with a self-signed certificate in memory, which is made again at each start
// and valid for a year. name becomes the base name of the certificate files when
// --cert-dir is given.
func Defaults(name string, port int) Config {
	config := Config{
		SecureServing:  genericoptions.NewSecureServingOptions(),
		Authentication: genericoptions.NewDelegatingAuthenticationOptions(),
		Authorization:  genericoptions.NewDelegatingAuthorizationOptions(),
	}
	config.SecureServing.BindPort = port
	config.SecureServing.ServerCert = genericoptions.GeneratableKeyCert{PairName: name}
	config.Authentication.SkipInClusterLookup = true
	config.Authentication.TokenRequestTimeout = reviewTimeout
	config.Authorization.ClientTimeout = reviewTimeout
	config.Authorization.AlwaysAllowPaths = []string{"/livez", "/livez/*", "/readyz", "/readyz/*", "/healthz", "/healthz/*"}
	return config
}

// AddFlags adds the flags in the sections that kube-controller-manager has them in.
// Their help is corrected where this package does otherwise than it says.
func (c Config) AddFlags(sections *cliflag.NamedFlagSets) {
	c.SecureServing.AddFlags(sections.FlagSet("secure serving"))
	authentication := sections.FlagSet("authentication")
	c.Authentication.AddFlags(authentication)
	explain(authentication, "authentication-kubeconfig", "kubeconfig file of the API server that may be asked to create tokenreviews.authentication.k8s.io. If empty, the manager's own client settings are used.")
	explain(authentication, "authentication-skip-lookup", "If false, the CA of client certificates is looked up in the ConfigMap kube-system/extension-apiserver-authentication unless --client-ca-file is given. The lookup goes on in the background, and needs the Role extension-apiserver-authentication-reader in kube-system.")
	explain(authentication, "authentication-tolerate-lookup-failure", "Accepted for compatibility. A lookup that fails is always tried again in the background, and no client certificate is accepted meanwhile.")
	authorization := sections.FlagSet("authorization")
	c.Authorization.AddFlags(authorization)
	explain(authorization, "authorization-kubeconfig", "kubeconfig file of the API server that may be asked to create subjectaccessreviews.authorization.k8s.io. If empty, the manager's own client settings are used.")
	explain(authorization, "authorization-always-allow-paths", "HTTP paths that are open to everybody, without credentials. A path that ends in * stands for all that begin so. Keep the paths of probes in the list: probes send no credentials.")
}

func explain(flags *pflag.FlagSet, name, usage string) { flags.Lookup(name).Usage = usage }

// complete says which part of the configuration a caller has forgotten.
func (c Config) complete() error {
	if c.SecureServing == nil || c.Authentication == nil || c.Authorization == nil {
		return errors.New("serving: SecureServing, Authentication and Authorization are required; start from Defaults")
	}
	return nil
}
