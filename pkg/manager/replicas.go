// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package manager

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/httpstream"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"

	"github.com/incumbent-io/incumbent/pkg/status"
)

// find returns whom to ask.
func (r *replicas) find(ctx context.Context) ([]replica, error) {
	if r.address != "" {
		return []replica{{name: r.address, connect: at(r.address)}}, nil
	}
	client, err := kubernetes.NewForConfig(r.rest)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	pods, err := client.CoreV1().Pods(r.namespace).List(ctx, metav1.ListOptions{LabelSelector: r.selector})
	if err != nil {
		return nil, fmt.Errorf("cannot look for the manager's Pods in namespace %s: %w", r.namespace, err)
	}
	var found []replica
	for _, pod := range pods.Items {
		if pod.Status.Phase == corev1.PodRunning && pod.DeletionTimestamp == nil {
			found = append(found, r.reach(client, &pod))
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("no Pod runs in namespace %s with labels %s; say where the manager is by --namespace and --selector, or by --address", r.namespace, r.selector)
	}
	return found, nil
}

// reach says how to reach a Pod.
func (r *replicas) reach(client kubernetes.Interface, pod *corev1.Pod) replica {
	port := r.port
	for _, container := range pod.Spec.Containers {
		for _, named := range container.Ports {
			if named.Name == "https" {
				port = int(named.ContainerPort)
			}
		}
	}
	one := replica{name: pod.Namespace + "/" + pod.Name}
	if r.direct {
		one.connect = at("https://" + net.JoinHostPort(pod.Status.PodIP, strconv.Itoa(port)))
		return one
	}
	target := client.CoreV1().RESTClient().Post().Resource("pods").Namespace(pod.Namespace).Name(pod.Name).SubResource("portforward").URL()
	one.connect = func(ctx context.Context) (string, func(), error) {
		dialer, err := r.dialer(target)
		if err != nil {
			return "", nil, err
		}
		return forward(ctx, dialer, port)
	}
	return one
}

// at connects to an address.
func at(address string) func(context.Context) (string, func(), error) {
	return func(context.Context) (string, func(), error) { return address, func() {}, nil }
}

// dialer opens a port-forward by a WebSocket, or by SPDY where the API server, or what
// is before it, knows no better.
func (r *replicas) dialer(target *url.URL) (httpstream.Dialer, error) {
	transport, upgrader, err := spdy.RoundTripperFor(r.rest)
	if err != nil {
		return nil, err
	}
	old := spdy.NewDialer(upgrader, &http.Client{Transport: transport}, http.MethodPost, target)
	socket, err := portforward.NewSPDYOverWebsocketDialer(target, r.rest)
	if err != nil {
		return nil, err
	}
	return portforward.NewFallbackDialer(socket, old, func(err error) bool {
		return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
	}), nil
}

// forward makes a port of this machine that leads to the Pod's, until disconnect is
// called.
func forward(ctx context.Context, dialer httpstream.Dialer, port int) (address string, disconnect func(), err error) {
	stop, ready := make(chan struct{}), make(chan struct{})
	forwarder, err := portforward.NewOnAddresses(dialer, []string{"127.0.0.1"}, []string{fmt.Sprintf("0:%d", port)}, stop, ready, io.Discard, io.Discard)
	if err != nil {
		return "", nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- forwarder.ForwardPorts() }()
	disconnect = func() {
		close(stop)
		<-ended
	}
	select {
	case <-ready:
	case err := <-ended:
		return "", nil, fmt.Errorf("port-forward: %w", err)
	case <-ctx.Done():
		go disconnect() // a dial that hangs must not hold up the others
		return "", nil, fmt.Errorf("port-forward: no connection within %v", askTimeout)
	}
	ports, err := forwarder.GetPorts()
	if err != nil {
		disconnect()
		return "", nil, err
	}
	return fmt.Sprintf("https://127.0.0.1:%d", ports[0].Local), disconnect, nil
}

// askOne asks one replica.
func (r *replicas) askOne(ctx context.Context, one replica) (*status.Snapshot, error) {
	client, err := r.client()
	if err != nil {
		return nil, err
	}
	address, disconnect, err := one.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer disconnect()
	defer client.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(address, "/")+"/controllers?format=json", nil)
	if err != nil {
		return nil, err
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 16<<20))
	switch {
	case err != nil:
		return nil, err
	case response.StatusCode == http.StatusUnauthorized:
		return nil, errors.New("it does not accept the credentials (401): give --token, for instance one of `kubectl create token`; a client certificate needs a manager that runs with --client-ca-file")
	case response.StatusCode == http.StatusForbidden:
		return nil, errors.New("it refuses (403): the user needs \"get\" on the nonResourceURL /controllers")
	case response.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("it answers %s: %.200s", response.Status, strings.TrimSpace(string(body)))
	}
	snapshot := &status.Snapshot{}
	if err := json.Unmarshal(body, snapshot); err != nil {
		return nil, fmt.Errorf("what it answers is not a status: %w", err)
	}
	return snapshot, nil
}

// client sends the credentials of the kubeconfig, or the token, to a replica.
func (r *replicas) client() (*http.Client, error) {
	config := rest.CopyConfig(r.rest)
	config.TLSClientConfig = rest.TLSClientConfig{
		CertFile: config.CertFile, CertData: config.CertData, KeyFile: config.KeyFile, KeyData: config.KeyData,
		CAFile: r.authority, Insecure: r.authority == "",
	}
	config.Timeout = 0 // the context bounds it
	if r.token != "" {
		config = rest.AnonymousClientConfig(config)
		config.BearerToken = r.token
	}
	return rest.HTTPClientFor(config)
}
