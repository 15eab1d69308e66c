#!/usr/bin/env bash
# Looks at the /controllers page in a real browser while leadership is handed over, a
# controller crashes again and again, and another is blocked. The screenshots go to
# docs/images, and what `manager status` says at the same time to the standard output.
set -euo pipefail
cd "$(dirname "$0")/../.."

chromium=${CHROMIUM:-$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)}
if [ -z "$chromium" ]; then
	echo "==> installing chromium"
	apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null
	chromium=$(command -v chromium)
fi
command -v npm >/dev/null || { echo "npm is not there: install Node.js 20 or newer" >&2; exit 1; }
mkdir -p bin/page # what npm brings belongs to what is built
cp hack/page/package.json hack/page/package-lock.json hack/page/page.mjs bin/page/
[ -d bin/page/node_modules ] || (cd bin/page && npm ci --no-audit --no-fund)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
CGO_ENABLED=0 go build -trimpath -o "$folder/faulty" ./test/e2e/faulty
CHROMIUM=$chromium node bin/page/page.mjs "$folder"
if command -v pngquant >/dev/null; then
	pngquant --force --ext .png --strip docs/images/controllers-*.png
fi
