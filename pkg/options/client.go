// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package options

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/pflag"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/client-go/util/flowcontrol"
	componentbaseconfig "k8s.io/component-base/config"
)

// inClusterNamespaceFile is where a Pod finds the name of its namespace.
const inClusterNamespaceFile = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"

// client holds how the API server is reached.
type client struct {
	master     string
	connection componentbaseconfig.ClientConnectionConfiguration
}

func newClient() client {
	return client{connection: componentbaseconfig.ClientConnectionConfiguration{
		ContentType: "application/vnd.kubernetes.protobuf",
		QPS:         50,
		Burst:       100,
	}}
}

func (c *client) addFlags(flags *pflag.FlagSet) {
	flags.StringVar(&c.connection.Kubeconfig, "kubeconfig", c.connection.Kubeconfig, "Path to a kubeconfig file. Without it, and without --master, the Pod's service account is used.")
	flags.StringVar(&c.master, "master", c.master, "Address of the API server; overrides the one in the kubeconfig file.")
	flags.StringVar(&c.connection.ContentType, "kube-api-content-type", c.connection.ContentType, "Content type of requests to the API server: application/json or application/vnd.kubernetes.protobuf. Custom resources always use JSON.")
	flags.Float32Var(&c.connection.QPS, "kube-api-qps", c.connection.QPS, "Requests per second to the API server that all controllers together may send. 0 or less means no limit. Lease and Event requests do not count.")
	flags.Int32Var(&c.connection.Burst, "kube-api-burst", c.connection.Burst, "Requests that may exceed --kube-api-qps at once.")
}

func (c *client) validate(p *places) (errs []error) {
	switch c.connection.ContentType {
	case "application/json", "application/vnd.kubernetes.protobuf":
	default:
		errs = append(errs, fmt.Errorf("%s is not known; use application/json or application/vnd.kubernetes.protobuf", p.at("clientConnection.contentType", c.connection.ContentType)))
	}
	if c.connection.QPS > 0 && c.connection.Burst < 1 {
		errs = append(errs, fmt.Errorf("%s would let no request pass; use at least 1, or %s for no limit", p.at("clientConnection.burst", c.connection.Burst), p.hint("clientConnection.qps", "0")))
	}
	return errs
}

// restConfig returns the configuration that every client derives from, and the
// namespace that it implies.
func (c *client) restConfig(name string) (config *rest.Config, namespace string, err error) {
	if c.connection.Kubeconfig == "" && c.master == "" {
		if config, err = rest.InClusterConfig(); err != nil {
			return nil, "", fmt.Errorf("no API server to talk to: this is not a Pod (%w) and --kubeconfig is not set; pass --kubeconfig=PATH", err)
		}
		namespace = namespaceFromFile(inClusterNamespaceFile)
	} else {
		loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(
			&clientcmd.ClientConfigLoadingRules{ExplicitPath: c.connection.Kubeconfig},
			&clientcmd.ConfigOverrides{ClusterInfo: clientcmdapi.Cluster{Server: c.master}})
		if config, err = loader.ClientConfig(); err != nil {
			return nil, "", fmt.Errorf("--kubeconfig=%q cannot be used: %w; pass the path of a readable kubeconfig file whose current context is complete", c.connection.Kubeconfig, err)
		}
		if namespace, _, err = loader.Namespace(); err != nil {
			return nil, "", fmt.Errorf("--kubeconfig=%q: %w", c.connection.Kubeconfig, err)
		}
	}
	config.ContentConfig.ContentType = c.connection.ContentType
	if c.connection.ContentType != "application/json" {
		config.AcceptContentTypes = c.connection.ContentType + ",application/json"
	}
	// One limiter for all clients made from this configuration: the limits bound the
	// manager as a whole, however many controllers it runs.
	config.QPS, config.Burst = c.connection.QPS, int(c.connection.Burst)
	if config.QPS > 0 {
		config.RateLimiter = flowcontrol.NewTokenBucketRateLimiter(config.QPS, config.Burst)
	} else {
		config.QPS = -1
	}
	config.UserAgent = fmt.Sprintf("%s/%s", name, Version())
	return config, namespace, nil
}

func namespaceFromFile(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}
