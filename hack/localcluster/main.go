// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

// localcluster is a whole Kubernetes cluster in one program, on the loopback interface, for development and tests: etcd,
// kube-apiserver, kube-controller-manager, kube-scheduler, nodes that run containers as processes, kubectl, and a fault injector.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/component-base/version"

	"github.com/incumbent-io/incumbent/hack/localcluster/cluster"
	_ "github.com/incumbent-io/incumbent/hack/localcluster/containerinit" // makes this program the launcher of containers
)

func main() {
	// Three programs in one are told apart before cobra sees the arguments, as two of them have a command line of their own.
	switch {
	case filepath.Base(os.Args[0]) == "kubectl":
		runKubectl(os.Args[1:])
	case len(os.Args) > 1 && os.Args[1] == "kubectl":
		runKubectl(os.Args[2:])
	case len(os.Args) > 2 && os.Args[1] == cluster.ComponentCommand:
		os.Exit(runComponent(os.Args[2], os.Args[3:]))
	default:
		if err := newCommand().Execute(); err != nil {
			fmt.Fprintln(os.Stderr, "localcluster:", err)
			os.Exit(1)
		}
	}
}

func newCommand() *cobra.Command {
	// The flags that libraries of the components have registered are not ours; cobra would offer them in every subcommand.
	pflag.CommandLine = pflag.NewFlagSet(os.Args[0], pflag.ContinueOnError)
	root := &cobra.Command{
		Use:   "localcluster",
		Short: "A whole Kubernetes cluster in one program, for development and tests",
		Long: `localcluster runs a Kubernetes cluster on this machine without containers: etcd, kube-apiserver,
kube-controller-manager, kube-scheduler, and nodes that run the containers of Pods as local processes.

It is a development tool. It listens on the loopback interface only, does not isolate
or limit what it runs, and forgets everything when it stops.`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(upCommand(), faultCommand(), &cobra.Command{
		Use:                "kubectl [ARGUMENTS]",
		Short:              "Run the embedded kubectl; KUBECONFIG defaults to the cluster of this folder",
		DisableFlagParsing: true,
		Run:                func(_ *cobra.Command, args []string) { runKubectl(args) },
	}, &cobra.Command{
		Use:   "version",
		Short: "Print the version of the Kubernetes inside",
		Args:  cobra.NoArgs,
		Run: func(c *cobra.Command, _ []string) {
			v := version.Get()
			fmt.Fprintf(c.OutOrStdout(), "Kubernetes %s, %s, %s\n", v.GitVersion, v.GoVersion, v.Platform)
		},
	})
	return root
}

func upCommand() *cobra.Command {
	var config cluster.Config
	command := &cobra.Command{
		Use:   "up",
		Short: "Start a cluster and run it until Ctrl-C or SIGTERM",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
			defer stop()
			// A second signal ends the program the hard way; the kernel then ends its children.
			context.AfterFunc(ctx, stop)
			config.Out = c.ErrOrStderr()
			return cluster.Up(ctx, config)
		},
	}
	flags := command.Flags()
	flags.StringVar(&config.DataDir, "data", cluster.DefaultDataDir, "the folder that holds everything of the cluster")
	flags.StringVar(&config.Kubeconfig, "kubeconfig", "", "where to write the administrator's kubeconfig (default: kubeconfig in the data folder)")
	flags.IntVar(&config.Nodes, "nodes", 3, "how many nodes to run")
	flags.StringArrayVar(&config.Images, "image", nil, "NAME=PATH: containers of this image run this program (repeatable; a name without a tag means every tag)")
	flags.StringVar(&config.ImagesFile, "images-file", "", "a file with a line NAME=PATH for each image, read again whenever a container starts")
	flags.BoolVar(&config.Keep, "keep", false, "keep the objects of the cluster that ran in the data folder before")
	return command
}
