// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package manager

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"os"
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
	var output, as, namespace string
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
			config, err := opts.Complete(func(name string) string {
				if name == "POD_NAMESPACE" && namespace != "" {
					return namespace
				}
				return os.Getenv(name)
			})
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
	cmd.Flags().StringVar(&namespace, "namespace", "", "Namespace that the manager is to run in. Default: POD_NAMESPACE, or that of the kubeconfig file.")
	cmd.Flags().StringVar(&as, "as", "", "User to check instead of the one of the kubeconfig file, for instance system:serviceaccount:NAMESPACE:NAME. Needs the permission to impersonate.")
	return cmd
}

// checkNeeds finds out about everything that the configuration needs.
func checkNeeds(ctx context.Context, config *options.Config) ([]preflight.Row, error) {
	checker, err := preflight.New(preflight.Config{REST: config.REST, OwnNamespace: config.Namespace})
	if err != nil {
		return nil, err
	}
	var rows []preflight.Row
	for owner, access := range byOwner(needs(config.Outline())) {
		report, err := checker.Check(ctx, access)
		if err != nil {
			return nil, err
		}
		rows = append(rows, preflight.Rows(owner, report)...)
	}
	return rows, nil
}

// byOwner yields what each owner needs, in the order of the needs.
func byOwner(needs []preflight.Need) iter.Seq2[string, []controllers.Access] {
	return func(yield func(string, []controllers.Access) bool) {
		for len(needs) > 0 {
			owner, access := needs[0].Owner, []controllers.Access{}
			for len(needs) > 0 && needs[0].Owner == owner {
				access, needs = append(access, needs[0].Access), needs[1:]
			}
			if !yield(owner, access) {
				return
			}
		}
	}
}

func printChecks(out io.Writer, output string, rows []preflight.Row) error {
	if output == "json" {
		return printJSON(out, rows)
	}
	return preflight.Table(out, rows)
}

// summarize returns an error if something is missing that is not optional.
func summarize(rows []preflight.Row) error {
	missing := 0
	for _, row := range rows {
		if len(row.Missing) > 0 && !row.Optional {
			missing++
		}
	}
	if missing > 0 {
		return fmt.Errorf("%d of %d needs are not met; install what is not served, and grant what is not granted (the rbac subcommand prints the roles)", missing, len(rows))
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
			grants, err := preflight.Roles(config, needs(outline))
			if err != nil {
				return err
			}
			return grants.Print(cmd.OutOrStdout())
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
