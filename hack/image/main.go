// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

// Command image makes the container image of a static binary, without a container
// engine and without a base image: one layer with the binary, for each platform, and a
// software bill of materials (CycloneDX) that refers to each. It writes an OCI image
// layout, which skopeo, crane and others push as it is. The same binaries, version and
// date make the same digest, everywhere.
package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// user is whom the container runs as: nobody with any right, by number, so that the
// kubelet can see that it is not root.
const user = "65532:65532"

// sbomType is the media type of a bill of materials.
const sbomType types.MediaType = "application/vnd.cyclonedx+json"

// settings are the command line.
type settings struct {
	out, name, version, revision, title, source string
	created                                     time.Time
	binaries                                    []string // PLATFORM=PATH
}

func main() {
	s, err := parse(os.Args[1:])
	if err == nil {
		err = s.make()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func parse(args []string) (*settings, error) {
	s := &settings{}
	var created int64
	flags := flag.NewFlagSet("image", flag.ContinueOnError)
	flags.StringVar(&s.out, "out", "", "folder of the OCI layout; it is replaced")
	flags.StringVar(&s.name, "name", "manager", "name of the binary in the image")
	flags.StringVar(&s.title, "title", "Incumbent", "title of the image")
	flags.StringVar(&s.source, "source", "https://github.com/incumbent-io/incumbent", "where the source is")
	flags.StringVar(&s.version, "version", "", "version of the binary, for instance v1.2.3")
	flags.StringVar(&s.revision, "revision", "", "commit of the source")
	flags.Int64Var(&created, "created", 0, "date of the source in Unix seconds; every date in the image is this one")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	s.created, s.binaries = time.Unix(created, 0).UTC(), flags.Args()
	if s.out == "" || s.version == "" || len(s.binaries) == 0 {
		return nil, errors.New("want --out=FOLDER --version=VERSION and for each platform PLATFORM=BINARY, for instance linux/amd64=bin/manager")
	}
	return s, nil
}

// make writes the layout beside its place, and then moves it there.
func (s *settings) make() error {
	folder, err := os.MkdirTemp(filepath.Dir(s.out), ".image-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	path, err := layout.Write(folder, empty.Index)
	if err != nil {
		return err
	}
	all := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, binary := range s.binaries {
		platform, file, ok := strings.Cut(binary, "=")
		parsed, err := v1.ParsePlatform(platform)
		if !ok || err != nil {
			return fmt.Errorf("%q is not PLATFORM=BINARY, for instance linux/amd64=bin/manager", binary)
		}
		image, err := s.image(parsed, file)
		if err != nil {
			return err
		}
		all = mutate.AppendManifests(all, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: parsed}})
		sbom, err := s.sbom(image, file)
		if err != nil {
			return err
		}
		if err := path.AppendImage(sbom); err != nil {
			return err
		}
	}
	if err := path.AppendIndex(all, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": s.version})); err != nil {
		return err
	}
	digest, err := all.Digest()
	if err != nil {
		return err
	}
	if err := os.RemoveAll(s.out); err != nil {
		return err
	}
	if err := os.Chmod(folder, 0o755); err != nil {
		return err
	}
	fmt.Println(digest)
	return os.Rename(folder, s.out)
}

// image is the image of one platform.
func (s *settings) image(platform *v1.Platform, file string) (v1.Image, error) {
	content, err := s.files(file)
	if err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil }, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, err
	}
	base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	image, err := mutate.Append(base, mutate.Addendum{Layer: layer, History: v1.History{
		Author: s.title, CreatedBy: "hack/image", Created: v1.Time{Time: s.created}, Comment: "the static binary, on nothing",
	}})
	if err != nil {
		return nil, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Variant = platform.OS, platform.Architecture, platform.Variant
	config.Created = v1.Time{Time: s.created}
	config.Config = v1.Config{User: user, Entrypoint: []string{"/" + s.name}, Labels: s.labels()}
	if image, err = mutate.ConfigFile(image, config); err != nil {
		return nil, err
	}
	return mutate.Annotations(image, s.labels()).(v1.Image), nil
}

func (s *settings) labels() map[string]string {
	return map[string]string{
		"org.opencontainers.image.title":    s.title,
		"org.opencontainers.image.source":   s.source,
		"org.opencontainers.image.licenses": "Apache-2.0",
		"org.opencontainers.image.version":  s.version,
		"org.opencontainers.image.revision": s.revision,
		"org.opencontainers.image.created":  s.created.Format(time.RFC3339),
	}
}

// files is the layer: the binary and nothing else.
func (s *settings) files(file string) ([]byte, error) {
	binary, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var content bytes.Buffer
	archive := tar.NewWriter(&content)
	header := &tar.Header{Name: s.name, Mode: 0o555, Size: int64(len(binary)), ModTime: s.created, Typeflag: tar.TypeReg, Format: tar.FormatPAX}
	if err := archive.WriteHeader(header); err != nil {
		return nil, err
	}
	if _, err := archive.Write(binary); err != nil {
		return nil, err
	}
	err = archive.Close()
	return content.Bytes(), err
}

// sbom is the bill of materials of an image, as an artifact that refers to it.
func (s *settings) sbom(image v1.Image, file string) (v1.Image, error) {
	content, err := billOfMaterials(file, s.title, s.version, s.created)
	if err != nil {
		return nil, err
	}
	artifact := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), sbomType)
	if artifact, err = mutate.Append(artifact, mutate.Addendum{
		Layer:       static.NewLayer(content, sbomType),
		Annotations: map[string]string{"org.opencontainers.image.title": s.name + ".cdx.json"},
	}); err != nil {
		return nil, err
	}
	subject, err := partial.Descriptor(image)
	if err != nil {
		return nil, err
	}
	return mutate.Subject(artifact, *subject).(v1.Image), nil
}
