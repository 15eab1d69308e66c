// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package main

import (
	"bytes"
	"debug/buildinfo"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"runtime/debug"
	"strings"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"
)

// billOfMaterials lists the modules that are linked into a Go binary, by what the
// binary says of itself, with the hashes of go.sum, as CycloneDX JSON.
func billOfMaterials(file, title, version string, created time.Time) ([]byte, error) {
	info, err := buildinfo.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	main := component(cdx.ComponentTypeApplication, info.Main.Path, version)
	main.Name = title
	bom := cdx.NewBOM()
	bom.Metadata = &cdx.Metadata{Timestamp: created.Format(time.RFC3339), Component: &main}
	library := component(cdx.ComponentTypeLibrary, "std", strings.TrimPrefix(info.GoVersion, "go"))
	components, needs := []cdx.Component{library}, []string{library.BOMRef}
	for _, module := range info.Deps {
		linked := module
		if module.Replace != nil {
			linked = module.Replace
		}
		c := component(cdx.ComponentTypeLibrary, linked.Path, linked.Version)
		if sum, ok := hash(linked); ok {
			c.Hashes = &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: sum}}
		}
		components, needs = append(components, c), append(needs, c.BOMRef)
	}
	bom.Components = &components
	bom.Dependencies = &[]cdx.Dependency{{Ref: main.BOMRef, Dependencies: &needs}}
	var out bytes.Buffer
	encoder := cdx.NewBOMEncoder(&out, cdx.BOMFileFormatJSON)
	encoder.SetPretty(true)
	err = encoder.Encode(bom)
	return out.Bytes(), err
}

func component(kind cdx.ComponentType, path, version string) cdx.Component {
	url := "pkg:golang/" + path + "@" + version
	return cdx.Component{Type: kind, BOMRef: url, Name: path, Version: version, PackageURL: url}
}

// hash returns the hash of a module's files, which go.sum writes as h1: and base64.
func hash(module *debug.Module) (string, bool) {
	text, ok := strings.CutPrefix(module.Sum, "h1:")
	if !ok {
		return "", false
	}
	sum, err := base64.StdEncoding.DecodeString(text)
	return hex.EncodeToString(sum), err == nil
}
