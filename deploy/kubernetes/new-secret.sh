#!/bin/sh
# Prints the Secret `evertune` with fresh keys, for:  deploy/kubernetes/new-secret.sh NAMESPACE | kubectl create -f -
# The database is EVERTUNE_DATABASE_URL; without that it is the PostgreSQL of overlays/dev, with a fresh password. An API
# key for Temporal is taken from TEMPORAL_API_KEY. Secrets are no arguments here: everybody on a machine can see those.
set -eu

namespace=${1:?"usage: $0 NAMESPACE"}

fresh() { # of 32 bytes, as hexadecimal digits
  od -An -v -N 32 -tx1 /dev/urandom | tr -d ' \n'
}
entry() { # KEY VALUE
  printf '  %s: %s\n' "$1" "$(printf %s "$2" | base64 | tr -d '\n')"
}

cat <<YAML
apiVersion: v1
kind: Secret
metadata:
  name: evertune
  namespace: $namespace
type: Opaque
data:
YAML
entry ingest-keys "k1:$(fresh)"
if [ -n "${EVERTUNE_DATABASE_URL:-}" ]; then
  entry database-url "$EVERTUNE_DATABASE_URL"
else
  password=$(fresh)
  entry database-url "postgresql+psycopg://evertune:$password@postgres/evertune"
  entry postgres-password "$password"
fi
if [ -n "${TEMPORAL_API_KEY:-}" ]; then
  entry temporal-api-key "$TEMPORAL_API_KEY"
fi
