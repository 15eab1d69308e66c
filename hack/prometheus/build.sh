#!/usr/bin/env bash
# build.sh FOLDER builds promtool and prometheus there, unless they are newer than the
# versions that go.mod pins. It takes minutes the first time, 4 on 2 cores. Of the service
# discoveries only files are needed: the others have the SDK of every cloud.
set -euo pipefail
mkdir -p "$1"
folder=$(cd "$1" && pwd)
cd "$(dirname "${BASH_SOURCE[0]}")"
export CGO_ENABLED=0
for name in promtool prometheus; do
	if [[ ! $folder/$name -nt go.mod || ! $folder/$name -nt build.sh ]]; then
		../progress.sh "$name" go build -tags remove_all_sd -trimpath -ldflags '-s -w' -o "$folder/$name" "github.com/prometheus/prometheus/cmd/$name"
		touch "$folder/$name"
	fi
done
