// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package manager

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/component-base/term"

	"github.com/incumbent-io/incumbent/pkg/options"
	"github.com/incumbent-io/incumbent/pkg/status"
)

// statusTimeout bounds the status subcommand.
const statusTimeout = 10 * time.Second

// flawedError says what is wrong in a picture that was printed. The exit code of the
// process is 2 then.
type flawedError struct{ error }

func (e *flawedError) Unwrap() error { return e.error }

// statusFlags are the flags of the status subcommand.
type statusFlags struct {
	kubeconfig, context string
	namespace, selector string
	addresses           []string
	port                int
	direct              bool
	tokenFile           string
	tls                 trust
}

// newStatusCommand shows what runs where.
func newStatusCommand(name string) *cobra.Command {
	f := statusFlags{selector: "app.kubernetes.io/name=" + name, port: options.DefaultSecurePort}
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show who leads and what every controller does, on all replicas",
		Long: "Asks every replica for its status and prints one picture: who leads each lease group since\n" +
			"when and under which epoch, how fresh the lease is, and the state of each controller.\n\n" +
			"The replicas are the Pods with the labels of --selector in --namespace. The API server forwards\n" +
			"the connections to them (which takes the permission to create pods/portforward), or with --direct\n" +
			"they go to the Pods' addresses; --address names replicas outside of Pods. Each replica gets the\n" +
			"credentials of the kubeconfig file, or those of --token-file, whose user must be allowed to get\n" +
			"the nonResourceURL /controllers.\n\n" +
			"Exit codes: 0, all is as it should be; 1, nothing could be shown; 2, a replica did not answer,\n" +
			"or a lease group does not have one leader.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f.kubeconfig = cmd.Flag("kubeconfig").Value.String()
			ctx, cancel := context.WithTimeout(cmd.Context(), statusTimeout)
			defer cancel()
			answers, err := f.ask(ctx)
			if err != nil {
				return err
			}
			columns, _, _ := term.TerminalSize(cmd.OutOrStdout()) // 0 where it is none
			picture, flaws := assemble(answers, len(f.addresses) == 0)
			if len(picture) == 0 {
				return errors.Join(flaws...)
			}
			if err := status.WriteText(cmd.OutOrStdout(), columns, picture...); err != nil {
				return err
			}
			if len(flaws) > 0 {
				return &flawedError{errors.Join(flaws...)}
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.context, "context", f.context, "Context of the kubeconfig file to use. Default: its current one.")
	flags.StringVarP(&f.namespace, "namespace", "n", f.namespace, "Namespace of the Pods. Default: that of the kubeconfig file.")
	flags.StringVarP(&f.selector, "selector", "l", f.selector, "Labels of the Pods.")
	flags.StringSliceVar(&f.addresses, "address", f.addresses, "HOST:PORT of a replica to ask instead of Pods; may be given several times.")
	flags.IntVar(&f.port, "port", f.port, "Port of Pods without a container port called https.")
	flags.BoolVar(&f.direct, "direct", f.direct, "Connect to the addresses of the Pods (status.podIP) instead of through the API server.")
	flags.StringVar(&f.tokenFile, "token-file", f.tokenFile, "File with the bearer token to send to the replicas, instead of the kubeconfig file's credentials.")
	flags.StringVar(&f.tls.caFile, "certificate-authority", f.tls.caFile, "File with the CA of the replicas' certificates. Only for --direct and --address, which by default trust the CAs of the system.")
	flags.StringVar(&f.tls.serverName, "tls-server-name", f.tls.serverName, "Name that the replicas' certificates have. Only for --direct and --address, which by default expect the address.")
	flags.BoolVar(&f.tls.insecure, "insecure-skip-tls-verify", f.tls.insecure, "Trust any certificate. Whoever answers gets the credentials. Only for --direct and --address.")
	return cmd
}

// ask finds the replicas and asks them.
func (f *statusFlags) ask(ctx context.Context) ([]answer, error) {
	if err := f.validate(); err != nil {
		return nil, err
	}
	config, namespace, err := f.restConfig()
	if err != nil {
		return nil, err
	}
	var replicas []replica
	for _, address := range f.addresses {
		replicas = append(replicas, replica{name: address, address: address})
	}
	if len(f.addresses) == 0 {
		client, err := kubernetes.NewForConfig(config)
		if err != nil {
			return nil, err
		}
		pods := finder{config: config, client: client, namespace: namespace, selector: f.selector, port: f.port, direct: f.direct}
		if replicas, err = pods.find(ctx); err != nil {
			return nil, err
		}
	}
	credentials := config
	if f.tokenFile != "" {
		credentials = &rest.Config{BearerTokenFile: f.tokenFile}
	}
	return (&asker{credentials: credentials, tls: f.tls}).askAll(ctx, replicas), nil
}

func (f *statusFlags) validate() error {
	var errs []error
	for _, address := range f.addresses {
		host, port, err := net.SplitHostPort(address)
		if number, parse := strconv.ParseUint(port, 10, 16); err != nil || parse != nil || number == 0 || host == "" {
			errs = append(errs, fmt.Errorf("--address=%q is not an address; use HOST:PORT", address))
		}
	}
	if len(f.addresses) > 0 && f.direct {
		errs = append(errs, errors.New("--direct is about the addresses of Pods; it does not go with --address"))
	}
	own := f.tls != trust{}
	if own && len(f.addresses) == 0 && !f.direct {
		errs = append(errs, errors.New("--certificate-authority, --tls-server-name and --insecure-skip-tls-verify go with --direct or --address; a connection that the API server forwards needs none of them"))
	}
	if f.tls.insecure && f.tls.caFile != "" {
		errs = append(errs, errors.New("--insecure-skip-tls-verify and --certificate-authority exclude each other; give one of them"))
	}
	if f.port < 1 || f.port > 65535 {
		errs = append(errs, fmt.Errorf("--port=%d is not a port; use 1 to 65535", f.port))
	}
	return errors.Join(errs...)
}

// restConfig returns how to reach the API server, and the namespace of the Pods. By
// default it looks where kubectl does. With --address and --token-file it is empty.
func (f *statusFlags) restConfig() (*rest.Config, string, error) {
	if len(f.addresses) > 0 && f.tokenFile != "" {
		return &rest.Config{}, "", nil
	}
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = f.kubeconfig
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: f.context})
	config, err := loader.ClientConfig()
	if err != nil {
		return nil, "", fmt.Errorf("no usable kubeconfig: %w; pass --kubeconfig=PATH, or --address=HOST:PORT with --token-file=PATH", err)
	}
	namespace, _, err := loader.Namespace()
	if err != nil {
		return nil, "", err
	}
	config.UserAgent = "incumbent-status/" + options.Version()
	return config, cmp.Or(f.namespace, namespace), nil
}

// assemble returns what the replicas say, and what is wrong with the whole. all says
// that there are no replicas beside those that were asked.
func assemble(answers []answer, all bool) (picture []status.Snapshot, flaws []error) {
	for _, a := range answers {
		if a.err != nil {
			flaws = append(flaws, fmt.Errorf("%s: %w", a.replica, a.err))
			all = false
			continue
		}
		picture = append(picture, a.snapshot)
	}
	return picture, append(flaws, leaderless(picture, all)...)
}

// leaderless returns an error for each lease group that replicas compete for and that
// does not have one leader, as far as can be told.
func leaderless(picture []status.Snapshot, all bool) (flaws []error) {
	type seats struct {
		elsewhere bool // somebody who was not asked may lead
		leaders   []string
	}
	groups, answered := map[string]*seats{}, map[string]bool{}
	for _, s := range picture {
		answered[s.Identity] = true
	}
	var names []string
	for _, s := range picture {
		for _, g := range s.Groups {
			if g.Lease == "" || g.State == status.Idle {
				continue
			}
			if groups[g.Name] == nil {
				groups[g.Name] = &seats{}
				names = append(names, g.Name)
			}
			seat := groups[g.Name]
			if g.State == status.Leader {
				seat.leaders = append(seat.leaders, s.Identity)
			}
			seat.elsewhere = seat.elsewhere || !all && g.Holder != "" && !answered[g.Holder]
		}
	}
	slices.Sort(names)
	for _, name := range names {
		switch seat := groups[name]; {
		case len(seat.leaders) > 1:
			flaws = append(flaws, fmt.Errorf("the lease group %q had %d leaders while the replicas were asked, one after the other: %s; if that stays so, look at the Lease and at the clocks", name, len(seat.leaders), strings.Join(seat.leaders, ", ")))
		case len(seat.leaders) == 0 && !seat.elsewhere:
			flaws = append(flaws, fmt.Errorf("nobody leads the lease group %q", name))
		}
	}
	return flaws
}
