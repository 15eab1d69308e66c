// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package cluster

import (
	"fmt"
	"os"
)

const (
	serviceRange = "10.96.0.0/16"
	serviceIP    = "10.96.0.1" // of the Service kubernetes.default
	kubeletPort  = 10250
)

// auditPolicy records who did what to which object, once per request.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
`

// controlPlane returns the arguments of each component, in the order in which they start.
func controlPlane(d *dataDir, p pki, ports ports) (map[string][]string, error) {
	if err := os.WriteFile(p.file("audit-policy.yaml"), []byte(auditPolicy), 0o600); err != nil {
		return nil, err
	}
	server := serverURL(ports)
	for cert, name := range map[string]string{certController: "kcm.kubeconfig", certScheduler: "scheduler.kubeconfig"} {
		if err := writeKubeconfig(p.file(name), server, p, cert); err != nil {
			return nil, err
		}
	}
	etcdURL := fmt.Sprintf("https://127.0.0.1:%d", ports.EtcdClient)
	// The flags that kube-controller-manager and kube-scheduler share.
	common := func(kubeconfig string, port int) []string {
		return []string{
			"--kubeconfig=" + p.file(kubeconfig),
			"--authentication-kubeconfig=" + p.file(kubeconfig),
			"--authorization-kubeconfig=" + p.file(kubeconfig),
			"--bind-address=127.0.0.1",
			fmt.Sprintf("--secure-port=%d", port),
			"--tls-cert-file=" + p.cert(certServing),
			"--tls-private-key-file=" + p.key(certServing),
			"--client-ca-file=" + p.cert(clusterCA),
			// There is one of each; without the election it starts at once.
			"--leader-elect=false",
		}
	}
	return map[string][]string{
		Etcd: {
			"--data-dir=" + d.file("etcd"),
			"--client-url=" + etcdURL,
			fmt.Sprintf("--peer-url=https://127.0.0.1:%d", ports.EtcdPeer),
			"--cert-file=" + p.cert(certEtcd),
			"--key-file=" + p.key(certEtcd),
			"--trusted-ca-file=" + p.cert(etcdCA),
		},
		APIServer: {
			"--bind-address=127.0.0.1",
			// Given, because the default is taken from the default route, which a bare machine may not have.
			"--advertise-address=127.0.0.1",
			fmt.Sprintf("--secure-port=%d", ports.APIServer),
			"--tls-cert-file=" + p.cert(certServing),
			"--tls-private-key-file=" + p.key(certServing),
			"--client-ca-file=" + p.cert(clusterCA),
			"--etcd-servers=" + etcdURL,
			"--etcd-cafile=" + p.cert(etcdCA),
			"--etcd-certfile=" + p.cert(certEtcdClient),
			"--etcd-keyfile=" + p.key(certEtcdClient),
			"--authorization-mode=RBAC",
			// The reconciler would publish a loopback address as an endpoint, which is refused, every 10 s.
			"--endpoint-reconciler-type=none",
			"--service-cluster-ip-range=" + serviceRange,
			"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
			"--service-account-key-file=" + p.cert(keyServiceAccount),
			"--service-account-signing-key-file=" + p.key(keyServiceAccount),
			"--kubelet-certificate-authority=" + p.cert(clusterCA),
			"--kubelet-client-certificate=" + p.cert(certKubeletClient),
			"--kubelet-client-key=" + p.key(certKubeletClient),
			"--kubelet-preferred-address-types=InternalIP",
			"--requestheader-client-ca-file=" + p.cert(frontProxyCA),
			"--requestheader-allowed-names=front-proxy-client",
			"--requestheader-username-headers=X-Remote-User",
			"--requestheader-group-headers=X-Remote-Group",
			"--requestheader-extra-headers-prefix=X-Remote-Extra-",
			"--proxy-client-cert-file=" + p.cert(certFrontProxy),
			"--proxy-client-key-file=" + p.key(certFrontProxy),
			"--audit-policy-file=" + p.file("audit-policy.yaml"),
			"--audit-log-path=" + d.file("audit.log"),
			// One file, whole: the tests read it to the end.
			"--audit-log-maxsize=16384",
			"--allow-privileged=true",
		},
		ControllerManager: append(common("kcm.kubeconfig", ports.ControllerManager),
			"--use-service-account-credentials=true",
			"--service-account-private-key-file="+p.key(keyServiceAccount),
			"--root-ca-file="+p.cert(clusterCA),
			"--cluster-signing-cert-file="+p.cert(clusterCA),
			"--cluster-signing-key-file="+p.key(clusterCA),
			"--kube-api-qps=200",
			"--kube-api-burst=400",
			// A fault that stops the API server for a while is not about the nodes: they stay Ready.
			"--node-monitor-grace-period=24h",
			// Endpoints with loopback addresses are refused by the API server, so these could only report errors.
			"--controllers=*,-endpoints-controller,-endpointslice-controller,-endpointslice-mirroring-controller",
		),
		Scheduler: common("scheduler.kubeconfig", ports.Scheduler),
	}, nil
}

func serverURL(p ports) string { return fmt.Sprintf("https://127.0.0.1:%d", p.APIServer) }
