// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package objectttl

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/incumbent-io/incumbent/pkg/controllers"
)

const maxWorkers = 100

// Options are the settings of the controller.
type Options struct {
	// Resources are the resources whose objects may expire, each written
	// GROUP/VERSION/RESOURCE, or VERSION/RESOURCE for the core group. Default:
	// ConfigMaps.
	Resources []string `json:"resources"`
	// Workers is how many objects are judged and deleted at the same time, 1 to
	// 100. Default 2; more only if very many objects expire at one instant.
	Workers int `json:"workers"`
}

var _ controllers.Options = (*Options)(nil)

func defaults() *Options {
	return &Options{Resources: []string{"v1/configmaps"}, Workers: 2}
}

// AddFlags implements controllers.Options.
func (o *Options) AddFlags(flags *pflag.FlagSet) {
	flags.StringSliceVar(&o.Resources, "resources", o.Resources,
		"Resources whose objects are deleted once their "+AnnotationTTL+" or "+AnnotationExpiresAt+" annotation has run out, each as "+resourceForm+".")
	flags.IntVar(&o.Workers, "workers", o.Workers,
		fmt.Sprintf("How many objects are examined and deleted at the same time, 1 to %d.", maxWorkers))
}

// Validate implements controllers.Options.
func (o *Options) Validate(path *field.Path) field.ErrorList {
	var errs field.ErrorList
	resources := path.Child("resources")
	if len(o.Resources) == 0 {
		errs = append(errs, field.Required(resources, "name at least one resource as "+resourceForm+`; to run without this controller, disable it with --controllers=*,-`+Name))
	}
	seen := map[schema.GroupResource]int{}
	for i, text := range o.Resources {
		gvr, err := parseResource(text)
		if err != nil {
			errs = append(errs, field.Invalid(resources.Index(i), text, err.Error()))
			continue
		}
		// Two versions of one resource are two names for the same objects.
		if first, duplicate := seen[gvr.GroupResource()]; duplicate {
			err := field.Duplicate(resources.Index(i), text)
			err.Detail = fmt.Sprintf("means the same objects as %s[%d] (%q); name each resource once, in one version", resources, first, o.Resources[first])
			errs = append(errs, err)
			continue
		}
		seen[gvr.GroupResource()] = i
	}
	if o.Workers < 1 || o.Workers > maxWorkers {
		errs = append(errs, field.Invalid(path.Child("workers"), o.Workers, fmt.Sprintf("want a number from 1 to %d, for example 2", maxWorkers)))
	}
	return errs
}

// resourceVersions returns the parsed resources of options that passed Validate.
func (o *Options) resourceVersions() []schema.GroupVersionResource {
	var gvrs []schema.GroupVersionResource
	for _, text := range o.Resources {
		if gvr, err := parseResource(text); err == nil {
			gvrs = append(gvrs, gvr)
		}
	}
	return gvrs
}

const resourceForm = `GROUP/VERSION/RESOURCE (for example "apps/v1/deployments"), or VERSION/RESOURCE for the core group ("v1/configmaps")`

// refused are resources of which an expiry would do harm, with the reason.
var refused = map[schema.GroupResource]string{
	{Group: "coordination.k8s.io", Resource: "leases"}: "Leases decide who leads and which nodes are alive, and deleting one that is held takes that away from its holder; they carry their own duration (spec.leaseDurationSeconds)",
	{Resource: "events"}:                         "the API server already lets Events expire (its flag --event-ttl), and this controller writes Events itself",
	{Group: "events.k8s.io", Resource: "events"}: "the API server already lets Events expire (its flag --event-ttl), and this controller writes Events itself",
}

// versionShape is how Kubernetes versions its APIs. A CustomResourceDefinition may
// deviate, so it is demanded only where it tells the parts apart.
var versionShape = regexp.MustCompile(`^v[1-9][0-9]*((alpha|beta)[1-9][0-9]*)?$`)

// parseResource reads a resource as written in Options.
func parseResource(text string) (schema.GroupVersionResource, error) {
	var gvr schema.GroupVersionResource
	parts := strings.Split(text, "/")
	switch {
	case len(parts) == 4 || len(parts) == 3 && versionShape.MatchString(parts[0]):
		return gvr, fmt.Errorf("names a subresource, which cannot be deleted; want the resource alone as %s", resourceForm)
	case len(parts) == 2 && versionShape.MatchString(parts[0]):
		gvr = schema.GroupVersionResource{Version: parts[0], Resource: parts[1]}
	case len(parts) == 3 && len(validation.IsDNS1123Subdomain(parts[0])) == 0 && len(validation.IsDNS1035Label(parts[1])) == 0:
		gvr = schema.GroupVersionResource{Group: parts[0], Version: parts[1], Resource: parts[2]}
	default:
		return gvr, fmt.Errorf("want %s", resourceForm)
	}
	if len(validation.IsDNS1035Label(gvr.Resource)) > 0 {
		return gvr, fmt.Errorf(`the resource %q is not the lower-case plural, as in "configmaps"; want %s`, gvr.Resource, resourceForm)
	}
	if reason, no := refused[gvr.GroupResource()]; no {
		return gvr, fmt.Errorf("is refused: %s; remove it, and name others as %s", reason, resourceForm)
	}
	return gvr, nil
}

// written is the inverse of parseResource.
func written(gvr schema.GroupVersionResource) string {
	return gvr.GroupVersion().String() + "/" + gvr.Resource
}
