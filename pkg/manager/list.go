// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package manager

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/incumbent-io/incumbent/pkg/options"
)

// newControllersCommand lists the gates. It touches no cluster.
func newControllersCommand(line *options.CommandLine) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "controllers",
		Short: "List the controllers, which are enabled, and why",
		Long: "Lists every registered controller, whether the given flags and configuration file enable it, and why.\n" +
			"It takes the same flags as the manager itself and needs no cluster.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts, err := line.Load()
			if err != nil {
				return err
			}
			if err := checkOutput(output); err != nil {
				return err
			}
			if output == "json" {
				return printJSON(cmd.OutOrStdout(), opts.Table())
			}
			return printTable(cmd.OutOrStdout(), opts.Table())
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "table", "Form of the list: table or json.")
	return cmd
}

func printTable(out io.Writer, rows []options.Row) error {
	table := tabwriter.NewWriter(out, 0, 8, 3, ' ', 0)
	fmt.Fprintln(table, "NAME\tENABLED\tREASON\tSUMMARY")
	for _, row := range rows {
		enabled := "no"
		if row.Enabled {
			enabled = "yes"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", row.Name, enabled, row.Reason, row.Summary)
	}
	return table.Flush()
}
