#!/usr/bin/env bash
# Makes docs/images/dashboard.png: the panels of the dashboard over a minute with a
# hand-over, a frozen leader and controllers in trouble, from a real Prometheus.
set -euo pipefail
cd "$(dirname "$0")/.."

command -v gnuplot >/dev/null || { echo "gnuplot is not there: install it, for instance gnuplot-nox of Debian" >&2; exit 1; }
script=$(mktemp)
trap 'rm -f "$script"' EXIT
DASHBOARD=$script go test -tags=picture -count=1 -timeout=10m -run='^TestDashboardPicture$' ./test/monitoring
gnuplot "$script" >docs/images/dashboard.png
if command -v pngquant >/dev/null; then
	pngquant --force --ext .png --strip docs/images/dashboard.png
fi
