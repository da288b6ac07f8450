#!/usr/bin/env bash
# Runs the tests that need a cluster, on the best one that can be had. Called by `make test-cluster` and CI.
#
# KUBECONFIG, when set, is used (LEVEL=api|full says whether its pods run; default full). Otherwise a cluster is brought
# up by the programs in $KUBE: `full` as root, else `api`; LEVEL overrules. QUICK=1, for CI, does nothing when it would
# first have to compile one.
set -euo pipefail
cd "$(dirname "$0")/../.."
if [ -z "${KUBECONFIG:-}" ] && [ "${QUICK:-}" = 1 ]; then
  cache=${EVERTUNE_KUBE_CACHE:-$HOME/.cache/evertune-kube}
  if [ ! -x "${KUBE:-}/up" ] || [ -z "$(find "$cache/bin" -name 'k8s-*' 2>/dev/null)" ]; then
    echo "The tests on a real cluster are left out: there is none, and none is built. To run them: make test-cluster" >&2
    exit 0
  fi
fi
given=${KUBECONFIG:-}
level=${LEVEL:-full}
[ -n "$given" ] || [ "$(id -u)" -eq 0 ] || level=${LEVEL:-api}
was_up=$(pgrep -x kube-apiserver || true)
eval "$(deploy/cluster/up.sh "$level")"
if [ -z "$given" ]; then
  [ -n "$was_up" ] || trap '"$KUBE/down" >&2' EXIT
  [ "$level" = api ] || deploy/cluster/images.sh
fi
EVERTUNE_TEST_KUBECONFIG=$KUBECONFIG EVERTUNE_TEST_KUBE_LEVEL=$level .venv/bin/python -m pytest -m cluster --timeout 600 "$@"
