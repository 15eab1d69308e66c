// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package clients

import (
	"errors"
	"fmt"
	"net/http"
	"sync"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/transport"
)

// Fakes stands in for the API server in unit tests. A nil field means that
// this form of client is not there; asking for it panics with a message that
// says so.
type Fakes struct {
	Kubernetes kubernetes.Interface
	Dynamic    dynamic.Interface
	Metadata   metadata.Interface
}

// SetConfig says whose clients a Set holds.
type SetConfig struct {
	// REST reaches the API server. It is copied. Required, except with Fakes.
	//
	// Clients share REST.RateLimiter when it is set; otherwise each form of
	// client gets a limiter of its own from QPS and Burst. Sets share one
	// connection as long as REST.Dial and REST.Proxy are nil: client-go cannot
	// tell two such functions apart, so each Set would dial for itself.
	REST *rest.Config
	// UserAgent tells the controllers apart in the audit log. Empty: REST's, or
	// else client-go's default.
	UserAgent string
	// Wrap is put around everything else that REST wraps around the transport,
	// so that it sees each request first: this is where the fence of a term
	// stands. Nil: none.
	Wrap transport.WrapperFunc
	// OnRefused is called when the API server answers a request with 403 Forbidden,
	// or with 404 because it does not serve the resource; not for an object that is
	// not found. It is a reason to look, not a proof: admission, such as an exceeded
	// quota, also answers with 403. It is called on the goroutine of the request, so
	// it must not block; calls can overlap. Nil: none.
	OnRefused func()
	// Fakes, in unit tests, is used instead of REST. Wrap and OnRefused do not
	// reach it.
	Fakes *Fakes
}

// Set holds the clients of one controller run, each built when it is first
// asked for: a clientset takes 35 KiB, and most controllers need one form only.
// A Set holds no connection and needs no closing. It is safe for concurrent use.
type Set struct {
	config     *rest.Config
	kubernetes func() kubernetes.Interface
	dynamic    func() dynamic.Interface
	metadata   func() metadata.Interface
}

// NewSet checks the configuration, so that the getters cannot fail later.
func NewSet(config SetConfig) (*Set, error) {
	if config.Fakes != nil {
		return newFakeSet(config), nil
	}
	if config.REST == nil {
		return nil, errors.New("clients: SetConfig.REST is required")
	}
	cfg := rest.CopyConfig(config.REST)
	if config.UserAgent != "" {
		cfg.UserAgent = config.UserAgent
	}
	if cfg.UserAgent == "" {
		cfg.UserAgent = rest.DefaultKubernetesUserAgent()
	}
	if config.OnRefused != nil {
		cfg.Wrap(func(next http.RoundTripper) http.RoundTripper {
			return &refusals{next: next, tell: config.OnRefused}
		})
	}
	if config.Wrap != nil {
		cfg.Wrap(config.Wrap)
	}
	client, err := rest.HTTPClientFor(cfg)
	if err != nil {
		return nil, fmt.Errorf("clients: %w", err)
	}
	if err := checkConfig(cfg, client); err != nil {
		return nil, err
	}
	return &Set{
		config:     cfg,
		kubernetes: sync.OnceValue(func() kubernetes.Interface { return must(kubernetes.NewForConfigAndClient(cfg, client)) }),
		dynamic:    sync.OnceValue(func() dynamic.Interface { return must(dynamic.NewForConfigAndClient(cfg, client)) }),
		metadata:   sync.OnceValue(func() metadata.Interface { return must(metadata.NewForConfigAndClient(cfg, client)) }),
	}, nil
}

func newFakeSet(config SetConfig) *Set {
	cfg := &rest.Config{}
	if config.REST != nil {
		cfg = rest.CopyConfig(config.REST)
	}
	fakes := *config.Fakes
	return &Set{
		config:     cfg,
		kubernetes: func() kubernetes.Interface { return given(fakes.Kubernetes, "Kubernetes") },
		dynamic:    func() dynamic.Interface { return given(fakes.Dynamic, "Dynamic") },
		metadata:   func() metadata.Interface { return given(fakes.Metadata, "Metadata") },
	}
}

// RESTConfig returns a copy of the configuration, for clients of generated
// code: fenced like the others, and speaking JSON, the one encoding that
// custom resources have.
func (s *Set) RESTConfig() *rest.Config { return inJSON(s.config) }

// Kubernetes returns the clientset. It speaks protobuf if REST asks for it.
func (s *Set) Kubernetes() kubernetes.Interface { return s.kubernetes() }

// Dynamic returns the client for unstructured objects of any resource, in JSON.
func (s *Set) Dynamic() dynamic.Interface { return s.dynamic() }

// Metadata returns the client that reads only the metadata of any resource.
func (s *Set) Metadata() metadata.Interface { return s.metadata() }

// checkConfig finds what the constructors of all forms of client would refuse.
func checkConfig(config *rest.Config, client *http.Client) error {
	if config.RateLimiter == nil && config.QPS > 0 && config.Burst <= 0 {
		return fmt.Errorf("clients: QPS is %v, so Burst must be greater than 0, got %d", config.QPS, config.Burst)
	}
	if _, err := dynamic.NewForConfigAndClient(config, client); err != nil {
		return fmt.Errorf("clients: %w", err)
	}
	return nil
}

func inJSON(config *rest.Config) *rest.Config {
	c := rest.CopyConfig(config)
	c.ContentType = runtime.ContentTypeJSON
	c.AcceptContentTypes = runtime.ContentTypeJSON
	return c
}

// must holds because checkConfig has accepted the configuration.
func must[T any](client T, err error) T {
	if err != nil {
		panic(fmt.Sprintf("clients: a configuration that was accepted is refused: %v", err))
	}
	return client
}

func given[T comparable](fake T, form string) T {
	var none T
	if fake == none {
		panic("clients: Fakes." + form + " is nil, but a controller asks for it")
	}
	return fake
}
