#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Copyright The Incumbent Authors.
#
# build.sh OUT builds the localcluster program and shows how far it is: all of Kubernetes takes minutes the first time.
# It needs bash, coreutils and go. It does nothing when OUT is newer than everything it is made of.
set -euo pipefail

if [ $# -ne 1 ]; then
	echo "usage: build.sh OUT" >&2
	exit 2
fi
mkdir -p "$(dirname "$1")"
out=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
cd "$(dirname "${BASH_SOURCE[0]}")"

kubernetes=v1.36.3 # as in go.mod; the components report it
shopt -s nullglob

up_to_date() {
	[ -x "$out" ] || return 1
	local file
	for file in . */ go.mod go.sum build.sh *.go */*.go; do
		case $file in
		*_test.go | e2e/*) continue ;;
		esac
		if [ "$file" -nt "$out" ]; then
			return 1
		fi
	done
}

if up_to_date; then
	exit 0
fi

stage=""
last=-10
# progress TEXT shows one line that changes on a terminal, and a line every 10 s elsewhere.
progress() {
	if [ -t 1 ]; then
		printf '\r\033[K  localcluster [%3ds] %s' "$SECONDS" "$stage: $1"
	elif [ $((SECONDS - last)) -ge 10 ]; then
		last=$SECONDS
		printf '  localcluster [%3ds] %s\n' "$SECONDS" "$stage: $1"
	fi
}
begin() {
	stage=$1
	last=-10
	progress "${2:-}"
}
finish() {
	if [ -t 1 ]; then
		printf '\r\033[K'
	fi
	printf '  localcluster [%3ds] %s\n' "$SECONDS" "$1"
}

export CGO_ENABLED=0
list=$(mktemp "${TMPDIR:-/tmp}/localcluster-build.XXXXXX")
trap 'rm -f "$list"' EXIT

begin "download modules" "looking for those that are missing"
modules=0
# The packages go to the file, what go says about its downloads goes through the loop.
{ go list -deps . 2>&1 >"$list" || echo "FAILED"; } | while IFS= read -r line; do
	case $line in
	"go: downloading "*)
		modules=$((modules + 1))
		progress "$modules so far, now ${line#go: downloading }"
		;;
	FAILED) exit 1 ;;
	*) printf '\n%s\n' "$line" >&2 ;;
	esac
done
total=$(wc -l <"$list")
total=$((total))

begin "compile" "$total packages, those in Go's build cache are skipped"
version=k8s.io/component-base/version
ldflags="-s -w -X $version.gitVersion=$kubernetes -X $version.gitMajor=1 -X $version.gitMinor=36 -X $version.gitTreeState=clean"
{ go build -v -trimpath -buildvcs=false -ldflags "$ldflags" -o "$out" . 2>&1 || echo "FAILED"; } | {
	count=0
	while IFS= read -r line; do
		case $line in
		FAILED)
			finish "the build has failed"
			exit 1
			;;
		"go: "* | "#"* | *" "* | "") printf '\n%s\n' "$line" >&2 ;;
		*/hack/localcluster) begin "link" "$count packages were compiled" ;;
		*)
			count=$((count + 1))
			progress "$count of at most $total packages, now $line"
			;;
		esac
	done
	finish "built in ${SECONDS} s ($count packages compiled, $((total - count)) from Go's build cache)"
}
# go leaves an unchanged program as it is; the time says that it was looked at.
touch "$out"
