// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package configrollout

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

func named(name string) corev1.LocalObjectReference { return corev1.LocalObjectReference{Name: name} }

func container(env ...corev1.EnvVarSource) corev1.Container {
	var c corev1.Container
	for i := range env {
		c.Env = append(c.Env, corev1.EnvVar{Name: "E", ValueFrom: &env[i]})
	}
	return c
}

func keyOfMap(name, key string, optional *bool) corev1.EnvVarSource {
	return corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: named(name), Key: key, Optional: optional}}
}

func keyOfSecret(name, key string) corev1.EnvVarSource {
	return corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: named(name), Key: key}}
}

func volumes(sources ...corev1.VolumeSource) (list []corev1.Volume) {
	for _, from := range sources {
		list = append(list, corev1.Volume{Name: "v", VolumeSource: from})
	}
	return list
}

func TestReferences(t *testing.T) {
	yes, items := new(true), []corev1.KeyToPath{{Key: "b", Path: "x"}, {Key: "a", Path: "y"}}
	for _, test := range []struct {
		name string
		pod  corev1.PodSpec
		want []reference
	}{
		{"none", corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Env: []corev1.EnvVar{{Name: "PLAIN", Value: "x"}}}}, Volumes: volumes(corev1.VolumeSource{})}, nil},
		{"env", corev1.PodSpec{Containers: []corev1.Container{container(keyOfMap("m", "k", nil), keyOfSecret("s", "k"))}},
			[]reference{{source{configMap, "m"}, "k", false}, {source{secret, "s"}, "k", false}}},
		{"init containers", corev1.PodSpec{InitContainers: []corev1.Container{container(keyOfMap("m", "k", yes))}},
			[]reference{{source{configMap, "m"}, "k", true}}},
		{"envFrom", corev1.PodSpec{Containers: []corev1.Container{{EnvFrom: []corev1.EnvFromSource{
			{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: named("m"), Optional: yes}},
			{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: named("s")}},
		}}}}, []reference{{source{configMap, "m"}, whole, true}, {source{secret, "s"}, whole, false}}},
		{"volumes", corev1.PodSpec{Volumes: volumes(
			corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: named("m")}},
			corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: named("n"), Items: items, Optional: yes}},
			corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "s"}},
			corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "t", Items: items[:1]}},
		)}, []reference{
			{source{configMap, "m"}, whole, false}, {source{configMap, "n"}, "a", true}, {source{configMap, "n"}, "b", true},
			{source{secret, "s"}, whole, false}, {source{secret, "t"}, "b", false},
		}},
		{"projected", corev1.PodSpec{Volumes: volumes(corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
			{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: named("m"), Items: items[1:]}},
			{Secret: &corev1.SecretProjection{LocalObjectReference: named("s"), Optional: yes}},
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{}},
		}}})}, []reference{{source{configMap, "m"}, "a", false}, {source{secret, "s"}, whole, true}}},
		{"one part twice is optional only if both say so", corev1.PodSpec{Containers: []corev1.Container{
			container(keyOfMap("m", "k", yes), keyOfMap("m", "k", nil), keyOfMap("n", "k", yes), keyOfMap("n", "k", yes)),
		}}, []reference{{source{configMap, "m"}, "k", false}, {source{configMap, "n"}, "k", true}}},
		{"a name that is not there yet", corev1.PodSpec{Containers: []corev1.Container{container(keyOfMap("", "k", nil))}}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := referencesOf(&test.pod)
			if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(reference{}, source{})); diff != "" {
				t.Errorf("references differ (-want +got):\n%s", diff)
			}
		})
	}
}

func TestSourcesAreNamedOnce(t *testing.T) {
	pod := corev1.PodSpec{Containers: []corev1.Container{container(keyOfMap("m", "a", nil), keyOfSecret("m", "x"), keyOfMap("m", "b", nil))}}
	if diff := cmp.Diff([]source{{configMap, "m"}, {secret, "m"}}, sourcesOf(referencesOf(&pod)), cmp.AllowUnexported(source{})); diff != "" {
		t.Errorf("sources differ (-want +got):\n%s", diff)
	}
}
