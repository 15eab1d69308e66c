// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package main

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"github.com/incumbent-io/incumbent/hack/localcluster/cluster"
)

// faultCommand is the client of the control socket of a running cluster.
func faultCommand() *cobra.Command {
	var data string
	call := func(c *cobra.Command, method string, query url.Values, path ...string) error {
		target := ""
		for _, p := range path {
			target += "/" + url.PathEscape(p)
		}
		answer, err := cluster.Call(c.Context(), data, method, target+"?"+query.Encode())
		if err == nil {
			fmt.Fprintln(c.OutOrStdout(), answer)
		}
		return err
	}

	fault := &cobra.Command{Use: "fault", Short: "Make something fail in a running cluster, or show what runs"}
	fault.PersistentFlags().StringVar(&data, "data", cluster.DefaultDataDir, "the data folder of the cluster")

	component := &cobra.Command{
		Use:   "component NAME ACTION",
		Short: "Kill, stop, continue, restart or start a component",
		Long: `NAME is one of apiserver, etcd, kcm, scheduler. ACTION is one of
  kill     SIGKILL; it stays down until start
  restart  SIGKILL, and start it again
  start    start it after a kill
  stop     SIGSTOP
  cont     SIGCONT`,
		Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			return call(c, http.MethodPost, nil, "components", args[0], args[1])
		},
	}

	var container string
	pod := &cobra.Command{
		Use:   "pod NAMESPACE/NAME ACTION [ARGUMENTS]",
		Short: "Send a signal to a Pod's process, or disturb its network to the API server",
		Long: `ACTION is one of
  kill     SIGKILL to the container's process; it is restarted as its restart policy says
  stop     SIGSTOP
  cont     SIGCONT
  pid      print the id of the process
  net heal                    end all faults of the network between the Pod and the API server
  net refuse                  reset all connections, new ones too
  net drop                    let nothing pass; connections stay open, new ones are accepted but silent
  net drop-requests           let no request pass
  net drop-responses          let requests pass, but no response
  net delay-requests DURATION   deliver requests later, as in 300ms
  net delay-responses DURATION  deliver responses later`,
		Args: cobra.RangeArgs(2, 4),
		RunE: func(c *cobra.Command, args []string) error {
			namespace, name, ok := strings.Cut(args[0], "/")
			if !ok {
				namespace, name = "default", args[0]
			}
			query := url.Values{"container": {container}}
			switch action, rest := args[1], args[2:]; {
			case action == "pid" && len(rest) == 0:
				return call(c, http.MethodGet, query, "pods", namespace, name, "pid")
			case action == "net" && len(rest) > 0:
				if len(rest) > 1 {
					query.Set("duration", rest[1])
				}
				return call(c, http.MethodPost, query, "pods", namespace, name, "net", rest[0])
			case action != "net" && len(rest) == 0:
				return call(c, http.MethodPost, query, "pods", namespace, name, action)
			}
			return fmt.Errorf("wrong number of arguments for %q; see --help", args[1])
		},
	}
	pod.Flags().StringVarP(&container, "container", "c", "", "the container (default: the first)")

	status := &cobra.Command{
		Use:   "status",
		Short: "Print the components and the Pods with their processes and faults, as JSON",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return call(c, http.MethodGet, nil, "status")
		},
	}
	fault.AddCommand(component, pod, status)
	return fault
}
