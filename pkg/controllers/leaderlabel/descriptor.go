// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package leaderlabel

import (
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/incumbent-io/incumbent/pkg/controllers"
)

// Name is the controller's name.
const Name = "leader-label"

var pods = schema.GroupVersionResource{Version: "v1", Resource: "pods"}

// Descriptor registers the leader-label controller.
func Descriptor() controllers.Registration {
	return controllers.Descriptor[controllers.NoOptions]{
		Name:    Name,
		Summary: "Labels the leader's Pod " + LabelRole + "=" + RoleLeader + " and takes the label from the others, so that a Service can route to the leader.",
		Access: func(controllers.NoOptions) []controllers.Access {
			return []controllers.Access{{Resource: pods, Verbs: []string{"list", "watch", "patch"}, Namespace: controllers.OwnNamespace}}
		},
		Init: build,
	}
}

// skipReason returns why there is nothing to label in this process, or "".
func skipReason(i controllers.Instance) string {
	var missing []string
	for _, variable := range []struct{ name, value string }{
		{"POD_NAME", i.PodName}, {"POD_NAMESPACE", i.PodNamespace}, {"POD_UID", i.PodUID},
	} {
		if variable.value == "" {
			missing = append(missing, variable.name)
		}
	}
	switch {
	case len(missing) > 0:
		return "this process has no Pod to label: the environment lacks " + strings.Join(missing, ", ") + " (a Pod sets them by the downward API)"
	case i.Lease == "":
		return "no election takes place (--leader-elect=false), so no Pod leads"
	}
	return ""
}
