#!/usr/bin/env bash
# Starts a local cluster, deploys the manager on it, and stays until Ctrl-C.
set -euo pipefail
cd "$(dirname "$0")/.."

data=.localcluster
export KUBECONFIG=$PWD/$data/kubeconfig
started=$SECONDS
say() { printf '%4ds  %s\n' $((SECONDS - started)) "$*"; }

bin/localcluster up --data "$data" --kubeconfig "$KUBECONFIG" \
	--image "incumbent-io/manager=$PWD/bin/manager" &
cluster=$!
# Ctrl-C reaches the cluster by itself; any other end of this script must not leave it.
trap 'kill "$cluster" 2>/dev/null || true; wait "$cluster" 2>/dev/null || true' EXIT
trap 'exit 0' INT TERM

until bin/kubectl get serviceaccount default >/dev/null 2>&1; do
	kill -0 "$cluster" 2>/dev/null || { echo "The local cluster did not start; its logs are in $data/logs." >&2; exit 1; }
	sleep 0.3
done

say "applying manifests/base"
bin/kubectl apply -k manifests/base
say "waiting until a leader runs its controllers"
bin/kubectl -n incumbent-system rollout status deployment/incumbent --timeout=90s
until leader=$(bin/kubectl -n incumbent-system get pods -l incumbent.io/role=leader -o name | grep .); do
	sleep 0.2
done
say "leader: ${leader#pod/}"
cat <<EOT

Incumbent runs with 3 replicas. In another terminal, in this folder:

  export KUBECONFIG=$KUBECONFIG
  bin/kubectl config set-context --current --namespace=incumbent-system

  bin/kubectl get pods -L incumbent.io/role          # who leads
  bin/kubectl describe lease incumbent               # since when
  bin/kubectl logs -f ${leader#pod/}   # what it does
  bin/kubectl delete $leader  # ... and another leads

  # a ConfigMap that deletes itself after 10 s
  bin/kubectl create configmap brief && bin/kubectl annotate configmap brief incumbent.io/ttl=10s
  bin/kubectl get configmaps,events --watch

Any kubectl works with that KUBECONFIG. Ctrl-C here ends the cluster.
EOT
wait "$cluster"
