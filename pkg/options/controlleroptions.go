// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package options

import (
	"reflect"

	"go.yaml.in/yaml/v3"

	"github.com/incumbent-io/incumbent/pkg/controllers"
)

// controllerOptions is the part of the file that holds the options of controllers, by
// name or alias.
type controllerOptions struct {
	registry    *controllers.Registry
	controllers map[string]*controllers.Configured
}

const controllerOptionsPath = "controllerOptions"

// decodeNode implements nodeDecoder. Lines are kept by the controller's name, also
// where the file says an alias.
func (c controllerOptions) decodeNode(d *decoder, path string, node *yaml.Node) {
	aliases := map[string]string{} // name -> as the file calls it
	d.eachField(path, node, func(written string, key, value *yaml.Node) {
		registration, known := c.registry.Lookup(written)
		if !known {
			d.mistake(key, join(path, written), "%s", unknownController(c.registry, written))
			return
		}
		name := registration.Info().Name
		if other, twice := aliases[name]; twice {
			d.mistake(key, join(path, written), "is the same controller as %q above; keep one of the two", other)
			return
		}
		aliases[name] = written
		if null(value) {
			return
		}
		d.lines[join(path, name)] = key.Line
		d.decode(join(path, name), value, settable(c.controllers[name].Options))
	})
}

// settable returns the options as a value to decode into. Options that are no
// pointer cannot be set, by flags neither; they are decoded for the mistakes alone.
func settable(options controllers.Options) reflect.Value {
	value := reflect.ValueOf(options)
	if value.Kind() == reflect.Pointer {
		return value.Elem()
	}
	return reflect.New(value.Type()).Elem()
}

// unknownController tells that no controller has the name, and which was meant.
func unknownController(registry *controllers.Registry, name string) string {
	var aliases []string
	for _, known := range registry.Names() {
		registration, _ := registry.Lookup(known)
		aliases = append(aliases, registration.Info().Aliases...)
	}
	return unknown("controller", name, registry.Names(), aliases...)
}
