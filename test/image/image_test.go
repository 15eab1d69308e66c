// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

// Package image makes the container image twice, in two places, and looks into it as a
// container engine does: by its digests.
package image

import (
	"archive/tar"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	version = "v9.8.7"
	commit  = "0123456789abcdef0123456789abcdef01234567"
	created = "1790000000" // 2026-09-21T14:13:20Z
)

// root is the repository.
func root(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// makeImage makes the image of a source tree and returns its folder.
func makeImage(t *testing.T, source string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "image")
	cmd := exec.CommandContext(t.Context(), "make", "image", "VERSION="+version, "COMMIT="+commit)
	cmd.Dir = source
	cmd.Env = append(os.Environ(), "IMAGE_PLATFORMS=linux/"+runtime.GOARCH, "IMAGE_OUT="+out, "SOURCE_DATE_EPOCH="+created)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make image: %v\n%s", err, text)
	}
	return out
}

// copySource copies the files of the repository to another place, without its history.
func copySource(t *testing.T) string {
	t.Helper()
	elsewhere := filepath.Join(t.TempDir(), "elsewhere")
	list := exec.CommandContext(t.Context(), "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	list.Dir = root(t)
	names, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	for name := range strings.SplitSeq(strings.Trim(string(names), "\x00"), "\x00") {
		from, to := filepath.Join(root(t), name), filepath.Join(elsewhere, name)
		info, err := os.Stat(from)
		if errors.Is(err, os.ErrNotExist) {
			continue // deleted, and not committed yet
		}
		content, readErr := os.ReadFile(from)
		if err := errors.Join(err, readErr, os.MkdirAll(filepath.Dir(to), 0o700)); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, content, info.Mode().Perm()&0o700); err != nil {
			t.Fatal(err)
		}
	}
	return elsewhere
}

type descriptor struct {
	MediaType, Digest, ArtifactType string
	Platform                        struct{ OS, Architecture string }
}

type manifest struct {
	Manifests []descriptor
	Layers    []descriptor
	Config    descriptor
	Subject   descriptor
}

// blob returns the content of a digest, which it checks.
func blob(t *testing.T, layout string, d descriptor) []byte {
	t.Helper()
	hash, ok := strings.CutPrefix(d.Digest, "sha256:")
	content, err := os.ReadFile(filepath.Join(layout, "blobs/sha256", hash))
	if !ok || err != nil {
		t.Fatalf("blob %q: %v", d.Digest, err)
	}
	if sum := sha256.Sum256(content); hex.EncodeToString(sum[:]) != hash {
		t.Fatalf("blob %s has another content", d.Digest)
	}
	return content
}

func decode[T any](t *testing.T, content []byte) (value T) {
	t.Helper()
	if err := json.Unmarshal(content, &value); err != nil {
		t.Fatalf("%v in %s", err, content)
	}
	return value
}

func TestImageIsReproducibleAndRuns(t *testing.T) {
	layout := makeImage(t, root(t))
	again := makeImage(t, copySource(t))
	index, err := os.ReadFile(filepath.Join(layout, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	other, err := os.ReadFile(filepath.Join(again, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(index), string(other)); diff != "" {
		t.Errorf("two builds of the same source differ (-here +elsewhere):\n%s", diff)
	}

	var image, sbom manifest
	var imageDigest string
	for _, top := range decode[manifest](t, index).Manifests {
		if top.ArtifactType != "" {
			sbom = decode[manifest](t, blob(t, layout, top))
			continue
		}
		platforms := decode[manifest](t, blob(t, layout, top)).Manifests
		if len(platforms) != 1 || platforms[0].Platform.OS != "linux" || platforms[0].Platform.Architecture != runtime.GOARCH {
			t.Fatalf("got the platforms %v, want linux/%s", platforms, runtime.GOARCH)
		}
		imageDigest = platforms[0].Digest
		image = decode[manifest](t, blob(t, layout, platforms[0]))
	}
	expectConfig(t, blob(t, layout, image.Config))
	expectFiles(t, layout, image)
	if sbom.Subject.Digest != imageDigest {
		t.Errorf("the bill of materials refers to %q, want the image %q", sbom.Subject.Digest, imageDigest)
	}
	expectMaterials(t, blob(t, layout, sbom.Layers[0]))
}

func expectConfig(t *testing.T, content []byte) {
	t.Helper()
	config := decode[struct {
		Created string
		Config  struct {
			User       string
			Entrypoint []string
			Labels     map[string]string
		}
	}](t, content)
	if config.Config.User != "65532:65532" || len(config.Config.Entrypoint) != 1 || config.Config.Entrypoint[0] != "/manager" || config.Created != "2026-09-21T14:13:20Z" {
		t.Errorf("got %+v, want user, entrypoint and date", config)
	}
	if labels := config.Config.Labels; labels["org.opencontainers.image.version"] != version || labels["org.opencontainers.image.revision"] != commit {
		t.Errorf("got the labels %v, want version and revision", labels)
	}
}

// expectFiles unpacks the layers, and runs what is there in a root of its own, as the
// user of the image.
func expectFiles(t *testing.T, layout string, image manifest) {
	t.Helper()
	folder := t.TempDir()
	if err := os.Chmod(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, layer := range image.Layers {
		packed, err := gzip.NewReader(strings.NewReader(string(blob(t, layout, layer))))
		if err != nil {
			t.Fatal(err)
		}
		files := tar.NewReader(packed)
		for {
			header, err := files.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, fmt.Sprintf("%s %o %d:%d", header.Name, header.Mode, header.Uid, header.Gid))
			content, err := io.ReadAll(files)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(folder, header.Name), content, os.FileMode(header.Mode)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if diff := cmp.Diff([]string{"manager 555 0:0"}, names); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	cmd := exec.CommandContext(t.Context(), "/manager", "--version")
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: folder, Credential: &syscall.Credential{Uid: 65532, Gid: 65532}}
	if os.Geteuid() != 0 { // a user namespace of its own takes the place of root
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Chroot: folder, Cloneflags: syscall.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
		}
	}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), version) {
		t.Errorf("/manager --version in the image: got %q (%v), want %s", out, err, version)
	}
}

// expectMaterials compares the bill with go.mod.
func expectMaterials(t *testing.T, content []byte) {
	t.Helper()
	bill := decode[struct {
		BOMFormat  string
		Components []struct {
			Name, Version, PURL string
			Hashes              []struct{ Alg, Content string }
		}
	}](t, content)
	list := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Version}}", "k8s.io/client-go")
	list.Dir = root(t)
	want, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range bill.Components {
		if c.Name == "k8s.io/client-go" {
			if c.Version != strings.TrimSpace(string(want)) || len(c.Hashes) != 1 || !strings.HasPrefix(c.PURL, "pkg:golang/k8s.io/client-go@") {
				t.Errorf("got %+v, want version %s with its hash", c, want)
			}
			return
		}
	}
	t.Errorf("client-go is not among the %d components of the %s bill", len(bill.Components), bill.BOMFormat)
}
