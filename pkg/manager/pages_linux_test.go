// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package manager

import (
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestOnlyUnchangedPagesOfTheProgramAreReleased(t *testing.T) {
	const smaps = `00400000-00500000 r-xp 00000000 fe:00 42                                 /bin/manager
Rss:                1024 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me
00500000-00600000 r-xp 00100000 fe:00 42                                 /bin/manager
Anonymous:             4 kB
00600000-00700000 rw-p 00200000 fe:00 42                                 /bin/manager
Anonymous:             0 kB
00700000-00800000 r--p 00200000 fe:00 43                                 /lib/libc.so
Anonymous:             0 kB
00800000-00900000 rw-p 00000000 00:00 0
Anonymous:             0 kB
00900000-00a80000 r--p 00300000 fe:00 42                                 /bin/manager
VmFlags: rd mr mw me sd
Anonymous:             0 kB
`
	got, err := unchanged(strings.NewReader(smaps), "/bin/manager")
	if err != nil {
		t.Fatal(err)
	}
	want := []memoryMapping{{0x400000, 0x100000}, {0x900000, 0x180000}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(memoryMapping{})); diff != "" {
		t.Errorf("mappings (-want +got):\n%s", diff)
	}
}

func TestReleaseOfTheProgramMakesItSmaller(t *testing.T) {
	before := residentFile(t)
	if err := releaseProgram(); err != nil {
		t.Fatal(err)
	}
	if after := residentFile(t); after >= before {
		t.Errorf("resident of files: %d kB before, %d kB after", before, after)
	}
}

// residentFile is what is resident of files, in kB.
func residentFile(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	match := regexp.MustCompile(`RssFile:\s+(\d+) kB`).FindSubmatch(status)
	if match == nil {
		t.Skip("the kernel does not tell what is resident of files")
	}
	n, _ := strconv.Atoi(string(match[1]))
	return n
}
