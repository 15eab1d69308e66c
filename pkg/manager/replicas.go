// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package manager

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/incumbent-io/incumbent/pkg/status"
)

// replica is one that can be asked for its status.
type replica struct {
	name    string
	address string // HOST:PORT
	// dial connects to it; nil dials the address.
	dial func(context.Context, string, string) (net.Conn, error)
	// trusted says that the way to it is authenticated without its certificate.
	trusted bool
	// problem says why it cannot be asked.
	problem error
}

// finder finds replicas by their Pods.
type finder struct {
	config    *rest.Config
	client    kubernetes.Interface
	namespace string
	selector  string
	port      int  // of a Pod that names none https
	direct    bool // connect to status.podIP
}

// find returns a replica for each Pod that is to run one.
func (f *finder) find(ctx context.Context) ([]replica, error) {
	pods, err := f.client.CoreV1().Pods(f.namespace).List(ctx, metav1.ListOptions{LabelSelector: f.selector})
	switch {
	case apierrors.IsForbidden(err):
		return nil, fmt.Errorf("cannot find the replicas: %w; grant list on pods, or name the replicas by --address", err)
	case err != nil:
		return nil, fmt.Errorf("cannot find the replicas: %w", err)
	}
	var found []replica
	for i := range pods.Items {
		if pod := &pods.Items[i]; pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed {
			found = append(found, f.replica(pod))
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("no Pod in namespace %s has the labels %s; say where the manager is by --namespace and --selector, or by --address", f.namespace, f.selector)
	}
	return found, nil
}

func (f *finder) replica(pod *corev1.Pod) replica {
	r := replica{name: pod.Namespace + "/" + pod.Name}
	if pod.Status.Phase != corev1.PodRunning || pod.Status.PodIP == "" {
		r.problem = fmt.Errorf("the Pod is %s", strings.ToLower(string(cmp.Or(pod.Status.Phase, corev1.PodPending))))
		return r
	}
	port := httpsPort(pod, f.port)
	r.address = net.JoinHostPort(pod.Status.PodIP, strconv.Itoa(port))
	if !f.direct {
		r.trusted = true // the API server answers for whom it connects to
		r.dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return tunnel(ctx, f.config, f.client, pod, port)
		}
	}
	return r
}

// httpsPort is the container port called https, or else the other.
func httpsPort(pod *corev1.Pod, other int) int {
	for _, container := range pod.Spec.Containers {
		for _, port := range container.Ports {
			if port.Name == "https" {
				return int(port.ContainerPort)
			}
		}
	}
	return other
}

// asker asks replicas for their status.
type asker struct {
	// credentials are sent to every replica; the server that they name is not asked.
	credentials *rest.Config
	tls         trust
}

// trust says whose certificates count on a way that proves nothing by itself.
type trust struct {
	caFile, serverName string
	insecure           bool
}

// answer is the status of a replica, or why there is none.
type answer struct {
	replica  string
	snapshot status.Snapshot
	err      error
}

// askAll asks all replicas at once. The answers are in their order.
func (a *asker) askAll(ctx context.Context, replicas []replica) []answer {
	answers := make([]answer, len(replicas))
	var asked sync.WaitGroup
	for i, r := range replicas {
		asked.Go(func() {
			answers[i] = answer{replica: r.name, err: r.problem}
			if r.problem == nil {
				answers[i].snapshot, answers[i].err = a.ask(ctx, r)
			}
		})
	}
	asked.Wait()
	return answers
}

// maxStatus bounds what is read of an answer, in bytes.
const maxStatus = 16 << 20

func (a *asker) ask(ctx context.Context, r replica) (snapshot status.Snapshot, err error) {
	config := rest.CopyConfig(a.credentials)
	config.Host, config.APIPath = "https://"+r.address, ""
	config.CAData, config.CAFile = nil, a.tls.caFile
	config.ServerName, config.Insecure = a.tls.serverName, a.tls.insecure
	if r.trusted {
		config.CAFile, config.ServerName, config.Insecure = "", "", true
	}
	config.Dial = r.dial
	if config.Dial == nil {
		config.Dial = (&net.Dialer{}).DialContext
	}
	config.Proxy = func(*http.Request) (*url.URL, error) { return nil, nil }
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return snapshot, err
	}
	defer client.CloseIdleConnections()
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse } // the token is for this replica
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, config.Host+"/controllers?format=json", nil)
	if err != nil {
		return snapshot, err
	}
	response, err := client.Do(request)
	if err != nil {
		return snapshot, unreached(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxStatus))
	if err != nil {
		return snapshot, unreached(err)
	}
	if response.StatusCode != http.StatusOK {
		return snapshot, refused(response.StatusCode, strings.TrimSpace(string(body)))
	}
	if err := json.Unmarshal(body, &snapshot); err != nil || snapshot.Manager == "" {
		return snapshot, errors.New("what answers is not a manager: /controllers is not the status of one")
	}
	return snapshot, nil
}

// unreached says what helps where no answer came.
func unreached(err error) error {
	var host x509.HostnameError
	var verification *tls.CertificateVerificationError
	switch {
	case errors.As(err, &host):
		return fmt.Errorf("%w; give a name that the certificate has by --tls-server-name", err)
	case errors.As(err, &verification):
		return fmt.Errorf("%w; its CA is not the one of --certificate-authority", err)
	case errors.Is(err, context.DeadlineExceeded), os.IsTimeout(err):
		return fmt.Errorf("no answer within %v: %w", statusTimeout, err)
	}
	return err
}

// refused says what helps against an answer that is not the status.
func refused(code int, body string) error {
	switch code {
	case http.StatusUnauthorized:
		return errors.New("401: it does not accept these credentials; give --token or --token-file, for instance with a token of `kubectl create token`; a client certificate needs a manager that knows its CA (--client-ca-file)")
	case http.StatusForbidden:
		return fmt.Errorf("403: grant the verb get on the nonResourceURL /controllers: %s", messageOf(body))
	case http.StatusNotFound:
		return errors.New("404: what answers has no /controllers, so it is not a manager")
	}
	return fmt.Errorf("%d: %s", code, messageOf(body))
}

// messageOf is the message of a Status object, or the text itself.
func messageOf(body string) string {
	var object metav1.Status
	if json.Unmarshal([]byte(body), &object) == nil && object.Message != "" {
		return object.Message
	}
	const most = 300
	return body[:min(len(body), most)]
}
