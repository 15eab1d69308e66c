// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
)

// ports are the addresses of one cluster, kept in its data folder.
type ports struct {
	APIServer         int `json:"apiserver"`
	EtcdClient        int `json:"etcdClient"`
	EtcdPeer          int `json:"etcdPeer"`
	ControllerManager int `json:"controllerManager"`
	Scheduler         int `json:"scheduler"`
	// Network is the second byte of the nodes' and the Pods' addresses: 127.<Network>.0.0/16.
	Network byte `json:"network"`
}

// loadPorts reads the ports that a kept cluster had, or chooses free ones.
func loadPorts(file string) (ports, error) {
	var p ports
	content, err := os.ReadFile(file)
	if err == nil {
		return p, json.Unmarshal(content, &p)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return p, err
	}
	for _, port := range []*int{&p.APIServer, &p.EtcdClient, &p.EtcdPeer, &p.ControllerManager, &p.Scheduler} {
		if *port, err = freePort(); err != nil {
			return p, err
		}
	}
	if p.Network, err = freeNetwork(); err != nil {
		return p, err
	}
	content, err = json.Marshal(p)
	if err != nil {
		return p, err
	}
	return p, os.WriteFile(file, content, 0o644)
}

// freePort returns a port below the range from which the kernel takes the source ports of outgoing connections: in
// that range, one of them could hold the port while a fault keeps its component down.
func freePort() (int, error) {
	const low, high = 20000, 32000
	for range 200 {
		port := low + rand.IntN(high-low)
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			return port, l.Close()
		}
	}
	return 0, errors.New("found no free port on 127.0.0.1")
}

// freeNetwork returns a network in which no other local cluster has its nodes.
func freeNetwork() (byte, error) {
	for range 200 {
		network := byte(16 + rand.IntN(224))
		if l, err := net.Listen("tcp", fmt.Sprintf("127.%d.0.1:%d", network, kubeletPort)); err == nil {
			return network, l.Close()
		}
	}
	return 0, fmt.Errorf("found no network of 127.0.0.0/8 in which port %d is free", kubeletPort)
}
