// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package main

import (
	"fmt"
	"os"
	"path/filepath"
	_ "time/tzdata" // CronJobs may name a time zone, and a bare machine may have no zone files.

	"github.com/spf13/cobra"
	_ "k8s.io/client-go/plugin/pkg/client/auth" // kubectl's authentication plugins.
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	"k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/util"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"

	"github.com/incumbent-io/incumbent/hack/localcluster/cluster"
)

// runComponent is the body of a child process of `up`. A Kubernetes component expects a process of its own: its command
// takes over the signals and the logging configuration, and may be built once.
func runComponent(name string, args []string) int {
	var command *cobra.Command
	switch name {
	case cluster.Etcd:
		return runEtcd(args)
	case cluster.APIServer:
		command = apiserver.NewAPIServerCommand()
	case cluster.ControllerManager:
		command = controllermanager.NewControllerManagerCommand()
	case cluster.Scheduler:
		command = scheduler.NewSchedulerCommand()
	default:
		fmt.Fprintf(os.Stderr, "unknown component %q\n", name)
		return 2
	}
	command.SetArgs(args)
	return cli.Run(command)
}

// runKubectl runs the embedded kubectl with the given arguments, as its own main does.
func runKubectl(args []string) {
	if os.Getenv("KUBECONFIG") == "" {
		// The cluster of this folder is the likeliest one to be meant; an explicit KUBECONFIG or --kubeconfig wins.
		path := filepath.Join(cluster.DefaultDataDir, cluster.KubeconfigName)
		if _, err := os.Stat(path); err == nil {
			os.Setenv("KUBECONFIG", path)
		}
	}
	// kubectl looks for its plugins and writes its usage lines by os.Args.
	os.Args = append([]string{"kubectl"}, args...)
	if err := cli.RunNoErrOutput(cmd.NewDefaultKubectlCommand()); err != nil {
		util.CheckErr(err)
	}
}
