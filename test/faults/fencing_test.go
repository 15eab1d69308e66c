// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package faults

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/incumbent-io/incumbent/test/faults/candidate"

	"github.com/incumbent-io/incumbent/test/cluster"
)

// fencingComponent is what a user of the component applies.
const fencingComponent = "../../manifests/components/fencing/policy.yaml"

// fence applies the policy and the binding of the fencing component, for the service
// account and the Lease of this fleet, and waits until the API server enforces them.
func (f *fleet) fence() {
	f.t.Helper()
	const name, account = "incumbent-fencing", "system:serviceaccount:incumbent-system:incumbent"
	content, err := os.ReadFile(fencingComponent)
	if err != nil {
		f.t.Fatal(err)
	}
	mine := "system:serviceaccount:" + f.namespace + ":default"
	for _, text := range []string{name, account} {
		if !bytes.Contains(content, []byte(text)) {
			f.t.Fatalf("%s does not contain %q any more", fencingComponent, text)
		}
	}
	text := strings.ReplaceAll(strings.ReplaceAll(string(content), name, f.namespace), account, mine)
	decoder := yaml.NewYAMLOrJSONDecoder(strings.NewReader(text), 4<<10)
	var policy admissionv1.ValidatingAdmissionPolicy
	var binding admissionv1.ValidatingAdmissionPolicyBinding
	if err := errors.Join(decoder.Decode(&policy), decoder.Decode(&binding)); err != nil {
		f.t.Fatal(err)
	}
	if err := decoder.Decode(&struct{}{}); !errors.Is(err, io.EOF) {
		f.t.Fatalf("%s: got %v after a policy and a binding, want its end", fencingComponent, err)
	}
	binding.Spec.ParamRef.Name, binding.Spec.ParamRef.Namespace = contested, f.namespace

	ctx, api := f.t.Context(), f.c.Client.AdmissionregistrationV1()
	f.must(api.ValidatingAdmissionPolicies().Create(ctx, &policy, metav1.CreateOptions{}))
	f.must(api.ValidatingAdmissionPolicyBindings().Create(ctx, &binding, metav1.CreateOptions{}))
	f.t.Cleanup(func() {
		ctx := context.Background() // the test's has ended
		if err := errors.Join(
			api.ValidatingAdmissionPolicyBindings().Delete(ctx, binding.Name, metav1.DeleteOptions{}),
			api.ValidatingAdmissionPolicies().Delete(ctx, policy.Name, metav1.DeleteOptions{}),
		); err != nil {
			f.t.Error(err)
		}
	})
	f.awaitFence(mine)
}

// awaitFence waits until a write with the fleet's account, from no Pod, is refused.
func (f *fleet) awaitFence(account string) {
	f.t.Helper()
	config := rest.CopyConfig(f.c.REST)
	config.Impersonate = rest.ImpersonationConfig{UserName: account}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		f.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(f.t.Context(), 30*time.Second)
	defer cancel()
	if err := cluster.Poll(ctx, func() error {
		_, err := client.CoreV1().ConfigMaps(f.namespace).Patch(ctx, candidate.Object, types.MergePatchType, []byte(`{}`), metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}})
		if err != nil && apierrors.IsForbidden(err) && strings.Contains(err.Error(), "fencing") {
			return nil
		}
		return errors.New("a write of somebody who does not lead is not refused")
	}); err != nil {
		f.t.Fatal(err)
	}
}
