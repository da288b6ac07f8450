#!/usr/bin/env bash
# `demo.sh FILE`: runs an experiment with real pods, and prints its table. Called by `make cluster-demo`.
#
# The home is one of its own, so that nothing else of this machine is disturbed; its gateway listens where pods reach it:
# at $GATEWAY_HOST, by default the address of this machine in the network of the pods. What it started is stopped in the
# end, also after Ctrl-C. In a cluster of yours the collector's image is the one that EVERTUNE_COLLECTOR_IMAGE names.
set -euo pipefail
cd "$(dirname "$0")/../.."
file=${1:?the experiment}
[ -f "$file" ] || { echo "There is no file $file." >&2; exit 2; }
bin=$PWD/.venv/bin
export PATH="$bin:$PATH"
. deploy/cluster/up.sh

home=$(mktemp -d)
name=$(python - "$file" <<'PROGRAM'
import sys

import yaml

print(yaml.safe_load(open(sys.argv[1]))["metadata"]["name"])
PROGRAM
)
tidy() {
  code=$?
  trap '' INT TERM
  if [ "$code" -ne 0 ] && [ -e "$home/stack.json" ]; then # nothing of it may stay behind in the cluster
    evertune cancel "$name" >/dev/null 2>&1 && evertune watch "$name" --timeout 60 >/dev/null 2>&1 || true
  fi
  evertune down >/dev/null 2>&1 || true
  if [ "$code" -eq 0 ] || [ ! -d "$home/logs" ]; then
    rm -rf "$home"
  else
    echo "The logs of what went wrong are in $home/logs." >&2
  fi
  take_down
}
trap tidy EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

bring_up full || exit 3
[ -n "$cluster_given" ] || deploy/cluster/images.sh

host=${GATEWAY_HOST:-}
if [ -z "$host" ]; then # a node that is this machine has an address that pods reach it at
  for address in $(kubectl get nodes -o jsonpath='{.items[*].status.addresses[?(@.type=="InternalIP")].address}'); do
    case " $(hostname -I) " in *" $address "*) host=$address ;; esac
  done
  host=${host:-$(hostname -I | cut -d' ' -f1)}
fi
port=$(python -c 'import socket; s = socket.create_server(("", 0)); print(s.getsockname()[1])')
export EVERTUNE_HOME=$home EVERTUNE_SERVER_HOST=0.0.0.0 EVERTUNE_SERVER_PORT=$port
export EVERTUNE_INGEST_URL=http://$host:$port EVERTUNE_KUBECONFIG=$KUBECONFIG
unset EVERTUNE_DATABASE_URL EVERTUNE_TEMPORAL_ADDRESS TEMPORAL_ADDRESS

evertune up >/dev/null
evertune doctor -f "$file" --backend kubernetes --probe
evertune run "$file" --backend kubernetes
evertune trials "$name"
echo "The database and the logs of this demo are deleted now; to keep yours: evertune run $file --backend kubernetes" >&2
