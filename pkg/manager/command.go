// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package manager

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"k8s.io/component-base/cli"
	cliflag "k8s.io/component-base/cli/flag"
	"k8s.io/component-base/cli/globalflag"
	"k8s.io/component-base/logs"
	_ "k8s.io/component-base/logs/json/register" // --logging-format=json
	"k8s.io/component-base/term"
	"k8s.io/klog/v2"

	"github.com/incumbent-io/incumbent/pkg/controllers"
	"github.com/incumbent-io/incumbent/pkg/options"
)

// Main runs the command line of the manager called name and returns the exit code:
// 0 after a complete stop, 1 otherwise, and 2 if the status subcommand has shown that
// something is not as it should be. It may be called once per process. Subcommands are
// added to those that every manager has.
//
// Unless GOGC is set, garbage is collected at a quarter of Go's usual growth: a host of
// controllers holds caches for a long time and makes little garbage, so memory is dear
// and the collector's work is cheap.
func Main(name string, registry *controllers.Registry, subcommands ...*cobra.Command) int {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(25)
	}
	err := cli.RunNoErrOutput(NewCommand(name, registry, subcommands...))
	var running *runError
	var flawed *flawedError
	code := 1
	switch {
	case err == nil:
		return 0
	case errors.As(err, &flawed):
		code = 2
		printMistakes(err)
	case errors.As(err, &running):
		klog.Flush() // the log has it
	default:
		printMistakes(err)
	}
	return code
}

// printMistakes prints a line for each.
func printMistakes(err error) {
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintf(os.Stderr, "Error: %s\n", strings.TrimSpace(line))
	}
}

// runError is an error of a manager that had started: its log ends with it.
type runError struct{ error }

func (e *runError) Unwrap() error { return e.error }

// NewCommand returns the command of the manager called name, with its subcommands and
// those given. Running it configures klog and signals for the whole process.
func NewCommand(name string, registry *controllers.Registry, subcommands ...*cobra.Command) *cobra.Command {
	line := options.NewCommandLine(name, registry)
	command := filepath.Base(os.Args[0]) // what the user calls it by
	root := &cobra.Command{
		Use:     command,
		Version: options.Version(),
		Long: fmt.Sprintf(`%s runs many controllers in one highly available process. One replica, the
leader, holds a Lease and runs them; the others stand by and take over when it
leaves or dies.

Subcommands:
  %[2]s controllers   list the controllers, which are enabled, and why
  %[2]s preflight     check whether the APIs and permissions that are needed are there
  %[2]s rbac          print the RBAC that the enabled controllers need
  %[2]s status        show who leads and what every controller does, on all replicas`, name, command),
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("unknown command %q; see %s --help", args[0], cmd.CommandPath())
			}
			return nil
		},
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts, err := line.Load()
			if err != nil {
				return err
			}
			config, err := opts.Complete(os.Getenv)
			if err != nil {
				return err
			}
			logging, err := applyLogging(config)
			if err != nil {
				return err
			}
			adoptTracing()
			logger := klog.LoggerWithName(klog.Background(), config.Name)
			ctx, abort := stopOnSignal(cmd.Context(), logger)
			config.Abort, config.ApplyLogging = abort, logging.apply
			if err := Run(ctx, config); err != nil {
				logger.Error(err, "Manager ended")
				return &runError{err}
			}
			logger.Info("Manager ended")
			return nil
		},
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return fmt.Errorf("%w; see %s --help", err, cmd.CommandPath())
	})

	sections := line.Flags()
	sections.FlagSet("global").Bool("version", false, "Print the version and exit.") // found and served by cobra
	globalflag.AddGlobalFlags(sections.FlagSet("global"), name, logs.SkipLoggingConfigurationFlags())
	for _, section := range sections.FlagSets {
		root.PersistentFlags().AddFlagSet(section)
	}
	columns, _, _ := term.TerminalSize(root.OutOrStdout())
	cliflag.SetUsageAndHelpFunc(root, sections, columns)

	for _, sub := range []*cobra.Command{newControllersCommand(line), newPreflightCommand(line), newRBACCommand(name, line)} {
		own := cliflag.NamedFlagSets{}
		own.FlagSet(sub.Name()).AddFlagSet(sub.Flags())
		for _, section := range sections.Order {
			own.FlagSet(section).AddFlagSet(sections.FlagSets[section])
		}
		cliflag.SetUsageAndHelpFunc(sub, own, columns)
		root.AddCommand(sub)
	}
	show, shown := newStatusCommand(name), cliflag.NamedFlagSets{}
	shown.FlagSet(show.Name()).AddFlagSet(show.Flags())
	shown.FlagSet(show.Name()).AddFlag(sections.FlagSet("API client").Lookup("kubeconfig"))
	cliflag.SetUsageAndHelpFunc(show, shown, columns)
	root.AddCommand(show)
	for _, sub := range subcommands {
		own := cliflag.NamedFlagSets{}
		own.FlagSet(sub.Name()).AddFlagSet(sub.Flags())
		cliflag.SetUsageAndHelpFunc(sub, own, columns)
		root.Long += fmt.Sprintf("\n  %s %-13s %s", command, sub.Name(), sub.Short)
		root.AddCommand(sub)
	}
	root.CompletionOptions.DisableDefaultCmd = true
	return root
}

// stopOnSignal returns a context that ends at the first SIGTERM or SIGINT, and a
// channel that is closed at the second.
func stopOnSignal(ctx context.Context, logger klog.Logger) (context.Context, <-chan struct{}) {
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, stop := context.WithCancelCause(ctx)
	abort := make(chan struct{})
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt)
	go func() {
		logger.Info("Stopping: controllers drain, then the lease is released; a second signal stops at once", "signal", <-signals)
		stop(errors.New("asked to stop by a signal"))
		logger.Info("Stopping at once: the lease is not released", "signal", <-signals)
		close(abort)
	}()
	return ctx, abort
}
