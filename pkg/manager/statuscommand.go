// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package manager

import (
	"context"
	"errors"
	"fmt"
	"io"
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
	kubeconfig          string
	namespace, selector string
	addresses           []string
	port                int
	direct              bool
	token, tokenFile    string
	tls                 trust
	output              string
}

// newStatusCommand shows what runs where.
func newStatusCommand(name string) *cobra.Command {
	f := statusFlags{namespace: name + "-system", selector: "app.kubernetes.io/name=" + name, output: "text"}
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show who leads, and what every controller does, on all replicas",
		Long: "Asks every replica for its status, and shows all of them as one picture: who leads each lease\n" +
			"group since when and under which epoch, how fresh the lease is, and the state of each controller.\n\n" +
			"It finds the Pods by --namespace and --selector, and connects to each by a port-forward\n" +
			"through the API server, or with --direct to the Pod's address, or it asks --address alone.\n" +
			"It sends the credentials of the kubeconfig file (--kubeconfig, or else where kubectl looks):\n" +
			"their user needs \"get\" on the nonResourceURL /controllers, \"list\" on pods, and for a port-forward\n" +
			"\"create\" on pods/portforward. A client certificate counts only if the manager knows its CA\n" +
			"(--client-ca-file); otherwise give --token or --token-file.\n\n" +
			"Exit codes: 0, all is as it should be; 1, nothing could be shown; 2, a replica did not answer,\n" +
			"or a lease group does not have one leader.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f.kubeconfig = cmd.Flag("kubeconfig").Value.String()
			if _, err := fmt.Sscan(cmd.Flag("secure-port").Value.String(), &f.port); err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), statusTimeout)
			defer cancel()
			answers, err := f.ask(ctx)
			if err != nil {
				return err
			}
			picture, flaws := assemble(answers, len(f.addresses) == 0)
			if len(picture) == 0 {
				return errors.Join(flaws...)
			}
			if err := f.print(cmd.OutOrStdout(), picture); err != nil {
				return err
			}
			if len(flaws) > 0 {
				return &flawedError{errors.Join(flaws...)}
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&f.output, "output", "o", f.output, "Form of the status: text or json, which is a list with an object of each replica.")
	flags.StringVarP(&f.namespace, "namespace", "n", f.namespace, "Namespace of the manager's Pods.")
	flags.StringVarP(&f.selector, "selector", "l", f.selector, "Label selector of the manager's Pods.")
	flags.BoolVar(&f.direct, "direct", f.direct, "Connect to the Pods' addresses instead of by a port-forward.")
	flags.StringSliceVar(&f.addresses, "address", f.addresses, "Ask this address alone, for instance 10.0.0.7:10257, and look for no Pods. May be given several times.")
	flags.StringVar(&f.token, "token", f.token, "Bearer token to send to the replicas instead of the kubeconfig's credentials.")
	flags.StringVar(&f.tokenFile, "token-file", f.tokenFile, "File of the bearer token to send to the replicas: unlike --token, it shows in no list of processes.")
	flags.StringVar(&f.tls.caFile, "certificate-authority", f.tls.caFile, "File of the CA of the replicas' certificates, for --direct and --address.")
	flags.StringVar(&f.tls.serverName, "tls-server-name", f.tls.serverName, "Name in the replicas' certificates, for --direct and --address. Default: the address.")
	flags.BoolVar(&f.tls.insecure, "insecure-skip-tls-verify", f.tls.insecure, "With --direct and --address, do not verify the replicas' certificates: whoever answers gets the credentials.")
	return cmd
}

// print writes what the replicas say.
func (f *statusFlags) print(out io.Writer, picture []status.Snapshot) error {
	if f.output == "json" {
		return printJSON(out, picture)
	}
	columns, _, _ := term.TerminalSize(out) // 0 where it is no terminal
	return status.WriteText(out, columns, picture...)
}

// ask finds the replicas and asks them.
func (f *statusFlags) ask(ctx context.Context) ([]answer, error) {
	if err := f.validate(); err != nil {
		return nil, err
	}
	config, err := f.restConfig()
	if err != nil {
		return nil, err
	}
	var replicas []replica
	for _, address := range f.addresses {
		replicas = append(replicas, replica{name: address, address: hostPort(address)})
	}
	if len(f.addresses) == 0 {
		client, err := kubernetes.NewForConfig(config)
		if err != nil {
			return nil, err
		}
		pods := finder{config: config, client: client, namespace: f.namespace, selector: f.selector, port: f.port, direct: f.direct}
		if replicas, err = pods.find(ctx); err != nil {
			return nil, err
		}
	}
	credentials := config
	if f.ownToken() {
		credentials = &rest.Config{BearerToken: f.token, BearerTokenFile: f.tokenFile}
	}
	return (&asker{credentials: credentials, tls: f.tls}).askAll(ctx, replicas), nil
}

// hostPort is the HOST:PORT of an address that may be given as a URL, too.
func hostPort(address string) string {
	return strings.TrimSuffix(strings.TrimPrefix(address, "https://"), "/")
}

// ownToken reports whether the replicas get another token than the API server.
func (f *statusFlags) ownToken() bool { return f.token != "" || f.tokenFile != "" }

// validate returns every mistake in the flags.
func (f *statusFlags) validate() error {
	var errs []error
	if f.output != "text" && f.output != "json" {
		errs = append(errs, fmt.Errorf("--output=%q is not a form of the status; use text or json", f.output))
	}
	for _, address := range f.addresses {
		host, port, err := net.SplitHostPort(hostPort(address))
		if number, parse := strconv.ParseUint(port, 10, 16); err != nil || parse != nil || number == 0 || host == "" {
			errs = append(errs, fmt.Errorf("--address=%q is not an address of a manager; give it as HOST:PORT", address))
		}
	}
	byItself := len(f.addresses) > 0 || f.direct
	switch known := f.tls.caFile != "" || f.tls.insecure; {
	case len(f.addresses) > 0 && f.direct:
		errs = append(errs, errors.New("--address and --direct are two ways to say whom to ask; give one of them"))
	case byItself && !known:
		errs = append(errs, errors.New("--direct and --address need to know whom to trust with the credentials: give --certificate-authority=FILE, or --insecure-skip-tls-verify if the replicas' certificates are self-signed and the network is yours"))
	case !byItself && f.tls != trust{}:
		errs = append(errs, errors.New("--certificate-authority, --tls-server-name and --insecure-skip-tls-verify go with --direct or --address; a port-forward is secured by the API server"))
	}
	if f.tls.insecure && f.tls.caFile != "" {
		errs = append(errs, errors.New("--insecure-skip-tls-verify and --certificate-authority exclude each other; give one of them"))
	}
	if f.token != "" && f.tokenFile != "" {
		errs = append(errs, errors.New("--token and --token-file exclude each other; give one of them"))
	}
	return errors.Join(errs...)
}

// restConfig returns how to reach the API server, or who to be for the replicas; it is
// empty if neither is needed.
func (f *statusFlags) restConfig() (*rest.Config, error) {
	if len(f.addresses) > 0 && f.ownToken() {
		return &rest.Config{}, nil
	}
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = f.kubeconfig
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("no usable kubeconfig: %w; pass --kubeconfig=PATH, or --address=HOST:PORT with --token-file=PATH", err)
	}
	config.UserAgent = "incumbent-status/" + options.Version()
	return config, nil
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
