// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package options

import (
	"fmt"
	"net"
	"strings"

	"github.com/spf13/pflag"
	tracingapi "k8s.io/component-base/tracing/api/v1"
)

// tracing says where spans are sent.
type tracing struct {
	endpoint string
	rate     int32
}

// defaultSamplingRate traces everything once somebody asks for traces.
const defaultSamplingRate = 1000000

func newTracing() tracing { return tracing{rate: defaultSamplingRate} }

func (t *tracing) addFlags(flags *pflag.FlagSet) {
	flags.StringVar(&t.endpoint, "tracing-endpoint", t.endpoint, "HOST:PORT of an OpenTelemetry collector that takes spans by OTLP over gRPC, without TLS: one on the same node, for instance. Without it nothing is traced.")
	flags.Int32Var(&t.rate, "tracing-sampling-rate-per-million", t.rate, "How many of a million reconciles and lease writes are traced.")
}

func (t *tracing) validate(p *places) (errs []error) {
	if t.endpoint != "" {
		if host, port, err := net.SplitHostPort(t.endpoint); err != nil || host == "" || port == "" || strings.Contains(t.endpoint, "/") {
			errs = append(errs, fmt.Errorf("%s is not HOST:PORT; give for instance localhost:4317", p.at("tracing.endpoint", t.endpoint)))
		}
	}
	if t.rate < 0 || t.rate > 1000000 {
		errs = append(errs, fmt.Errorf("%s must be between 0 and 1000000", p.at("tracing.samplingRatePerMillion", t.rate)))
	}
	return errs
}

// complete returns nil if nothing is to be traced.
func (t *tracing) complete() *tracingapi.TracingConfiguration {
	if t.endpoint == "" {
		return nil
	}
	return &tracingapi.TracingConfiguration{Endpoint: &t.endpoint, SamplingRatePerMillion: &t.rate}
}
