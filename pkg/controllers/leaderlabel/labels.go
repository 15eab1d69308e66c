// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package leaderlabel

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/incumbent-io/incumbent/pkg/controllers"
)

const (
	// LabelRole is RoleLeader on the Pod of the leader. Other Pods do not have it.
	LabelRole = "incumbent.io/role"
	// RoleLeader is the value of LabelRole.
	RoleLeader = "leader"
	// LabelLease names the Lease for which a Pod has LabelRole. It tells the
	// labels of two managers in one namespace apart.
	LabelLease = "incumbent.io/lease"
)

// hashDigits is how much of a hash tells two shortened names apart.
const hashDigits = 10

// markOf returns the value of LabelLease for a Lease. It is the Lease's name, with
// its namespace if that is not the Pod's. What is too long for a label's value is cut
// and gets a hash of the whole.
func markOf(leaseNamespace, lease, podNamespace string) string {
	mark := lease
	if leaseNamespace != podNamespace {
		mark = leaseNamespace + "." + lease
	}
	if len(mark) <= validation.LabelValueMaxLength {
		return mark
	}
	sum := sha256.Sum256([]byte(mark))
	head := strings.TrimRight(mark[:validation.LabelValueMaxLength-hashDigits-1], "-._")
	return head + "-" + hex.EncodeToString(sum[:])[:hashDigits]
}

// self is the Pod of this process.
type self struct {
	uid types.UID
	// mark is the value of LabelLease that this Pod has while it leads.
	mark string
	// owner is the UID of the Pod's controller, empty for a Pod without one.
	owner types.UID
}

func selfOf(i controllers.Instance, own metav1.Object) self {
	return self{uid: own.GetUID(), mark: markOf(i.LeaseNamespace, i.Lease, i.PodNamespace), owner: ownerOf(own)}
}

func ownerOf(pod metav1.Object) types.UID {
	if owner := metav1.GetControllerOf(pod); owner != nil {
		return owner.UID
	}
	return ""
}

// labelled tells whether pod is this process's own and has both labels.
func (s self) labelled(pod metav1.Object) bool {
	labels := pod.GetLabels()
	return pod.GetUID() == s.uid && labels[LabelRole] == RoleLeader && labels[LabelLease] == s.mark
}

// ousts tells whether the label must be taken from pod: another Pod that says it
// leads our lease, or a sibling that says it leads but not what.
func (s self) ousts(pod metav1.Object) bool {
	labels := pod.GetLabels()
	if pod.GetUID() == s.uid || labels[LabelRole] != RoleLeader {
		return false
	}
	if mark, marked := labels[LabelLease]; marked {
		return mark == s.mark
	}
	return s.owner != "" && ownerOf(pod) == s.owner
}

// labelPatch returns a JSON merge patch of labels, where nil removes one. The API
// server refuses it with a conflict if the object has another UID, or another version
// than this, if it is not "".
func labelPatch(uid types.UID, version string, labels map[string]any) []byte {
	metadata := map[string]any{"uid": uid, "labels": labels}
	if version != "" {
		metadata["resourceVersion"] = version
	}
	patch, err := json.Marshal(map[string]any{"metadata": metadata})
	if err != nil {
		panic(err) // Strings and nils can be encoded.
	}
	return patch
}
