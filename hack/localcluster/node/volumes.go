// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

//go:build linux

package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"
)

// volumes keeps the volumes of one Pod up to date. Used by one goroutine.
type volumes struct {
	client  kubernetes.Interface
	objects *objectCache
	root    string
	group   int // owner of the files, or -1
	// changed tells that an object which a volume is made of has changed.
	changed chan struct{}
	tokens  map[string]*boundToken // by volume and path
	written map[string]map[string]file
}

// boundToken is a service-account token of the Pod.
type boundToken struct {
	value   string
	renewAt time.Time
}

// errNotYet says that it is not known yet what a volume is made of.
var errNotYet = errors.New("waiting for the objects of the volumes")

func newVolumes(client kubernetes.Interface, objects *objectCache, root string, group int) *volumes {
	return &volumes{
		client: client, objects: objects, root: root, group: group, changed: make(chan struct{}, 1),
		tokens: map[string]*boundToken{}, written: map[string]map[string]file{},
	}
}

// setUp makes the folders of the volumes and starts to watch their objects.
func (v *volumes) setUp(pod *corev1.Pod) error {
	for _, volume := range pod.Spec.Volumes {
		dir := filepath.Join(v.root, volumesDir, volume.Name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		mode := fs.FileMode(0o755)
		if volume.EmptyDir != nil {
			mode = 0o777
			if v.group >= 0 {
				mode |= fs.ModeSetgid
			}
		}
		if err := own(dir, mode, v.group); err != nil {
			return err
		}
		for _, key := range objectsOf(pod.Namespace, volume) {
			v.objects.use(key, v.changed)
		}
	}
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		for _, mount := range c.VolumeMounts {
			if err := linkMount(v.root, mount.MountPath, mount.Name); err != nil {
				return err
			}
		}
	}
	return nil
}

// tearDown ends the watches.
func (v *volumes) tearDown() { v.objects.release(v.changed) }

// objectsOf lists the objects that a volume is made of.
func objectsOf(namespace string, volume corev1.Volume) []objectKey {
	var keys []objectKey
	add := func(kind objectKind, name string) { keys = append(keys, objectKey{kind, namespace, name}) }
	switch {
	case volume.ConfigMap != nil:
		add(kindConfigMap, volume.ConfigMap.Name)
	case volume.Secret != nil:
		add(kindSecret, volume.Secret.SecretName)
	case volume.Projected != nil:
		for _, source := range volume.Projected.Sources {
			if source.ConfigMap != nil {
				add(kindConfigMap, source.ConfigMap.Name)
			}
			if source.Secret != nil {
				add(kindSecret, source.Secret.Name)
			}
		}
	}
	return keys
}

// sync writes each volume whose content has changed, and returns when a token has to be renewed (zero: never).
func (v *volumes) sync(ctx context.Context, pod *corev1.Pod, facts podFacts) (time.Time, error) {
	var errs []error
	for _, volume := range pod.Spec.Volumes {
		if volume.EmptyDir != nil {
			continue
		}
		files, err := v.content(ctx, pod, facts, volume)
		if err != nil {
			errs = append(errs, fmt.Errorf("volume %q: %w", volume.Name, err))
			continue
		}
		if written, ok := v.written[volume.Name]; ok && sameFiles(written, files) {
			continue
		}
		if err := writeAtomically(filepath.Join(v.root, volumesDir, volume.Name), files, v.group); err != nil {
			errs = append(errs, fmt.Errorf("volume %q: %w", volume.Name, err))
			continue
		}
		v.written[volume.Name] = files
	}
	var next time.Time
	for _, t := range v.tokens {
		if next.IsZero() || t.renewAt.Before(next) {
			next = t.renewAt
		}
	}
	return next, errors.Join(errs...)
}

func sameFiles(a, b map[string]file) bool {
	return maps.EqualFunc(a, b, func(a, b file) bool { return a.mode == b.mode && string(a.data) == string(b.data) })
}

func (v *volumes) content(ctx context.Context, pod *corev1.Pod, facts podFacts, volume corev1.Volume) (map[string]file, error) {
	files := map[string]file{}
	var err error
	switch {
	case volume.ConfigMap != nil:
		s := volume.ConfigMap
		err = v.addObject(files, objectKey{kindConfigMap, pod.Namespace, s.Name}, s.Items, s.DefaultMode, s.Optional)
	case volume.Secret != nil:
		s := volume.Secret
		err = v.addObject(files, objectKey{kindSecret, pod.Namespace, s.SecretName}, s.Items, s.DefaultMode, s.Optional)
	case volume.DownwardAPI != nil:
		err = addDownward(files, pod, facts, volume.DownwardAPI.Items, volume.DownwardAPI.DefaultMode)
	case volume.Projected != nil:
		mode := volume.Projected.DefaultMode
		for _, s := range volume.Projected.Sources {
			switch {
			case s.ConfigMap != nil:
				err = v.addObject(files, objectKey{kindConfigMap, pod.Namespace, s.ConfigMap.Name}, s.ConfigMap.Items, mode, s.ConfigMap.Optional)
			case s.Secret != nil:
				err = v.addObject(files, objectKey{kindSecret, pod.Namespace, s.Secret.Name}, s.Secret.Items, mode, s.Secret.Optional)
			case s.DownwardAPI != nil:
				err = addDownward(files, pod, facts, s.DownwardAPI.Items, mode)
			case s.ServiceAccountToken != nil:
				err = v.addToken(ctx, files, pod, volume.Name, s.ServiceAccountToken, mode)
			default:
				err = errors.New("this projected source is not supported by a process node")
			}
			if err != nil {
				break
			}
		}
	default:
		err = errors.New("this kind of volume is not supported by a process node")
	}
	return files, err
}

func fileMode(modes ...*int32) fs.FileMode {
	for _, m := range modes {
		if m != nil {
			return fs.FileMode(*m)
		}
	}
	return 0o644
}

func (v *volumes) addObject(files map[string]file, key objectKey, items []corev1.KeyToPath, mode *int32, optional *bool) error {
	data, found, synced := v.objects.read(key)
	if !synced {
		return errNotYet
	}
	needed := optional == nil || !*optional
	if !found {
		if needed {
			return fmt.Errorf("%s %q not found", strings.ToLower(string(key.kind)), key.name)
		}
		return nil
	}
	if len(items) == 0 {
		for name, value := range data {
			files[name] = file{value, fileMode(mode)}
		}
		return nil
	}
	for _, item := range items {
		value, ok := data[item.Key]
		if !ok {
			if needed {
				return fmt.Errorf("references non-existent key %q of %s %q", item.Key, strings.ToLower(string(key.kind)), key.name)
			}
			continue
		}
		files[path.Clean(item.Path)] = file{value, fileMode(item.Mode, mode)}
	}
	return nil
}

func addDownward(files map[string]file, pod *corev1.Pod, facts podFacts, items []corev1.DownwardAPIVolumeFile, mode *int32) error {
	for _, item := range items {
		var value string
		var err error
		switch {
		case item.FieldRef != nil:
			value, err = fieldValue(pod, facts, item.FieldRef.FieldPath)
		case item.ResourceFieldRef != nil:
			value, err = resourceValue(pod, item.ResourceFieldRef.ContainerName, item.ResourceFieldRef)
		}
		if err != nil {
			return err
		}
		files[path.Clean(item.Path)] = file{[]byte(value), fileMode(item.Mode, mode)}
	}
	return nil
}

// addToken adds a token that is bound to the Pod: it ends with it, or when it expires.
func (v *volumes) addToken(ctx context.Context, files map[string]file, pod *corev1.Pod, volume string, source *corev1.ServiceAccountTokenProjection, mode *int32) error {
	id := volume + "/" + source.Path
	token := v.tokens[id]
	if token == nil || !time.Now().Before(token.renewAt) {
		fresh, err := v.requestToken(ctx, pod, source)
		switch {
		case err == nil:
			token = fresh
			v.tokens[id] = token
		case token == nil:
			return fmt.Errorf("token: %w", err)
		default:
			// The API server does not answer just now; the token is valid for some time yet.
			token.renewAt = time.Now().Add(5 * time.Second)
		}
	}
	files[path.Clean(source.Path)] = file{[]byte(token.value), fileMode(mode)}
	return nil
}

func (v *volumes) requestToken(ctx context.Context, pod *corev1.Pod, source *corev1.ServiceAccountTokenProjection) (*boundToken, error) {
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: ptr.To(ptr.Deref(source.ExpirationSeconds, 3600)),
		BoundObjectRef:    &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: types.UID(pod.UID)},
	}}
	if source.Audience != "" {
		request.Spec.Audiences = []string{source.Audience}
	}
	now := time.Now()
	answer, err := v.client.CoreV1().ServiceAccounts(pod.Namespace).CreateToken(ctx, pod.Spec.ServiceAccountName, request, metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	return &boundToken{value: answer.Status.Token, renewAt: renewTime(now, answer.Status.ExpirationTimestamp.Time, *request.Spec.ExpirationSeconds)}, nil
}

// renewTime is when the kubelet renews a token: after 80 % of its life, and after a day at the latest. The life is the
// one that was asked for: the API server may make the token of an in-cluster client live longer than that.
func renewTime(issued, expires time.Time, requestedSeconds int64) time.Time {
	life := min(expires.Sub(issued), time.Duration(requestedSeconds)*time.Second)
	return issued.Add(min(life*8/10, 24*time.Hour))
}
