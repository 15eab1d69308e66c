#!/usr/bin/env bash
# Applies manifests/base to the cluster of KUBECONFIG, with the image given.
set -euo pipefail
cd "$(dirname "$0")/.."

image=${1:-}
if [[ -z $image ]]; then
	echo "deploy: IMAGE is not set; make one by `make image`, push it where the cluster's nodes can pull it, and call: make deploy IMAGE=name:tag" >&2
	exit 1
fi
: "${KUBECONFIG:?deploy: KUBECONFIG is not set; set it to the kubeconfig of the cluster to deploy to}"

folder=$(mktemp -d manifests/.deploy-XXXXXX)
trap 'rm -rf "$folder"' EXIT
name=${image%:*} tag=${image##*:}
[[ $name != "$image" ]] || tag=latest
cat >"$folder/kustomization.yaml" <<EOT
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [../base]
images: [{name: incumbent-io/manager, newName: "$name", newTag: "$tag"}]
EOT
bin/kubectl apply -k "$folder"
bin/kubectl -n incumbent-system rollout status deployment/incumbent --timeout=120s
