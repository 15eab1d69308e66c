// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package manager

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/rest"
	"k8s.io/component-base/term"

	"github.com/incumbent-io/incumbent/pkg/options"
	"github.com/incumbent-io/incumbent/pkg/status"
)

// askTimeout bounds the question to one replica, with the connection to it.
const askTimeout = 10 * time.Second

// newStatusCommand shows what the replicas say of themselves.
func newStatusCommand(name string, line *options.CommandLine) *cobra.Command {
	var output string
	r := replicas{}
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show who leads, and what every controller does, on all replicas",
		Long: "Asks every replica for its status, and shows all of them as one picture.\n\n" +
			"It finds the Pods by --namespace and --selector, and connects to each by a port-forward\n" +
			"through the API server, or with --direct to the Pod's address, or it asks --address alone.\n" +
			"It sends the credentials of the kubeconfig: their user needs \"get\" on the nonResourceURL\n" +
			"/controllers, and for a port-forward \"create\" on pods/portforward. A client certificate\n" +
			"counts only if the manager runs with --client-ca-file; otherwise give --token.\n\n" +
			"The exit code is 1 if a replica did not answer, or none was found.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output != "text" && output != "json" {
				return fmt.Errorf("--output=%q is not a form of the status; use text or json", output)
			}
			opts, err := line.Load()
			if err != nil {
				return err
			}
			config, err := opts.Complete(func(string) string { return "" }) // it is not in the manager's Pod
			if err != nil {
				return err
			}
			r.rest, r.port = config.REST, config.Port
			snapshots, err := r.ask(cmd.Context())
			if len(snapshots) == 0 && err != nil {
				return err
			}
			if output == "json" {
				return errors.Join(printJSON(cmd.OutOrStdout(), snapshots), err)
			}
			columns, _, _ := term.TerminalSize(cmd.OutOrStdout())
			return errors.Join(status.WriteText(cmd.OutOrStdout(), columns, snapshots...), err)
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&output, "output", "o", "text", "Form of the status: text or json, which is a list with an object of each replica.")
	flags.StringVarP(&r.namespace, "namespace", "n", name+"-system", "Namespace of the manager's Pods.")
	flags.StringVarP(&r.selector, "selector", "l", "app.kubernetes.io/name="+name, "Label selector of the manager's Pods.")
	flags.BoolVar(&r.direct, "direct", false, "Connect to the Pods' addresses instead of by a port-forward.")
	flags.StringVar(&r.address, "address", "", "Ask this address alone, for instance https://10.0.0.7:10257, and look for no Pods.")
	flags.StringVar(&r.token, "token", "", "Bearer token to send instead of the kubeconfig's credentials.")
	flags.StringVar(&r.authority, "certificate-authority", "", "File of the CA of the replicas' certificates, for --direct and --address.")
	flags.BoolVar(&r.insecure, "insecure-skip-tls-verify", false, "With --direct and --address, do not verify the replicas' certificates: whoever answers gets the credentials.")
	return cmd
}

// replicas asks the replicas of a manager for their status.
type replicas struct {
	rest                *rest.Config
	port                int // where they serve, unless their Pods say otherwise
	namespace, selector string
	direct, insecure    bool
	address             string
	token, authority    string
}

// replica is one of them, and how to reach it.
type replica struct {
	name    string
	connect func(context.Context) (address string, disconnect func(), err error)
}

// ask returns what the replicas say. The error has a line for each that did not answer.
func (r *replicas) ask(ctx context.Context) ([]status.Snapshot, error) {
	if err := r.validate(); err != nil {
		return nil, err
	}
	all, err := r.find(ctx)
	if err != nil {
		return nil, err
	}
	snapshots, errs := make([]*status.Snapshot, len(all)), make([]error, len(all))
	var asked sync.WaitGroup
	for i, one := range all {
		asked.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, askTimeout)
			defer cancel()
			snapshot, err := r.askOne(ctx, one)
			if err != nil {
				errs[i] = fmt.Errorf("%s: %w", one.name, err)
			}
			snapshots[i] = snapshot
		})
	}
	asked.Wait()
	var answers []status.Snapshot
	for _, snapshot := range snapshots {
		if snapshot != nil {
			answers = append(answers, *snapshot)
		}
	}
	return answers, errors.Join(errs...)
}

// validate finds flags that do not go together.
func (r *replicas) validate() error {
	byItself := r.address != "" || r.direct
	switch {
	case r.address != "" && !strings.HasPrefix(r.address, "https://"):
		return fmt.Errorf("--address=%q is not an address of a manager; give it as https://HOST:PORT", r.address)
	case r.address != "" && r.direct:
		return errors.New("--address and --direct are two ways to say whom to ask; give one of them")
	case byItself && r.authority == "" && !r.insecure:
		return errors.New("--direct and --address need to know whom to trust with the credentials: give --certificate-authority=FILE, or --insecure-skip-tls-verify if the replicas' certificates are self-signed and the network is yours")
	case !byItself && (r.authority != "" || r.insecure):
		return errors.New("--certificate-authority and --insecure-skip-tls-verify go with --direct or --address; a port-forward is secured by the API server")
	}
	return nil
}
