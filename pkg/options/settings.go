// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package options

import (
	"encoding"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"k8s.io/component-base/featuregate"
)

// setting is one field of the configuration with its value, printed as JSON.
type setting struct {
	path, flag, value string
	live              bool
}

// settings returns every setting of o in the order of the document, those of all
// controllers and every feature gate included.
func (o *Options) settings() []setting {
	settings := o.document.settings()
	at := slices.IndexFunc(settings, func(s setting) bool { return s.path == gatesPath })
	var gates []setting
	for _, name := range o.gateNames() {
		on := o.features.Enabled(featuregate.Feature(name))
		gates = append(gates, setting{path: join(gatesPath, name), value: fmt.Sprint(on)})
	}
	return slices.Replace(settings, at, at+1, gates...)
}

// settings returns the fields of the document with what they point to.
func (d *document) settings() []setting {
	var w settingWalk
	w.object(setting{}, reflect.ValueOf(*d))
	return w.settings
}

// flags returns which flag sets which field.
func (d *document) flags() map[string]string {
	flags := map[string]string{}
	for _, s := range d.settings() {
		if s.flag != "" {
			flags[s.path] = s.flag
		}
	}
	return flags
}

type settingWalk struct{ settings []setting }

func (w *settingWalk) value(at setting, v reflect.Value) {
	if own, ok := v.Interface().(controllerOptions); ok {
		for _, name := range slices.Sorted(maps.Keys(own.controllers)) {
			options := at
			options.path = join(at.path, name)
			w.value(options, settable(own.controllers[name].Options))
		}
		return
	}
	for v.Kind() == reflect.Pointer && !v.IsNil() {
		v = v.Elem()
	}
	if v.Kind() == reflect.Struct && !encodesItself(v.Type()) {
		w.object(at, v)
		return
	}
	content, err := json.Marshal(v.Interface())
	if err != nil {
		content = fmt.Append(nil, v.Interface())
	}
	at.value = string(content)
	w.settings = append(w.settings, at)
}

var (
	jsonMarshaler = reflect.TypeFor[json.Marshaler]()
	textMarshaler = reflect.TypeFor[encoding.TextMarshaler]()
)

func encodesItself(t reflect.Type) bool {
	return decodesItself(t) || t.Implements(jsonMarshaler) || t.Implements(textMarshaler)
}

func (w *settingWalk) object(at setting, v reflect.Value) {
	for _, f := range jsonFields(v.Type()) {
		if inner, err := v.FieldByIndexErr(f.index); err == nil { // an embedded nil pointer has no fields
			w.value(setting{path: join(at.path, f.name), flag: f.flag, live: at.live || f.live}, inner)
		}
	}
}
