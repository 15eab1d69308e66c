// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

//go:build linux

package node

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	corev1 "k8s.io/api/core/v1"

	"github.com/incumbent-io/incumbent/hack/localcluster/containerinit"
)

// volumesDir holds the volumes inside a Pod's root. A mount path is a symbolic link into it: that needs no mount, so
// nothing is left mounted if this process is killed, and it works where mounting is not allowed.
const volumesDir = "/.volumes"

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// makeRoot lays out what every program may expect. hosts is the content of /etc/hosts.
func makeRoot(root string, isolation containerinit.Isolation, hosts []byte) error {
	for _, dir := range []string{"", "/proc", "/dev", "/etc", "/bin", volumesDir} {
		if err := os.MkdirAll(root+dir, 0o755); err != nil {
			return err
		}
		if err := os.Chmod(root+dir, 0o755); err != nil {
			return err
		}
	}
	for name, content := range map[string][]byte{
		"/etc/hosts":  hosts,
		"/etc/passwd": []byte("root:x:0:0:root:/:\nnobody:x:65534:65534:nobody:/:\nnonroot:x:65532:65532:nonroot:/:\n"),
		"/etc/group":  []byte("root:x:0:\nnobody:x:65534:\nnonroot:x:65532:\n"),
		// Names are looked up in /etc/hosts only; there is no DNS in this cluster.
		"/etc/nsswitch.conf": []byte("hosts: files\n"),
	} {
		if err := os.WriteFile(root+name, content, 0o644); err != nil {
			return err
		}
	}
	for _, device := range containerinit.Devices {
		var err error
		if isolation.Namespaces {
			// The launcher mounts the device over it.
			err = os.WriteFile(root+device, nil, 0o644)
		} else {
			err = makeDevice(root+device, device)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// makeDevice makes a device like the one of the host.
func makeDevice(path, like string) error {
	var stat syscall.Stat_t
	if err := syscall.Stat(like, &stat); err != nil {
		return fmt.Errorf("%s: %w", like, err)
	}
	if err := syscall.Mknod(path, stat.Mode, int(stat.Rdev)); err != nil {
		return fmt.Errorf("mknod %s: %w", path, err)
	}
	return os.Chmod(path, 0o666)
}

// within returns the path in the host's view of a path in the root. It follows links as the Pod would see them for
// mount paths, and refuses to leave the root.
func within(root, name string) (string, error) {
	return resolve(root, path.Clean("/"+name), 0)
}

func resolve(root, name string, depth int) (string, error) {
	if depth > 40 {
		return "", fmt.Errorf("%s: too many links", name)
	}
	current := "/"
	parts := strings.Split(strings.Trim(name, "/"), "/")
	for i, part := range parts {
		current = path.Join(current, part)
		target, err := os.Readlink(root + current)
		if err != nil {
			continue // not a link, or not there
		}
		if !path.IsAbs(target) {
			target = path.Join(path.Dir(current), target)
		}
		return resolve(root, path.Join(append([]string{"/", target}, parts[i+1:]...)...), depth+1)
	}
	return root + current, nil
}

// linkMount makes mountPath lead to the volume. Two containers may mount the same volume at one path.
func linkMount(root, mountPath, volume string) error {
	target := path.Join(volumesDir, volume)
	parent, err := within(root, path.Dir(path.Clean("/"+mountPath)))
	if err != nil {
		return err
	}
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return err
	}
	link := filepath.Join(parent, path.Base(mountPath))
	if existing, err := os.Readlink(link); err == nil {
		if existing == target {
			return nil
		}
		return fmt.Errorf("two volumes are mounted at %s; the containers of a Pod share one root on a process node", mountPath)
	}
	// An empty folder, such as /tmp, gives way.
	if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("a volume at %s would hide what is there: %w", mountPath, err)
	}
	return os.Symlink(target, link)
}

// layProgram puts the program of an image at a path in the root: a hard link where possible, as it costs neither time
// nor memory.
func layProgram(root, name, program string) error {
	target, err := within(root, name)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	info, err := os.Stat(program)
	if err != nil {
		return err
	}
	if existing, err := os.Stat(target); err == nil && os.SameFile(info, existing) {
		return nil
	}
	if err := os.Remove(target); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// A link shares its mode with the program, which the user of the container must be allowed to read and execute.
	if info.Mode().Perm()&0o005 == 0o005 {
		if program, err := filepath.EvalSymlinks(program); err == nil && os.Link(program, target) == nil {
			return nil
		}
	}
	return copyProgram(program, target)
}

func copyProgram(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	if err := out.Close(); err != nil {
		return err
	}
	return os.Chmod(to, 0o755)
}

// identity is who a container runs as.
type identity struct {
	uid, gid int
	groups   []int
}

// defaultUser is the user of an image that names none: that of distroless "nonroot" images. Root only on request.
const defaultUser = 65532

func containerIdentity(pod *corev1.Pod, c *corev1.Container) (identity, error) {
	var podContext corev1.PodSecurityContext
	if pod.Spec.SecurityContext != nil {
		podContext = *pod.Spec.SecurityContext
	}
	var own corev1.SecurityContext
	if c.SecurityContext != nil {
		own = *c.SecurityContext
	}
	first := func(values ...*int64) int {
		for _, v := range values {
			if v != nil {
				return int(*v)
			}
		}
		return defaultUser
	}
	id := identity{uid: first(own.RunAsUser, podContext.RunAsUser)}
	id.gid = first(own.RunAsGroup, podContext.RunAsGroup)
	nonRoot := podContext.RunAsNonRoot
	if own.RunAsNonRoot != nil {
		nonRoot = own.RunAsNonRoot
	}
	if nonRoot != nil && *nonRoot && id.uid == 0 {
		return id, errors.New("container's runAsUser breaks non-root policy")
	}
	for _, g := range podContext.SupplementalGroups {
		id.groups = append(id.groups, int(g))
	}
	if g := podContext.FSGroup; g != nil && !slices.Contains(id.groups, int(*g)) {
		id.groups = append(id.groups, int(*g))
	}
	return id, nil
}
