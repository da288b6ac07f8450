#!/usr/bin/env bash
# Makes the images that trials and collectors of the examples need, and loads them into a cluster that was brought up by
# the programs in the directory $KUBE: mkimage and load-image, which need no container builder and no registry.
set -euo pipefail
cd "$(dirname "$0")/../.."
: "${KUBE:?the directory of mkimage and load-image}"
python=${PYTHON:-.venv/bin/python}
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT

"$python" deploy/images/collector.py assemble "$build/collector" >&2
version=$("$python" -c 'import evertune; print(evertune.__version__)')
"$KUBE/mkimage" -t "docker.io/evertune/collector:$version" -o "$build/collector.tar" --base python \
  --add "$build/collector/opt/evertune:/opt/evertune" --env PYTHONPATH=/opt/evertune/lib \
  --env PYTHONDONTWRITEBYTECODE=1 --env PYTHONUNBUFFERED=1 --user 65532:65532 \
  --entrypoint python3 -P -m collectors >&2
"$KUBE/mkimage" -t docker.io/library/python:3.11-slim -o "$build/python.tar" --base python >&2
"$KUBE/load-image" "$build/collector.tar" "$build/python.tar" >&2
