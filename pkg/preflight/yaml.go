// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package preflight

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/runtime"
)

// printYAML writes an object as one document, with comments[i] over its rule i.
func printYAML(w io.Writer, object runtime.Object, comments []string) error {
	asJSON, err := json.Marshal(object)
	if err != nil {
		return fmt.Errorf("preflight: %w", err)
	}
	// JSON is YAML.
	var document yaml.Node
	if err := yaml.Unmarshal(asJSON, &document); err != nil {
		return fmt.Errorf("preflight: %w", err)
	}
	restyle(&document)
	if rules := valueOf(document.Content[0], "rules"); rules != nil {
		for i, rule := range rules.Content {
			rule.HeadComment = "# " + comments[i]
		}
	}
	encoder := yaml.NewEncoder(w)
	encoder.SetIndent(2)
	if err := encoder.Encode(&document); err != nil {
		return fmt.Errorf("preflight: %w", err)
	}
	return encoder.Close()
}

// restyle takes the look of JSON away, but from lists of strings, which are best read
// on one line, and sorts the fields, as in most manifests.
func restyle(node *yaml.Node) {
	node.Style = 0
	for _, child := range node.Content {
		restyle(child)
	}
	switch {
	case node.Kind == yaml.SequenceNode && len(node.Content) > 0 && node.Content[0].Kind == yaml.ScalarNode:
		node.Style = yaml.FlowStyle
	case node.Kind == yaml.MappingNode:
		pairs := slices.Collect(slices.Chunk(node.Content, 2))
		slices.SortFunc(pairs, func(a, b []*yaml.Node) int { return strings.Compare(a[0].Value, b[0].Value) })
		node.Content = slices.Concat(pairs...)
	}
}

// valueOf returns the field of a mapping, or nil.
func valueOf(mapping *yaml.Node, key string) *yaml.Node {
	for i := 0; i < len(mapping.Content); i += 2 {
		if mapping.Content[i].Value == key {
			return mapping.Content[i+1]
		}
	}
	return nil
}
