// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package cluster

import (
	"fmt"
	"os"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	api "k8s.io/client-go/tools/clientcmd/api"
)

// writeKubeconfig writes a self-contained kubeconfig with the named client certificate.
func writeKubeconfig(path, server string, p pki, cert string) error {
	config := api.NewConfig()
	cluster, user := api.NewCluster(), api.NewAuthInfo()
	cluster.Server = server
	for file, data := range map[string]*[]byte{
		p.cert(clusterCA): &cluster.CertificateAuthorityData,
		p.cert(cert):      &user.ClientCertificateData,
		p.key(cert):       &user.ClientKeyData,
	} {
		content, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		*data = content
	}
	kubeContext := api.NewContext()
	kubeContext.Cluster, kubeContext.AuthInfo = "localcluster", cert
	config.Clusters["localcluster"] = cluster
	config.AuthInfos[cert] = user
	config.Contexts["localcluster"] = kubeContext
	config.CurrentContext = "localcluster"
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		return fmt.Errorf("write kubeconfig %s: %w", path, err)
	}
	return nil
}

// clientConfig is the configuration of this process's own clients.
func clientConfig(server string, p pki, cert string) *rest.Config {
	return &rest.Config{
		Host:      server,
		UserAgent: "localcluster",
		// The API server's own fairness is the limit; a client-side one would only delay Pods.
		QPS: -1,
		TLSClientConfig: rest.TLSClientConfig{
			CAFile: p.cert(clusterCA), CertFile: p.cert(cert), KeyFile: p.key(cert),
		},
	}
}
