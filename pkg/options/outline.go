// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package options

import "github.com/incumbent-io/incumbent/pkg/serving"

// Outline is the part of a configuration that needs no cluster to be known.
type Outline struct {
	// Elected is false for --leader-elect=false.
	Elected bool
	// Groups and Controllers are as in Config.
	Groups      []Group
	Controllers []Controller
	// ClientCALookup says that the cluster's CA of client certificates is looked up.
	ClientCALookup bool
}

// Outline returns what the manager would be when it ran in the namespace.
func (o *Options) Outline(namespace string) (*Outline, error) {
	groups, err := o.completeGroups(namespace)
	if err != nil {
		return nil, err
	}
	return &Outline{Elected: o.election.LeaderElect, Groups: groups, Controllers: o.completeControllers(), ClientCALookup: looksUpClientCA(&o.serving)}, nil
}

// Outline returns the part of c that needs no cluster to be known.
func (c *Config) Outline() *Outline {
	return &Outline{Elected: c.Election.Enabled, Groups: c.Groups, Controllers: c.Controllers, ClientCALookup: looksUpClientCA(c.Serving)}
}

func looksUpClientCA(config *serving.Config) bool {
	return config != nil && config.SecureServing.BindPort != 0 && config.Authentication.ClientCAFile == "" && !config.Authentication.SkipLookup
}
