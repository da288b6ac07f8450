#!/usr/bin/env bash
# Sourced by demo.sh and test.sh: `bring_up LEVEL` sets and exports KUBECONFIG, that of a cluster for tests and demos.
#
# KUBECONFIG, when it is set, is taken as it is. Otherwise the programs in the directory $KUBE (up, down, load-image, …)
# make a control plane with the training operator on this machine: LEVEL is `api` (no nodes) or `full` (pods run; wants
# root). One that was not there before is stopped by `take_down`; its data and programs stay for the next time. Returns 3
# without a cluster.

cluster_given=${KUBECONFIG:-}
cluster_ours=

bring_up() {
  local kubeconfig=${EVERTUNE_KUBE_DIR:-$HOME/.local/share/evertune-kube}/kubeconfig said words=(--level "$1")
  if [ -n "$cluster_given" ]; then
    return
  elif [ ! -x "${KUBE:-}/up" ]; then
    echo "No cluster: set KUBECONFIG to the one to use, or KUBE to a directory whose programs bring one up." >&2
    return 3
  fi
  kubectl --kubeconfig "$kubeconfig" --request-timeout 3s get --raw /readyz >/dev/null 2>&1 || cluster_ours=1
  [ "$1" = full ] || words+=(--operator)
  said=$(${PATIENCE:+timeout "$PATIENCE"} "$KUBE/up" "${words[@]}") || {
    cluster_ours=
    echo "No cluster: $KUBE/up did not bring one up; what it said stands above." >&2
    return 3
  }
  eval "$said"
}

take_down() {
  [ -z "$cluster_ours" ] || "$KUBE/down" >&2
}
