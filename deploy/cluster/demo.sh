#!/usr/bin/env bash
# `demo.sh FILE`: runs an experiment with real pods, and prints its table. Called by `make cluster-demo`.
#
# The home is one of its own, so that nothing else of this machine is disturbed; its gateway listens where pods reach it:
# at $GATEWAY_HOST, by default the address of this machine in the network of the pods.
set -euo pipefail
cd "$(dirname "$0")/../.."
file=${1:?the experiment}
bin=$PWD/.venv/bin
ours=${KUBECONFIG:-}
eval "$(deploy/cluster/up.sh full)"
[ -n "$ours" ] || deploy/cluster/images.sh

host=${GATEWAY_HOST:-}
if [ -z "$host" ]; then # a node that is this machine has an address that pods reach it at
  for address in $(kubectl get nodes -o jsonpath='{.items[*].status.addresses[?(@.type=="InternalIP")].address}'); do
    case " $(hostname -I) " in *" $address "*) host=$address ;; esac
  done
  host=${host:-$(hostname -I | cut -d' ' -f1)}
fi
port=$("$bin/python" -c 'import socket; s = socket.create_server(("", 0)); print(s.getsockname()[1])')
home=$(mktemp -d)
export EVERTUNE_HOME=$home EVERTUNE_SERVER_HOST=0.0.0.0 EVERTUNE_SERVER_PORT=$port
export EVERTUNE_INGEST_URL=http://$host:$port PATH="$bin:$PATH"
unset EVERTUNE_DATABASE_URL EVERTUNE_TEMPORAL_ADDRESS TEMPORAL_ADDRESS
name=$(evertune validate "$file" -o json | "$bin/python" -c \
  'import json, sys, yaml; print(yaml.safe_load(open(json.load(sys.stdin)[0]["file"]))["metadata"]["name"])')
tidy() {
  evertune down --force >/dev/null 2>&1 || evertune down >/dev/null 2>&1 || true
  rm -rf "$home"
}
trap tidy EXIT
evertune run "$file" --backend kubernetes
evertune trials "$name"
echo "The database and the logs of this demo are deleted now; to keep yours: evertune run $file --backend kubernetes" >&2
