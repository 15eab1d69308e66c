// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package manager

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/rest"

	"github.com/incumbent-io/incumbent/pkg/controllers"
	"github.com/incumbent-io/incumbent/pkg/options"
	"github.com/incumbent-io/incumbent/pkg/preflight"
)

// preflightTimeout bounds the preflight subcommand.
const preflightTimeout = 30 * time.Second

// newPreflightCommand checks a cluster for what the manager would need.
func newPreflightCommand(line *options.CommandLine) *cobra.Command {
	var output, as string
	cmd := &cobra.Command{
		Use:   "preflight",
		Short: "Check whether the APIs and permissions that are needed are there",
		Long: "Asks the API server whether it serves every resource that the manager and its enabled\n" +
			"controllers need, and grants the verbs. The exit code is 1 if something is missing.\n" +
			"It takes the same flags as the manager itself, and changes nothing in the cluster.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts, err := line.Load()
			if err != nil {
				return err
			}
			if err := checkOutput(output); err != nil {
				return err
			}
			config, err := opts.Complete(os.Getenv)
			if err != nil {
				return err
			}
			if as != "" {
				config.REST.Impersonate = rest.ImpersonationConfig{UserName: as}
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), preflightTimeout)
			defer cancel()
			checks, err := checkNeeds(ctx, config)
			if err != nil {
				return err
			}
			if err := printChecks(cmd.OutOrStdout(), output, checks); err != nil {
				return err
			}
			return summarize(checks)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "table", "Form of the list: table or json.")
	cmd.Flags().StringVar(&as, "as", "", "User to check instead of the one of the kubeconfig file, for instance system:serviceaccount:NAMESPACE:NAME. Needs the permission to impersonate.")
	return cmd
}

// accessCheck is one need and what was found out about it.
type accessCheck struct {
	Owner     string   `json:"owner"`
	Group     string   `json:"group"`
	Version   string   `json:"version"`
	Resource  string   `json:"resource"`
	Verbs     []string `json:"verbs"`
	Names     []string `json:"names,omitempty"`
	Namespace string   `json:"namespace,omitempty"` // "" for all
	Optional  bool     `json:"optional,omitempty"`
	Missing   string   `json:"missing,omitempty"` // "" if nothing is
}

// checkNeeds finds out about everything that the configuration needs.
func checkNeeds(ctx context.Context, config *options.Config) ([]accessCheck, error) {
	checker, err := preflight.New(preflight.Config{REST: config.REST, OwnNamespace: config.Namespace})
	if err != nil {
		return nil, err
	}
	list := needs(config.Outline())
	access := make([]controllers.Access, len(list))
	for i, need := range list {
		access[i] = need.Access
	}
	report, err := checker.Check(ctx, access)
	if err != nil {
		return nil, err
	}
	checks := make([]accessCheck, len(list))
	for i, entry := range report {
		checks[i] = accessCheck{
			Owner: list[i].Owner, Group: entry.Resource.Group, Version: entry.Resource.Version, Resource: entry.Resource.Resource,
			Verbs: entry.Verbs, Names: entry.Names, Namespace: entry.Namespace, Optional: entry.Optional, Missing: entry.Missing(),
		}
	}
	return checks, nil
}

func printChecks(out io.Writer, output string, checks []accessCheck) error {
	if output == "json" {
		return printJSON(out, checks)
	}
	table := tabwriter.NewWriter(out, 0, 8, 3, ' ', 0)
	fmt.Fprintln(table, "NEEDED BY\tRESOURCE\tVERBS\tNAMESPACE\tRESULT")
	for _, c := range checks {
		resource := strings.TrimSuffix(c.Resource+"."+c.Group, ".")
		if len(c.Names) > 0 {
			resource += "/" + strings.Join(c.Names, ",")
		}
		result := cmp.Or(c.Missing, "ok")
		if c.Optional && c.Missing != "" {
			result = "optional: " + result
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", c.Owner, resource, strings.Join(c.Verbs, ","), cmp.Or(c.Namespace, "all"), result)
	}
	return table.Flush()
}

// summarize returns an error if something is missing that is not optional.
func summarize(checks []accessCheck) error {
	missing := 0
	for _, c := range checks {
		if c.Missing != "" && !c.Optional {
			missing++
		}
	}
	if missing > 0 {
		return fmt.Errorf("%d of %d needs are not met; install what is not served, and grant what is not granted (the rbac subcommand prints the roles)", missing, len(checks))
	}
	return nil
}

// newRBACCommand prints the roles. It touches no cluster.
func newRBACCommand(name string, line *options.CommandLine) *cobra.Command {
	config := preflight.RolesConfig{Name: name, Namespace: name + "-system", ServiceAccount: name}
	cmd := &cobra.Command{
		Use:   "rbac",
		Short: "Print the RBAC that the enabled controllers need",
		Long: "Prints the ClusterRole, the Roles and their bindings that grant what the manager and its\n" +
			"enabled controllers need, and nothing more, as YAML for kubectl apply.\n" +
			"It takes the same flags as the manager itself and needs no cluster.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts, err := line.Load()
			if err != nil {
				return err
			}
			outline, err := opts.Outline(config.Namespace)
			if err != nil {
				return err
			}
			return preflight.PrintRoles(cmd.OutOrStdout(), config, needs(outline))
		},
	}
	cmd.Flags().StringVar(&config.Name, "role", config.Name, "Name of the roles and of their bindings.")
	cmd.Flags().StringVar(&config.Namespace, "namespace", config.Namespace, "Namespace that the manager runs in.")
	cmd.Flags().StringVar(&config.ServiceAccount, "service-account", config.ServiceAccount, "Service account that the manager runs as.")
	return cmd
}

func checkOutput(output string) error {
	if output != "table" && output != "json" {
		return fmt.Errorf("--output=%q is not a choice; use table or json", output)
	}
	return nil
}

func printJSON(out io.Writer, value any) error {
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	return encoder.Encode(value)
}
