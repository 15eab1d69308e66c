// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package serving

import (
	"context"
	"crypto/x509"
	"fmt"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/cert"
)

// The ConfigMap in which a cluster tells the CA of its client certificates, and the key.
const (
	clusterCAName = "extension-apiserver-authentication"
	clusterCAKey  = "client-ca-file"
)

// authorities are CAs of client certificates, which may change.
type authorities interface {
	// known returns what is known without asking anybody.
	known(ctx context.Context) []*x509.Certificate
	// wanted returns what counts now. The error means that nobody knows.
	wanted(ctx context.Context) ([]*x509.Certificate, error)
}

// authoritiesFile is a file of CAs.
type authoritiesFile struct {
	*files[[]*x509.Certificate]
}

func newAuthoritiesFile(flag, path string) (authorities, error) {
	content, err := newFiles(func(contents [][]byte) ([]*x509.Certificate, error) {
		return cert.ParseCertsPEM(contents[0])
	}, path)
	if err != nil {
		return nil, fmt.Errorf("--%s=%s: %w", flag, path, err)
	}
	return authoritiesFile{content}, nil
}

func (a authoritiesFile) known(ctx context.Context) []*x509.Certificate { return a.get(ctx) }

func (a authoritiesFile) wanted(ctx context.Context) ([]*x509.Certificate, error) {
	return a.get(ctx), nil
}

// authoritiesOfCluster are the CAs that the cluster's ConfigMap names. It is read when
// somebody shows a client certificate.
type authoritiesOfCluster struct {
	client  corev1client.ConfigMapInterface
	timeout time.Duration
	ttl     time.Duration
	answers *memory[[]*x509.Certificate]
	last    atomic.Pointer[[]*x509.Certificate] // nil before the first answer
}

func newAuthoritiesOfCluster(options *Authentication, reviews *rest.Config) (*authoritiesOfCluster, error) {
	client, err := corev1client.NewForConfig(reviews)
	if err != nil {
		return nil, fmt.Errorf("client for the lookup of the client CA: %w", err)
	}
	return &authoritiesOfCluster{
		client:  client.ConfigMaps(metav1.NamespaceSystem),
		timeout: options.Timeout,
		ttl:     options.CacheTTL,
		answers: newMemory[[]*x509.Certificate](),
	}, nil
}

func (a *authoritiesOfCluster) known(context.Context) []*x509.Certificate {
	if last := a.last.Load(); last != nil {
		return *last
	}
	return nil
}

// wanted looks the CAs up. Those that were known once count on while nobody can be asked.
func (a *authoritiesOfCluster) wanted(ctx context.Context) ([]*x509.Certificate, error) {
	found, err := a.answers.recall(ctx, "", a.lookUp)
	if last := a.last.Load(); err != nil && last != nil {
		return *last, nil
	}
	return found, err
}

func (a *authoritiesOfCluster) lookUp(ctx context.Context) (found []*x509.Certificate, ttl time.Duration, err error) {
	content, err := ask(ctx, a.timeout, func(ctx context.Context) (*corev1.ConfigMap, error) {
		return a.client.Get(ctx, clusterCAName, metav1.GetOptions{})
	})
	if apierrors.IsNotFound(err) {
		content, err = &corev1.ConfigMap{}, nil
	}
	if err != nil {
		return nil, 0, fmt.Errorf("ConfigMap %s/%s: %w", metav1.NamespaceSystem, clusterCAName, err)
	}
	if text := content.Data[clusterCAKey]; text != "" {
		if found, err = cert.ParseCertsPEM([]byte(text)); err != nil {
			return nil, 0, fmt.Errorf("ConfigMap %s/%s: %s: %w", metav1.NamespaceSystem, clusterCAName, clusterCAKey, err)
		}
	}
	a.last.Store(&found)
	return found, a.ttl, nil
}

// pool returns a pool of certificates. It is never nil, which would stand for the CAs of
// the operating system.
func pool(certificates []*x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	for _, certificate := range certificates {
		p.AddCert(certificate)
	}
	return p
}
