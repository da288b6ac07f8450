#!/usr/bin/env bash
# Runs the tests that need a cluster, on the best one that can be had. Called by `make test-cluster` and CI. Arguments
# are pytest's.
#
# KUBECONFIG, when set, is used (LEVEL=api|full says whether its pods run; default full). Otherwise a cluster is brought
# up by the programs in $KUBE: `full` as root, else `api`; LEVEL overrules. QUICK=1, for CI, does nothing when it would
# first have to compile one.
set -euo pipefail
cd "$(dirname "$0")/../.."
. deploy/cluster/up.sh
if [ "${QUICK:-}" = 1 ] && [ -z "$cluster_given" ]; then
  left_out() {
    echo "The tests on a real cluster are left out: $1. To run them: make test-cluster" >&2
    exit 0
  }
  cache=${EVERTUNE_KUBE_CACHE:-$HOME/.cache/evertune-kube}
  [ -x "${KUBE:-}/up" ] || left_out "there is none, and nothing that brings one up"
  [ -n "$(find "$cache/bin" -name 'k8s-*' 2>/dev/null)" ] || left_out "its programs would have to be compiled first"
  PATIENCE=300
fi
level=${LEVEL:-full}
[ -n "$cluster_given" ] || [ "$(id -u)" -eq 0 ] || level=${LEVEL:-api}
trap take_down EXIT
bring_up "$level" || { [ -n "${PATIENCE:-}" ] && left_out "it did not come up within $PATIENCE s"; exit 3; }
if [ -z "$cluster_given" ] && [ "$level" != api ]; then
  deploy/cluster/images.sh
  deploy/cluster/stand-ins.sh
  deploy/cluster/worker-image.sh
fi
[ -n "$cluster_given" ] || export EVERTUNE_TEST_RESTART_API="$KUBE/up --restart kube-apiserver"
export EVERTUNE_TEST_KUBECONFIG=$KUBECONFIG EVERTUNE_TEST_KUBE_LEVEL=$level
tests=(.venv/bin/python -m pytest -m cluster --timeout 600)
"${tests[@]}" "$@" && exit
[ -n "${CI:-}" ] || exit 1
echo "== tried once more; what passes now is unsteady, and to be mended all the same:" >&2
"${tests[@]}" --last-failed --last-failed-no-failures none -v
