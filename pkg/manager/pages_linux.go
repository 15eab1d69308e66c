// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package manager

import (
	"bufio"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// releaseProgram unmaps the pages of the program file: a thousand packages have made
// themselves ready, the kernel maps 64 KiB around each byte that they touch, and a quarter
// of that is never touched again. What is needed is mapped again from the page cache, in
// microseconds. It saves no disk cache, but what is resident says what is in use, and
// memory requests are made from that. An error leaves everything as it was.
func releaseProgram() error {
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return err
	}
	file, err := os.Open("/proc/self/smaps")
	if err != nil {
		return err
	}
	defer file.Close()
	mappings, err := unchanged(file, program)
	if err != nil {
		return err
	}
	for _, m := range mappings {
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, m.start, m.length, unix.MADV_DONTNEED); errno != 0 {
			return os.NewSyscallError("madvise", errno)
		}
	}
	return nil
}

type memoryMapping struct{ start, length uintptr }

// unchanged returns the mappings of a file that hold what the file holds: they cannot be
// written to, and no page of theirs was changed before that. Any other would lose its
// content.
func unchanged(smaps io.Reader, path string) (list []memoryMapping, err error) {
	var candidate memoryMapping
	lines := bufio.NewScanner(smaps)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		switch {
		case len(fields) == 6 && fields[5] == path && fields[1][1] == '-':
			if candidate, err = parseMapping(fields[0]); err != nil {
				return nil, err
			}
		case len(fields) >= 5 && strings.Contains(fields[0], "-"): // another mapping
			candidate = memoryMapping{}
		case len(fields) == 3 && fields[0] == "Anonymous:" && fields[1] == "0" && candidate.length > 0:
			list = append(list, candidate)
		}
	}
	return list, lines.Err()
}

// parseMapping parses addresses such as 00400000-01884000.
func parseMapping(addresses string) (memoryMapping, error) {
	first, last, _ := strings.Cut(addresses, "-")
	start, err := strconv.ParseUint(first, 16, 64)
	if err != nil {
		return memoryMapping{}, err
	}
	end, err := strconv.ParseUint(last, 16, 64)
	return memoryMapping{uintptr(start), uintptr(end - start)}, err
}
