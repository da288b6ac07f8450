#!/usr/bin/env bash
# `up.sh LEVEL`: prints `export KUBECONFIG=…` of a cluster for tests and demos, and brings it up when it has to.
#
# KUBECONFIG, when it is set, is taken as it is. Otherwise the programs in the directory $KUBE (up, load-image, …) make a
# control plane on this machine: LEVEL is `api` (no nodes) or `full` (pods run; wants root). Exit 3: there is neither.
set -euo pipefail
level=${1:?api or full}
if [ -n "${KUBECONFIG:-}" ]; then
  printf 'export KUBECONFIG=%q\n' "$KUBECONFIG"
elif [ -x "${KUBE:-}/up" ]; then
  "$KUBE/up" --level "$level"
else
  echo "No cluster: set KUBECONFIG to the one to use, or KUBE to a directory whose programs bring one up." >&2
  exit 3
fi
