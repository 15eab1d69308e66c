// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package options

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"github.com/incumbent-io/incumbent/pkg/controllers"
	"github.com/incumbent-io/incumbent/pkg/controllers/leaderlabel"
	"github.com/incumbent-io/incumbent/pkg/controllers/objectttl"
)

func read(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func TestExampleLoadsAndIsTheOneOnThePage(t *testing.T) {
	const path = "../../docs/examples/config.yaml"
	file, err := ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	registry := controllers.NewRegistry(leaderlabel.Descriptor(), objectttl.Descriptor())
	// The binary registers JSON as a log format; here it is unknown.
	if _, err := Load("incumbent", registry, []string{"--logging-format=text"}, file); err != nil {
		t.Error(err)
	}
	if page := read(t, "../../docs/configuration.md"); !strings.Contains(page, "```yaml\n"+string(file.Content)+"```\n") {
		t.Errorf("docs/configuration.md does not show %s verbatim", path)
	}
}

// row is what a row of the page says about a field.
type row struct{ Default, Flag, Effect string }

// TestPageTellsEveryField compares the table in docs/configuration.md with the code.
func TestPageTellsEveryField(t *testing.T) {
	want := map[string]row{
		"apiVersion":                   {Default: "required"},
		"kind":                         {Default: "required"},
		"controllerOptions.NAME.FIELD": {Default: "by controller", Flag: "`--NAME-FIELD`", Effect: "live"},
	}
	inWords := map[string]string{
		"leaderElection.resourceName":      "the manager's name",
		"leaderElection.resourceNamespace": "the Pod's",
	}
	for _, s := range newOptions("incumbent", controllers.NewRegistry()).document.settings() {
		r := row{Default: "`" + s.value + "`", Effect: "restart"}
		if words, ok := inWords[s.path]; ok {
			r.Default = words
		} else if s.value == `""` || s.value == "null" {
			r.Default = "none"
		}
		if s.flag != "" {
			r.Flag = "`--" + s.flag + "`"
		}
		if s.live {
			r.Effect = "live"
		}
		want[s.path] = r
	}
	got := map[string]row{}
	for line := range strings.Lines(read(t, "../../docs/configuration.md")) {
		cells := strings.Split(line, "|")
		if len(cells) == 7 && strings.HasPrefix(cells[1], " `") {
			for i := range cells {
				cells[i] = strings.TrimSpace(cells[i])
			}
			got[strings.Trim(cells[1], "`")] = row{Default: cells[3], Flag: cells[4], Effect: cells[5]}
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the table of fields (-code +page):\n%s", diff)
	}
}

// withoutField are the flags that the file has no field for, with the reason.
var withoutField = map[string]string{
	"config":                                       "names the file",
	"http2-max-streams-per-connection":             "tunes the socket",
	"permit-address-sharing":                       "tunes the socket",
	"permit-port-sharing":                          "tunes the socket",
	"tls-curve-preferences":                        "numbers that depend on the version of Go",
	"tls-sni-cert-key":                             "a name for each of several clients, which a manager has not",
	"authentication-kubeconfig":                    "says who reviews requests, as in every Kubernetes component",
	"authentication-skip-lookup":                   "says who reviews requests, as in every Kubernetes component",
	"authentication-token-webhook-cache-ttl":       "says who reviews requests, as in every Kubernetes component",
	"authentication-tolerate-lookup-failure":       "says who reviews requests, as in every Kubernetes component",
	"authorization-always-allow-paths":             "says who reviews requests, as in every Kubernetes component",
	"authorization-kubeconfig":                     "says who reviews requests, as in every Kubernetes component",
	"authorization-webhook-cache-authorized-ttl":   "says who reviews requests, as in every Kubernetes component",
	"authorization-webhook-cache-unauthorized-ttl": "says who reviews requests, as in every Kubernetes component",
	"client-ca-file":                               "says who reviews requests, as in every Kubernetes component",
	"requestheader-allowed-names":                  "says who reviews requests, as in every Kubernetes component",
	"requestheader-client-ca-file":                 "says who reviews requests, as in every Kubernetes component",
	"requestheader-extra-headers-prefix":           "says who reviews requests, as in every Kubernetes component",
	"requestheader-group-headers":                  "says who reviews requests, as in every Kubernetes component",
	"requestheader-uid-headers":                    "says who reviews requests, as in every Kubernetes component",
	"requestheader-username-headers":               "says who reviews requests, as in every Kubernetes component",
	"log-json-split-stream":                        "is there once JSON is registered as a format",
	"log-json-info-buffer-size":                    "is there once JSON is registered as a format",
}

func TestEveryFlagHasAField(t *testing.T) {
	o := newOptions("incumbent", controllers.NewRegistry())
	has := map[string]bool{}
	for path, flag := range o.places.flags {
		has[flag] = true
		if o.places.set.Lookup(flag) == nil && withoutField[flag] == "" {
			t.Errorf("the field %s names the flag --%s, which does not exist", path, flag)
		}
	}
	o.places.set.VisitAll(func(flag *pflag.Flag) {
		if !has[flag.Name] && withoutField[flag.Name] == "" {
			t.Errorf("the flag --%s has no field in the file", flag.Name)
		}
	})
}
