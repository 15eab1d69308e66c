// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package main

import (
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/pflag"
	"go.etcd.io/etcd/server/v3/embed"
)

// runEtcd runs one etcd member until SIGTERM. Nothing is synced to disk: the cluster is a development tool, a killed
// process loses nothing (the page cache survives it), and only a crash of the machine would.
func runEtcd(args []string) int {
	cfg := embed.NewConfig()
	var client, peer string
	fs := pflag.NewFlagSet("etcd", pflag.ContinueOnError)
	fs.StringVar(&cfg.Dir, "data-dir", "", "the folder of the database")
	fs.StringVar(&client, "client-url", "", "the URL that serves clients")
	fs.StringVar(&peer, "peer-url", "", "the URL for peers; there are none, but a member needs one")
	fs.StringVar(&cfg.ClientTLSInfo.CertFile, "cert-file", "", "the serving certificate")
	fs.StringVar(&cfg.ClientTLSInfo.KeyFile, "key-file", "", "its key")
	fs.StringVar(&cfg.ClientTLSInfo.TrustedCAFile, "trusted-ca-file", "", "the CA of the clients")
	if err := fs.Parse(args); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	cfg.Name = "localcluster"
	cfg.ClientTLSInfo.ClientCertAuth = true
	cfg.PeerTLSInfo = cfg.ClientTLSInfo
	cfg.UnsafeNoFsync = true
	cfg.LogLevel = "warn"
	cfg.LogOutputs = []string{"stderr"}
	cfg.QuotaBackendBytes = 8 << 30
	for _, u := range []struct {
		text string
		urls []*[]url.URL
	}{
		{client, []*[]url.URL{&cfg.ListenClientUrls, &cfg.AdvertiseClientUrls}},
		{peer, []*[]url.URL{&cfg.ListenPeerUrls, &cfg.AdvertisePeerUrls}},
	} {
		parsed, err := url.Parse(u.text)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 2
		}
		for _, list := range u.urls {
			*list = []url.URL{*parsed}
		}
	}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)

	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	member, err := embed.StartEtcd(cfg)
	if err != nil {
		fmt.Fprintln(os.Stderr, "etcd:", err)
		return 1
	}
	select {
	case <-member.Server.ReadyNotify():
	case <-time.After(60 * time.Second):
		fmt.Fprintln(os.Stderr, "etcd: not ready after 60 s")
		return 1
	case <-stop:
		return 0
	}
	select {
	case err := <-member.Err():
		fmt.Fprintln(os.Stderr, "etcd:", err)
		return 1
	case <-stop:
		// No Close: it waits for the API server's watches to end, and there is nothing to save.
		return 0
	}
}
