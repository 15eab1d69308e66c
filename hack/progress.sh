#!/usr/bin/env bash
# progress.sh NAME go build ...: runs a build and shows how far it is.
set -euo pipefail
name=$1
shift
started=$SECONDS
packages=$(go list -deps "${@: -1}" | wc -l)
printf '==> building %s (%d packages; those in the build cache take no time)\n' "$name" "$packages"
# go build -v names each package that it compiles, on stderr.
{ "$1" "$2" -v "${@:3}" 2>&1 >&3 | awk -v name="$name" -v total="$packages" '
	/^[a-zA-Z0-9_.\/~-]+$/ { if (++n % 100 == 0) printf "    %s: %d of %d packages compiled\n", name, n, total; fflush(); next }
	{ print > "/dev/stderr" }'; } 3>&1
printf '==> built %s in %ds\n' "$name" $((SECONDS - started))
