// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

//go:build linux

package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// probeKind is what a probe decides about.
type probeKind string

const (
	startupProbe   probeKind = "Startup"
	livenessProbe  probeKind = "Liveness"
	readinessProbe probeKind = "Readiness"
)

// probeSettle keeps the first probe from always meeting a program that has not begun to listen. A kubelet probes a new
// container a little after its start as well.
const probeSettle = 100 * time.Millisecond

// threshold turns single results into a verdict: it changes after so many equal results in a row.
type threshold struct {
	success, failure int32
	last             bool
	run              int32
}

// observe adds a result; decided is false until the run is long enough.
func (t *threshold) observe(ok bool) (decided bool) {
	if t.run == 0 || ok != t.last {
		t.last, t.run = ok, 0
	}
	t.run++
	if ok {
		return t.run >= t.success
	}
	return t.run >= t.failure
}

// runProbe probes one process of a container until ctx ends. verdict is called with each result that counts, and
// ends the probing by returning false. report is called with the reason of each failure.
func (c *container) runProbe(ctx context.Context, kind probeKind, p *corev1.Probe, verdict func(ok bool) bool, report func(reason string)) {
	if !sleep(ctx, probeSettle+time.Duration(p.InitialDelaySeconds)*time.Second) {
		return
	}
	ticker := time.NewTicker(time.Duration(max(p.PeriodSeconds, 1)) * time.Second)
	defer ticker.Stop()
	t := threshold{success: max(p.SuccessThreshold, 1), failure: max(p.FailureThreshold, 1)}
	for {
		timeout := time.Duration(max(p.TimeoutSeconds, 1)) * time.Second
		attempt, cancel := context.WithTimeout(ctx, timeout)
		err := c.handle(attempt, p.ProbeHandler)
		cancel()
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			report(fmt.Sprintf("%s probe failed: %v", kind, err))
		}
		if t.observe(err == nil) && !verdict(err == nil) {
			return
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// handle does once what a probe asks for.
func (c *container) handle(ctx context.Context, h corev1.ProbeHandler) error {
	switch {
	case h.HTTPGet != nil:
		return c.httpGet(ctx, h.HTTPGet)
	case h.TCPSocket != nil:
		return c.tcpConnect(ctx, h.TCPSocket)
	case h.Exec != nil:
		return c.execProbe(ctx, h.Exec.Command)
	}
	return errors.New("this kind of probe is not supported by a process node")
}

// port resolves the name of a port.
func (c *container) port(p intstr.IntOrString) (int, error) {
	if p.Type == intstr.Int {
		return p.IntValue(), nil
	}
	for _, named := range c.spec.Ports {
		if named.Name == p.StrVal {
			return int(named.ContainerPort), nil
		}
	}
	if n, err := strconv.Atoi(p.StrVal); err == nil {
		return n, nil
	}
	return 0, fmt.Errorf("container %q has no port named %q", c.spec.Name, p.StrVal)
}

func (c *container) hostPort(host string, p intstr.IntOrString) (string, error) {
	port, err := c.port(p)
	if err != nil {
		return "", err
	}
	if host == "" {
		host = c.worker.ip
	}
	return net.JoinHostPort(host, strconv.Itoa(port)), nil
}

func (c *container) httpGet(ctx context.Context, action *corev1.HTTPGetAction) error {
	address, err := c.hostPort(action.Host, action.Port)
	if err != nil {
		return err
	}
	target, err := url.Parse(action.Path)
	if err != nil {
		target = &url.URL{Path: action.Path}
	}
	target.Scheme, target.Host = "http", address
	if action.Scheme != "" {
		target.Scheme = strings.ToLower(string(action.Scheme))
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return err
	}
	request.Header.Set("User-Agent", "kube-probe/localcluster")
	request.Header.Set("Accept", "*/*")
	for _, h := range action.HTTPHeaders {
		if strings.EqualFold(h.Name, "Host") {
			request.Host = h.Value
			continue
		}
		request.Header.Add(h.Name, h.Value)
	}
	client := &http.Client{
		Transport: &http.Transport{
			DisableKeepAlives: true,
			// A probe asks whether the container answers, not who it is; a kubelet does not verify either.
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		},
		CheckRedirect: func(next *http.Request, via []*http.Request) error {
			if next.URL.Hostname() != target.Hostname() || len(via) >= 10 {
				return http.ErrUseLastResponse
			}
			return nil
		},
	}
	defer client.CloseIdleConnections()
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode < 200 || response.StatusCode >= 400 {
		return fmt.Errorf("HTTP probe failed with statuscode: %d", response.StatusCode)
	}
	return nil
}

func (c *container) tcpConnect(ctx context.Context, action *corev1.TCPSocketAction) error {
	address, err := c.hostPort(action.Host, action.Port)
	if err != nil {
		return err
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return conn.Close()
}

func (c *container) execProbe(ctx context.Context, argv []string) error {
	var output strings.Builder
	if err := c.exec(ctx, argv, nil, &output, &output); err != nil {
		if text := strings.TrimSpace(output.String()); text != "" {
			return fmt.Errorf("%s", text)
		}
		return fmt.Errorf("command %q: %w", argv, err)
	}
	return nil
}

// runHook does what a lifecycle handler asks for.
func (c *container) runHook(ctx context.Context, h *corev1.LifecycleHandler) error {
	switch {
	case h.Sleep != nil:
		sleep(ctx, time.Duration(h.Sleep.Seconds)*time.Second)
		return ctx.Err()
	case h.HTTPGet != nil:
		return c.httpGet(ctx, h.HTTPGet)
	case h.Exec != nil:
		return c.execProbe(ctx, h.Exec.Command)
	}
	return errors.New("this kind of lifecycle hook is not supported by a process node")
}
