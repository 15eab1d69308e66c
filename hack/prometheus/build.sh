#!/usr/bin/env bash
# build.sh FOLDER builds promtool and prometheus there, unless they are newer than the
# versions that go.mod pins. It takes minutes the first time.
set -euo pipefail
mkdir -p "$1"
folder=$(cd "$1" && pwd)
cd "$(dirname "${BASH_SOURCE[0]}")"
export CGO_ENABLED=0
for name in promtool prometheus; do
	if [[ ! $folder/$name -nt go.mod ]]; then
		../progress.sh "$name" go build -trimpath -ldflags '-s -w' -o "$folder/$name" "github.com/prometheus/prometheus/cmd/$name"
		touch "$folder/$name"
	fi
done
