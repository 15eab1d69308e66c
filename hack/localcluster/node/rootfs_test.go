// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

//go:build linux

package node

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

func TestMountsStayWithinTheRoot(t *testing.T) {
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, volumesDir, "v"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(root, "tmp"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, mountPath := range []string{"/etc/app", "/tmp", "deep/er", "/../../outside"} {
		if err := linkMount(root, mountPath, "v"); err != nil {
			t.Errorf("%s: %v", mountPath, err)
		}
		got, err := within(root, filepath.Join(mountPath, "file"))
		if want := filepath.Join(root, volumesDir, "v", "file"); err != nil || got != want {
			t.Errorf("%s leads to %q (%v), want %q", mountPath, got, err, want)
		}
	}
	if err := linkMount(root, "/etc/app", "v"); err != nil {
		t.Errorf("the same volume at the same path, for a second container: %v", err)
	}
	if err := linkMount(root, "/etc/app", "other"); err == nil || !strings.Contains(err.Error(), "two volumes are mounted at /etc/app") {
		t.Errorf("another volume at the same path: got %v", err)
	}
	if err := os.WriteFile(filepath.Join(root, "etc", "hosts"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := linkMount(root, "/etc", "v"); err == nil {
		t.Error("a volume over a folder with content was not refused")
	}
	if err := os.Symlink("loop", filepath.Join(root, "loop")); err != nil {
		t.Fatal(err)
	}
	if _, err := within(root, "/loop/x"); err == nil {
		t.Error("a loop of links was not refused")
	}
}

func TestLaidProgramFollowsItsFile(t *testing.T) {
	root, program := t.TempDir(), filepath.Join(t.TempDir(), "program")
	for _, test := range []struct {
		content string
		mode    os.FileMode
		shared  bool // the same file, or a copy
	}{
		{"one", 0o755, true},
		{"two", 0o700, false}, // not readable for the container's user
		{"three", 0o755, true},
	} {
		_ = os.Remove(program)
		if err := os.WriteFile(program, []byte(test.content), test.mode); err != nil {
			t.Fatal(err)
		}
		if err := layProgram(root, "/usr/bin/manager", program); err != nil {
			t.Fatal(err)
		}
		laid := filepath.Join(root, "usr/bin/manager")
		if got, err := os.ReadFile(laid); err != nil || string(got) != test.content {
			t.Errorf("got %q (%v), want %q", got, err, test.content)
		}
		a, _ := os.Stat(program)
		b, err := os.Stat(laid)
		if err != nil || b.Mode().Perm() != 0o755 {
			t.Errorf("%s: mode %v (%v)", test.content, b.Mode(), err)
		}
		if test.shared != os.SameFile(a, b) && sameDevice(t, root, program) {
			t.Errorf("%s: shared is %v, want %v", test.content, !test.shared, test.shared)
		}
	}
}

func sameDevice(t *testing.T, root, program string) bool {
	t.Helper()
	probe := filepath.Join(root, "link")
	defer os.Remove(probe)
	return os.Link(program, probe) == nil
}

func TestContainerIdentity(t *testing.T) {
	type pod = corev1.PodSecurityContext
	type own = corev1.SecurityContext
	for _, test := range []struct {
		name string
		pod  *pod
		own  *own
		want identity
		err  bool
	}{
		{name: "nothing said", want: identity{uid: defaultUser, gid: defaultUser}},
		{name: "the Pod says", pod: &pod{RunAsUser: ptr.To(int64(7)), RunAsGroup: ptr.To(int64(8))}, want: identity{uid: 7, gid: 8}},
		{name: "the container says", pod: &pod{RunAsUser: ptr.To(int64(7))}, own: &own{RunAsUser: ptr.To(int64(9))}, want: identity{uid: 9, gid: defaultUser}},
		{name: "root on request", own: &own{RunAsUser: ptr.To(int64(0)), RunAsGroup: ptr.To(int64(0))}, want: identity{}},
		{name: "root against the policy", pod: &pod{RunAsNonRoot: ptr.To(true)}, own: &own{RunAsUser: ptr.To(int64(0))}, err: true},
		{name: "the container lifts the policy", pod: &pod{RunAsNonRoot: ptr.To(true)},
			own: &own{RunAsUser: ptr.To(int64(0)), RunAsGroup: ptr.To(int64(0)), RunAsNonRoot: ptr.To(false)}, want: identity{}},
		{name: "groups", pod: &pod{FSGroup: ptr.To(int64(5)), SupplementalGroups: []int64{4, 5}},
			want: identity{uid: defaultUser, gid: defaultUser, groups: []int{4, 5}}},
	} {
		p := testPod()
		p.Spec.SecurityContext = test.pod
		got, err := containerIdentity(p, &corev1.Container{SecurityContext: test.own})
		if (err != nil) != test.err || !test.err && !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s: got %+v, %v, want %+v", test.name, got, err, test.want)
		}
	}
}
