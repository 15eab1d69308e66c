#!/usr/bin/env bash
# Makes bin/image: the container image of the manager as an OCI layout, for each of
# IMAGE_PLATFORMS, with a bill of materials for each. VERSION, COMMIT and LDFLAGS are the
# Makefile's. SOURCE_DATE_EPOCH is the only date in it: that of the commit.
set -euo pipefail
cd "$(dirname "$0")/.."

out=${IMAGE_OUT:-$PWD/bin/image}
created=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
mkdir -p "$(dirname "$out")"
binaries=()
for platform in ${IMAGE_PLATFORMS:-linux/amd64 linux/arm64}; do
	binary=$PWD/bin/manager-${platform//\//-}
	GOOS=${platform%%/*} GOARCH=$(cut -d/ -f2 <<<"$platform") CGO_ENABLED=0 \
		hack/progress.sh "manager for $platform" go build -tags "$TAGS" -trimpath -buildvcs=false -ldflags "$LDFLAGS" -o "$binary" ./cmd/manager
	binaries+=("$platform=$binary")
done
digest=$(cd hack/image && CGO_ENABLED=0 go run . --out="$out" --version="$VERSION" --revision="$COMMIT" --created="$created" "${binaries[@]}")
echo "==> image $VERSION in $out: $digest"
