// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package options

import (
	"bytes"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/incumbent-io/incumbent/pkg/controllers"
)

// decoder decodes a YAML document, strictly: an unknown field and one that is set
// twice are mistakes. It collects every mistake with its line and the path of its
// field; a general decoder stops at the first wrong type and knows no lines.
//
// Structs, slices and maps are walked here. Everything else, and every type with a
// decoding of its own, is left to encoding/json. A null leaves the default.
type decoder struct {
	file     string
	lines    map[string]int // path -> line, of every field that the file sets
	mistakes []error
}

// nodeDecoder is implemented by a part of the document that is no plain struct.
type nodeDecoder interface {
	decodeNode(d *decoder, path string, node *yaml.Node)
}

func (d *decoder) mistake(node *yaml.Node, path, format string, args ...any) {
	place := fmt.Sprintf("%s:%d: ", d.file, node.Line)
	if path != "" {
		place += path + ": "
	}
	d.mistakes = append(d.mistakes, errors.New(place+fmt.Sprintf(format, args...)))
}

const headerHint = `it begins with "apiVersion: ` + APIVersion + `" and "kind: ` + Kind + `"`

var yamlError = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

// parse returns the root of the only document in content, which is a mapping, or nil
// and one mistake.
func (d *decoder) parse(content []byte) *yaml.Node {
	var document, second yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(asYAML(content)))
	err := decoder.Decode(&document)
	if err == nil {
		if after := decoder.Decode(&second); after == nil {
			d.mistake(&second, "", "a second document begins here; a configuration file holds one, so remove the others and the line ---")
			return nil
		} else if !errors.Is(after, io.EOF) {
			err = after
		}
	}
	switch {
	case errors.Is(err, io.EOF) || err == nil && null(document.Content[0]):
		d.mistakes = append(d.mistakes, fmt.Errorf("%s: is empty; a configuration file is not: %s", d.file, headerHint))
		return nil
	case err != nil:
		d.mistakes = append(d.mistakes, d.notYAML(err))
		return nil
	}
	root := document.Content[0]
	if root.Kind != yaml.MappingNode {
		d.mistake(root, "", "%s is no configuration file; %s", shown(root), headerHint)
		return nil
	}
	return root
}

var jsonEscape = regexp.MustCompile(`\\u[dD][89abAB][[:xdigit:]]{2}\\u[dD][c-fC-F][[:xdigit:]]{2}|\\.`)

// asYAML returns the content with the escapes that JSON has and the YAML parser has
// not written out: the slash, and characters beyond the basic plane.
func asYAML(content []byte) []byte {
	if !json.Valid(content) {
		return content
	}
	return jsonEscape.ReplaceAllFunc(content, func(escape []byte) []byte {
		var character string
		if escape[1] != '/' && len(escape) == 2 || json.Unmarshal(fmt.Appendf(nil, `"%s"`, escape), &character) != nil {
			return escape
		}
		return []byte(character)
	})
}

func (d *decoder) notYAML(err error) error {
	place, text := d.file, strings.Join(strings.Fields(err.Error()), " ")
	if match := yamlError.FindStringSubmatch(text); match != nil {
		text = strings.TrimPrefix(text, match[0])
		if match[1] != "" {
			place += ":" + match[1]
		}
	}
	return fmt.Errorf("%s: is neither YAML nor JSON: %s", place, text)
}

// checkHeader tells whether the document is a configuration file at all. If it is
// not, mistakes in its fields are not worth telling.
func (d *decoder) checkHeader(root *yaml.Node) bool {
	before := len(d.mistakes)
	for _, want := range []struct{ field, value string }{{"apiVersion", APIVersion}, {"kind", Kind}} {
		switch node := child(root, want.field); {
		case node == nil || null(node):
			d.mistakes = append(d.mistakes, fmt.Errorf(`%s: %s is missing; write "%[2]s: %s"`, d.file, want.field, want.value))
		case node.Kind != yaml.ScalarNode || node.Value != want.value:
			d.mistake(node, want.field, "%s is not supported; the only choice is %s", shown(node), want.value)
		}
	}
	return len(d.mistakes) == before
}

func child(mapping *yaml.Node, name string) *yaml.Node {
	for i := 0; i < len(mapping.Content); i += 2 {
		if mapping.Content[i].Value == name {
			return mapping.Content[i+1]
		}
	}
	return nil
}

// decode decodes node into the settable value.
func (d *decoder) decode(path string, node *yaml.Node, into reflect.Value) {
	if own, ok := into.Interface().(nodeDecoder); ok {
		if !null(node) {
			own.decodeNode(d, path, node)
		}
		return
	}
	switch {
	case node.Kind == yaml.AliasNode:
		d.mistake(node, path, "*%s is an alias, which a configuration file must not hold; write the value out", node.Value)
		return
	case null(node):
		return
	case into.Kind() == reflect.Pointer:
		if into.IsNil() {
			into.Set(reflect.New(into.Type().Elem()))
		}
		d.decode(path, node, into.Elem())
		return
	case decodesItself(into.Type()):
		d.leaf(path, node, into)
		return
	}
	switch {
	case into.Kind() == reflect.Struct:
		d.object(path, node, into)
	case into.Kind() == reflect.Slice:
		d.list(path, node, into)
	case into.Kind() == reflect.Map && into.Type().Key().Kind() == reflect.String:
		d.mapping(path, node, into)
	default:
		d.leaf(path, node, into)
	}
}

var (
	jsonUnmarshaler = reflect.TypeFor[json.Unmarshaler]()
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
)

func decodesItself(t reflect.Type) bool {
	pointer := reflect.PointerTo(t)
	bytes := t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Uint8
	return bytes || pointer.Implements(jsonUnmarshaler) || pointer.Implements(textUnmarshaler)
}

func (d *decoder) object(path string, node *yaml.Node, into reflect.Value) {
	fields := jsonFields(into.Type())
	names := make([]string, len(fields))
	for i, field := range fields {
		names[i] = field.name
	}
	d.eachField(path, node, func(name string, key, value *yaml.Node) {
		i := slices.Index(names, name)
		if i < 0 {
			d.mistake(key, join(path, name), "%s", unknown("field", name, names))
			return
		}
		d.decode(join(path, name), value, fieldOf(into, fields[i].index))
	})
}

// fieldOf returns a field of a struct; embedded pointers on the way are allocated.
func fieldOf(of reflect.Value, index []int) reflect.Value {
	for _, i := range index {
		if of.Kind() == reflect.Pointer {
			if of.IsNil() {
				of.Set(reflect.New(of.Type().Elem()))
			}
			of = of.Elem()
		}
		of = of.Field(i)
	}
	return of
}

func (d *decoder) list(path string, node *yaml.Node, into reflect.Value) {
	if node.Kind != yaml.SequenceNode {
		d.wrongType(path, node, into.Type())
		return
	}
	// A fresh slice: the elements of the default must not shine through.
	fresh := reflect.MakeSlice(into.Type(), len(node.Content), len(node.Content))
	complete := true
	for i, item := range node.Content {
		at := fmt.Sprintf("%s[%d]", path, i)
		d.lines[at] = item.Line
		if null(item) {
			d.mistake(item, at, "is empty; remove the item, or give it a value")
			complete = false
			continue
		}
		d.decode(at, item, fresh.Index(i))
	}
	if complete { // what follows from an empty item is no help
		into.Set(fresh)
	}
}

func (d *decoder) mapping(path string, node *yaml.Node, into reflect.Value) {
	fresh := reflect.MakeMap(into.Type())
	d.eachField(path, node, func(name string, _, value *yaml.Node) {
		item := reflect.New(into.Type().Elem()).Elem()
		d.decode(join(path, name), value, item)
		fresh.SetMapIndex(reflect.ValueOf(name).Convert(into.Type().Key()), item)
	})
	into.Set(fresh)
}

// eachField calls visit for every field of a mapping, once for each name.
func (d *decoder) eachField(path string, node *yaml.Node, visit func(name string, key, value *yaml.Node)) {
	if node.Kind != yaml.MappingNode {
		d.wrongType(path, node, reflect.TypeFor[map[string]any]())
		return
	}
	first := map[string]int{}
	for i := 0; i < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		if key.Kind != yaml.ScalarNode {
			d.mistake(key, path, "%s is no name of a field", shown(key))
			continue
		}
		name := key.Value
		if line, twice := first[name]; twice {
			d.mistake(key, join(path, name), "is set a second time, after line %d; keep one of the two", line)
			continue
		}
		first[name] = key.Line
		if !null(value) {
			d.lines[join(path, name)] = key.Line
		}
		visit(name, key, value)
	}
}

// leaf lets encoding/json decode the node.
func (d *decoder) leaf(path string, node *yaml.Node, into reflect.Value) {
	if duration(into.Type()) && (node.Kind != yaml.ScalarNode || node.ShortTag() != "!!str") {
		d.wrongType(path, node, into.Type()) // a bare number has no unit
		return
	}
	value, err := plain(node)
	if err != nil {
		d.mistake(node, path, "%v", err)
		return
	}
	content, err := json.Marshal(value)
	if err != nil {
		d.mistake(node, path, "%s is not a value that JSON knows", shown(node))
		return
	}
	if err = json.Unmarshal(content, into.Addr().Interface()); err == nil {
		return
	}
	if wanted(into.Type()) != "" {
		d.wrongType(path, node, into.Type())
		return
	}
	d.mistake(node, path, "%s is not valid: %v", shown(node), strings.Join(strings.Fields(err.Error()), " "))
}

// plain returns the node as what encoding/json makes of the same text.
func plain(node *yaml.Node) (any, error) {
	switch node.Kind {
	case yaml.MappingNode:
		object := map[string]any{}
		for i := 0; i < len(node.Content); i += 2 {
			key := node.Content[i]
			if _, twice := object[key.Value]; twice || key.Kind != yaml.ScalarNode {
				return nil, fmt.Errorf("line %d: %s is set a second time or is no name of a field", key.Line, shown(key))
			}
			value, err := plain(node.Content[i+1])
			if err != nil {
				return nil, err
			}
			object[key.Value] = value
		}
		return object, nil
	case yaml.SequenceNode:
		list := make([]any, len(node.Content))
		for i, item := range node.Content {
			value, err := plain(item)
			if err != nil {
				return nil, err
			}
			list[i] = value
		}
		return list, nil
	case yaml.AliasNode:
		return nil, fmt.Errorf("*%s is an alias, which a configuration file must not hold; write the value out", node.Value)
	}
	switch node.ShortTag() {
	case "!!int", "!!float", "!!bool", "!!null":
		var value any
		err := node.Decode(&value)
		return value, err
	}
	return node.Value, nil // what else YAML sees in a text, such as a date, is a string here
}

// wrongType says what the field wants instead.
func (d *decoder) wrongType(path string, node *yaml.Node, t reflect.Type) {
	if t.Kind() == reflect.String && node.Kind == yaml.ScalarNode {
		d.mistake(node, path, "%s is not a string; put it into quotes: %q", shown(node), node.Value)
		return
	}
	d.mistake(node, path, "%s is not valid; want %s", shown(node), wanted(t))
}

func duration(t reflect.Type) bool { return t == reflect.TypeFor[metav1.Duration]() }

// wanted describes what a value of the type looks like in the file; "" if only the
// type itself knows.
func wanted(t reflect.Type) string {
	switch {
	case duration(t):
		return `a duration with its unit, such as "15s" or "1m30s"`
	case t == reflect.TypeFor[net.IP]():
		return `an IP address, such as "0.0.0.0"`
	case decodesItself(t):
		return ""
	}
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "a string"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		limit := uint64(1) << (t.Bits() - 1)
		return fmt.Sprintf("a whole number from -%d to %d", limit, limit-1)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return fmt.Sprintf("a whole number from 0 to %d", ^uint64(0)>>(64-t.Bits()))
	case reflect.Float32, reflect.Float64:
		return "a number"
	case reflect.Slice, reflect.Array:
		return "a list"
	case reflect.Map, reflect.Struct:
		return "fields with values"
	}
	return ""
}

// shown is the node as a message quotes it.
func shown(node *yaml.Node) string {
	switch node.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "*" + node.Value
	}
	value := node.Value
	if len(value) > 80 {
		value = strings.ToValidUTF8(value[:80], "") + "..."
	}
	if node.ShortTag() == "!!str" {
		return strconv.Quote(value)
	}
	return value
}

func null(node *yaml.Node) bool {
	return node.Kind == 0 || node.Kind == yaml.ScalarNode && node.ShortTag() == "!!null"
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// unknown tells that a name is none of the valid ones, and which was meant: one of
// them, or of the others that would do too.
func unknown(what, name string, valid []string, others ...string) string {
	var near string
	if meant := controllers.Nearest(name, slices.Concat(valid, others)); meant != "" {
		near = fmt.Sprintf("did you mean %q? ", meant)
	}
	choices := "there are none here"
	if len(valid) > 0 {
		choices = "valid: " + strings.Join(valid, ", ")
	}
	return fmt.Sprintf("unknown %s %q; %s%s", what, name, near, choices)
}
