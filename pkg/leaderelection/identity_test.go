// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package leaderelection

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/go-logr/logr/funcr"
)

// holdIdentityEnv makes the test binary a process that opens the identity file
// in that directory, prints its identity, and waits to be killed.
const holdIdentityEnv = "INCUMBENT_TEST_HOLD_IDENTITY"

func holdIdentity(dir string) {
	id, err := OpenIdentity(IdentityConfig{PodName: "pod", PodUID: "uid", Dir: dir})
	if err != nil {
		panic(err)
	}
	fmt.Println(id, id.CanReclaim())
	_, _ = os.Stdin.Read(make([]byte, 1))
}

// openLogged opens an identity and returns what was logged.
func openLogged(t *testing.T, dir string) (*Identity, string) {
	t.Helper()
	var log strings.Builder
	id, err := OpenIdentity(IdentityConfig{PodName: "pod", PodUID: "uid", Dir: dir,
		Logger: funcr.New(func(prefix, args string) { log.WriteString(prefix + args + "\n") }, funcr.Options{})})
	if err != nil {
		t.Fatal(err)
	}
	closeIdentity(t, id)
	return id, log.String()
}

func TestIdentityPattern(t *testing.T) {
	id, err := OpenIdentity(IdentityConfig{PodName: "manager-7d9f-abc", PodUID: "0b6c-11"})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(id.String(), "manager-7d9f-abc_0b6c-11_inc1-") || !isOurs(id.String()) || id.CanReclaim() {
		t.Errorf("identity %q, reclaim %v", id, id.CanReclaim())
	}
	host, err := OpenIdentity(IdentityConfig{})
	if err != nil {
		t.Fatal(err)
	}
	if !isOurs(host.String()) || !strings.Contains(host.String(), "_-_inc1-") {
		t.Errorf("identity %q", host)
	}
	if _, err := OpenIdentity(IdentityConfig{PodName: "a_b"}); err == nil {
		t.Error("a pod name with an underscore was accepted")
	}
	for _, stock := range []string{"", "host", "host_4f1c7e3a-9d1f-4a55-8d1c-5d4e9a4e1f00", "a_b_inc1-short", "a_b_inc1-AAAAAAAAAAAAAAAAAAAAAAAAAA",
		"x_" + oursA, oursA + "_x", strings.Replace(oursA, "inc1", "inc2", 1)} {
		if isOurs(stock) {
			t.Errorf("%q passes for ours", stock)
		}
	}
}

func TestIdentityStateIsBounded(t *testing.T) {
	var s identityState
	for i := range 100 {
		s.add(fmt.Sprintf("%s_%s_inc1-%026d", strings.Repeat("p", 253), strings.Repeat("u", 36), i))
		s.Reclaims = append(s.Reclaims, int64(i))
	}
	block, err := s.encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := decodeIdentityState(block)
	if err != nil {
		t.Fatal(err)
	}
	if len(block) != identityBlock || len(got.Identities) != maxIdentities || len(got.Reclaims) != maxReclaims || !strings.HasSuffix(got.Identities[maxIdentities-1], "99") {
		t.Errorf("%d bytes, %d identities, reclaims %v", len(block), len(got.Identities), got.Reclaims)
	}
	block[100] ^= 1
	if _, err := decodeIdentityState(block); err == nil {
		t.Error("a changed byte was not noticed")
	}
	if s, err := decodeIdentityState(nil); err != nil || len(s.Identities) != 0 {
		t.Errorf("an empty file: %v, %v", s, err)
	}
}
