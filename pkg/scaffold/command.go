// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package scaffold

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/spf13/cobra"
)

// NewCommand returns the subcommand init. The version of Incumbent that it writes into
// go.mod is that of the root command.
func NewCommand() *cobra.Command {
	var c Config
	cmd := &cobra.Command{
		Use:   "init DIR",
		Short: "Write a new manager with a controller of your own into DIR",
		Long: "Writes a Go module with a manager, one controller with its tests, manifests and a Makefile\n" +
			"into DIR, and has the go command complete its go.mod. It builds, passes its tests (make test)\n" +
			"and runs on a local cluster (make run) as it is. No file is ever overwritten.",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fmt.Errorf("want one argument, the folder of the new manager, and got %d %q; for example: init ../acme --name=acme-manager --controller=team-label", len(args), args)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			c.Dir, c.Version = args[0], cmd.Root().Version
			if err := c.Validate(); err != nil {
				return err
			}
			if err := c.Write(); err != nil {
				return err
			}
			if err := tidy(cmd, c.Dir); err != nil {
				return err
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s is in %s. Next:\n\n  cd %[2]s\n  make test   # its tests\n  make run    # a local Kubernetes, and the manager on it with 3 replicas\n\nThe controller is in %s/%[3]s.go; README.md says what else there is.\n", c.Name, c.Dir, c.packageName())
			return err
		},
	}
	cmd.Flags().StringVar(&c.Name, "name", "", "Name of the new manager: of its binary, Deployment, Lease and, with -system, namespace. Required.")
	cmd.Flags().StringVar(&c.Controller, "controller", "", "Name of its first controller, in lower-case words joined by dashes. Required.")
	cmd.Flags().StringVar(&c.Module, "module", "", "Path of the new Go module. Default: example.com/NAME.")
	cmd.Flags().StringVar(&c.Replace, "replace", "", "A checkout of "+incumbent+" to build with. Default: the release of this binary, from the module proxy.")
	return cmd
}

// tidy adds to go.mod what the new module needs indirectly, and writes go.sum.
func tidy(cmd *cobra.Command, dir string) error {
	tidy := exec.CommandContext(cmd.Context(), "go", "mod", "tidy")
	tidy.Dir, tidy.Env = dir, append(os.Environ(), "GOWORK=off")
	out, err := tidy.CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("all files are in %s, but the go command is not on the PATH; install Go and run there: go mod tidy", dir)
	}
	if err != nil {
		return fmt.Errorf("all files are in %s, but go mod tidy has failed there; run it again once this is cured: %w\n%s", dir, err, strings.TrimSpace(string(out)))
	}
	return nil
}
