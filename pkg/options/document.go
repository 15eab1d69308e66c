// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package options

import (
	"net"
	"reflect"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	logsapi "k8s.io/component-base/logs/api/v1"

	"github.com/incumbent-io/incumbent/pkg/serving"
)

const (
	// APIVersion and Kind stand at the top of every configuration file.
	APIVersion = "config.incumbent.io/v1alpha1"
	Kind       = "ManagerConfiguration"
)

// document is the shape of the configuration file. Its fields point to where the
// flags write, so that both ways to give a setting end in the same place. The tag
// flag names the flag of a field, and the tag live marks what a running manager takes
// over; the rest needs a restart.
type document struct {
	Controllers       *[]string             `json:"controllers" flag:"controllers" live:"true"`
	ControllerOptions controllerOptions     `json:"controllerOptions" live:"true"`
	Standby           *string               `json:"standby" flag:"standby"`
	LeaseGroups       *[]leaseGroup         `json:"leaseGroups"`
	LeaderElection    leaderElectionSection `json:"leaderElection"`
	DrainTimeout      *metav1.Duration      `json:"drainTimeout" flag:"drain-timeout"`
	Fencing           *bool                 `json:"fencing" flag:"fencing"`
	ClientConnection  clientSection         `json:"clientConnection"`
	Serving           servingSection        `json:"serving"`
	Tracing           tracingSection        `json:"tracing"`
	FeatureGates      *map[string]bool      `json:"featureGates" flag:"feature-gates"`
	Logging           loggingSection        `json:"logging"`
}

// headed is the whole file: what it is, which is no setting, and the settings.
type headed struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	*document
}

// leaderElectionSection has the shape of component-base's
// LeaderElectionConfiguration, and what Incumbent adds.
type leaderElectionSection struct {
	LeaderElect       *bool            `json:"leaderElect" flag:"leader-elect"`
	LeaseDuration     *metav1.Duration `json:"leaseDuration" flag:"leader-elect-lease-duration"`
	RenewDeadline     *metav1.Duration `json:"renewDeadline" flag:"leader-elect-renew-deadline"`
	RetryPeriod       *metav1.Duration `json:"retryPeriod" flag:"leader-elect-retry-period"`
	ResourceLock      *string          `json:"resourceLock" flag:"leader-elect-resource-lock"`
	ResourceName      *string          `json:"resourceName" flag:"leader-elect-resource-name"`
	ResourceNamespace *string          `json:"resourceNamespace" flag:"leader-elect-resource-namespace"`
	OnLost            *string          `json:"onLost" flag:"leader-elect-on-lost"`
	IdentityDir       *string          `json:"identityDir" flag:"leader-elect-identity-dir"`
}

// clientSection has the shape of component-base's ClientConnectionConfiguration,
// less acceptContentTypes, which follows from the content type, and with the master's
// address.
type clientSection struct {
	Kubeconfig  *string  `json:"kubeconfig" flag:"kubeconfig"`
	Master      *string  `json:"master" flag:"master"`
	ContentType *string  `json:"contentType" flag:"kube-api-content-type"`
	QPS         *float32 `json:"qps" flag:"kube-api-qps"`
	Burst       *int32   `json:"burst" flag:"kube-api-burst"`
}

// servingSection names its fields after the flags of secure serving. What only tunes
// the socket stays a flag.
type servingSection struct {
	BindAddress       *net.IP   `json:"bindAddress" flag:"bind-address"`
	SecurePort        *int      `json:"securePort" flag:"secure-port"`
	CertDir           *string   `json:"certDir" flag:"cert-dir"`
	TLSCertFile       *string   `json:"tlsCertFile" flag:"tls-cert-file"`
	TLSPrivateKeyFile *string   `json:"tlsPrivateKeyFile" flag:"tls-private-key-file"`
	TLSMinVersion     *string   `json:"tlsMinVersion" flag:"tls-min-version"`
	TLSCipherSuites   *[]string `json:"tlsCipherSuites" flag:"tls-cipher-suites"`
	DisableHTTP2      *bool     `json:"disableHTTP2" flag:"disable-http2-serving"`
	Profiling         *bool     `json:"profiling" flag:"profiling"`
}

// tracingSection has the shape of component-base's TracingConfiguration.
type tracingSection struct {
	Endpoint               *string `json:"endpoint" flag:"tracing-endpoint"`
	SamplingRatePerMillion *int32  `json:"samplingRatePerMillion" flag:"tracing-sampling-rate-per-million"`
}

// loggingSection has the shape of component-base's LoggingConfiguration.
type loggingSection struct {
	Format         *string                       `json:"format" flag:"logging-format"`
	FlushFrequency *metav1.Duration              `json:"flushFrequency" flag:"log-flush-frequency"`
	Verbosity      *logsapi.VerbosityLevel       `json:"verbosity" flag:"v" live:"true"`
	VModule        *logsapi.VModuleConfiguration `json:"vmodule" flag:"vmodule" live:"true"`
	Options        struct {
		Text struct {
			SplitStream    *bool                   `json:"splitStream" flag:"log-text-split-stream"`
			InfoBufferSize *resource.QuantityValue `json:"infoBufferSize" flag:"log-text-info-buffer-size"`
		} `json:"text"`
		JSON struct {
			SplitStream    *bool                   `json:"splitStream" flag:"log-json-split-stream"`
			InfoBufferSize *resource.QuantityValue `json:"infoBufferSize" flag:"log-json-info-buffer-size"`
		} `json:"json"`
	} `json:"options"`
}

// newDocument returns a document whose fields point into o.
func newDocument(o *Options) *document {
	d := &document{
		Controllers:       &o.list,
		ControllerOptions: controllerOptions{registry: o.registry, controllers: o.controllers},
		Standby:           &o.standby,
		LeaseGroups:       &o.leaseGroups,
		DrainTimeout:      &o.election.drainTimeout,
		Fencing:           &o.election.fencing,
		FeatureGates:      &o.fileGates,
		ClientConnection: clientSection{
			Kubeconfig:  &o.client.connection.Kubeconfig,
			Master:      &o.client.master,
			ContentType: &o.client.connection.ContentType,
			QPS:         &o.client.connection.QPS,
			Burst:       &o.client.connection.Burst,
		},
		Tracing: tracingSection{Endpoint: &o.tracing.endpoint, SamplingRatePerMillion: &o.tracing.rate},
		Serving: newServingSection(o.serving.SecureServing, &o.profiling),
		Logging: newLoggingSection(o.logging),
	}
	election := &o.election
	d.LeaderElection = leaderElectionSection{
		LeaderElect:       &election.LeaderElect,
		LeaseDuration:     &election.LeaseDuration,
		RenewDeadline:     &election.RenewDeadline,
		RetryPeriod:       &election.RetryPeriod,
		ResourceLock:      &election.ResourceLock,
		ResourceName:      &election.ResourceName,
		ResourceNamespace: &election.ResourceNamespace,
		OnLost:            &election.onLost,
		IdentityDir:       &election.identityDir,
	}
	return d
}

func newServingSection(secure *serving.SecureServing, profiling *bool) servingSection {
	return servingSection{
		BindAddress:       &secure.BindAddress,
		SecurePort:        &secure.BindPort,
		CertDir:           &secure.CertDirectory,
		TLSCertFile:       &secure.CertFile,
		TLSPrivateKeyFile: &secure.KeyFile,
		TLSMinVersion:     &secure.MinTLSVersion,
		TLSCipherSuites:   &secure.CipherSuites,
		DisableHTTP2:      &secure.DisableHTTP2,
		Profiling:         profiling,
	}
}

func newLoggingSection(logging *logsapi.LoggingConfiguration) loggingSection {
	section := loggingSection{
		Format:         &logging.Format,
		FlushFrequency: &logging.FlushFrequency.Duration,
		Verbosity:      &logging.Verbosity,
		VModule:        &logging.VModule,
	}
	section.Options.Text.SplitStream = &logging.Options.Text.SplitStream
	section.Options.Text.InfoBufferSize = &logging.Options.Text.InfoBufferSize
	section.Options.JSON.SplitStream = &logging.Options.JSON.SplitStream
	section.Options.JSON.InfoBufferSize = &logging.Options.JSON.InfoBufferSize
	return section
}

// jsonField is a field of a struct as JSON sees it.
type jsonField struct {
	name, flag string
	live       bool
	index      []int
}

// jsonFields returns the fields of a struct in their order, with those of embedded
// structs in place. Of two fields of one name the outer one counts, as in
// encoding/json.
func jsonFields(t reflect.Type) []jsonField {
	var fields []jsonField
	outer := map[string]bool{}
	for _, f := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		embedded := f.Anonymous && name == "" && structType(f.Type)
		if !f.IsExported() || embedded || name == "-" || throughNamed(t, f.Index) {
			continue
		}
		if name == "" {
			name = f.Name
		}
		if outer[name] {
			continue
		}
		outer[name] = true
		fields = append(fields, jsonField{name: name, flag: f.Tag.Get("flag"), live: f.Tag.Get("live") == "true", index: f.Index})
	}
	return fields
}

func structType(t reflect.Type) bool {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t.Kind() == reflect.Struct
}

// throughNamed tells whether the way to a promoted field leads through an embedded
// struct that JSON sees as a field of its own, because a tag gives it a name.
func throughNamed(t reflect.Type, index []int) bool {
	for i := 1; i < len(index); i++ {
		name, _, _ := strings.Cut(t.FieldByIndex(index[:i]).Tag.Get("json"), ",")
		if name != "" {
			return true
		}
	}
	return false
}
