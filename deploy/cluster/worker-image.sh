#!/usr/bin/env bash
# Makes the image of the worker, the server and the operator, and loads it into a cluster that was brought up by the
# programs in the directory $KUBE, as images.sh does: what deploy/images/worker.Containerfile says, without a builder.
#
# `worker-image.sh [NAME:TAG]`, by default docker.io/evertune/worker with evertune's version.
set -euo pipefail
cd "$(dirname "$0")/../.."
: "${KUBE:?the directory of mkimage and load-image}"
python=${PYTHON:-.venv/bin/python}
version=$("$python" -c 'import evertune; print(evertune.__version__)')
name=${1:-docker.io/evertune/worker:$version}
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT

"$python" -m build --wheel --no-isolation --outdir "$build/dist" . >&2
install=("$python" -m pip install --quiet --disable-pip-version-check --no-compile --no-deps --target "$build/lib")
mkdir -p "$build/files/opt/evertune/bin" "$build/files/home/evertune" "$build/files/var/lib/evertune"
"${install[@]}" --require-hashes -r requirements/runtime.txt >&2
mv "$build"/lib/bin/* "$build/files/opt/evertune/bin/"
rmdir "$build/lib/bin" # pip leaves a folder alone that is there
"${install[@]}" --no-index "$build"/dist/*.whl >&2
mv "$build"/lib/bin/* "$build/files/opt/evertune/bin/"
for program in "$build"/files/opt/evertune/bin/*; do # pip wrote the interpreter that installed them
  if head -c 2 "$program" | grep -q '#!'; then sed -i '1s|^#!.*python.*|#!/usr/bin/python3|' "$program"; fi
done
"$KUBE/mkimage" -t "$name" -o "$build/worker.tar" --base python --root "$build/files" --add "$build/lib:/opt/evertune/lib" \
  --env PATH=/opt/evertune/bin:/usr/bin:/bin --env PYTHONPATH=/opt/evertune/lib --env PYTHONUNBUFFERED=1 \
  --env HOME=/home/evertune --env EVERTUNE_HOME=/var/lib/evertune --user 10001:10001 --workdir /home/evertune \
  --entrypoint python -m evertune.app worker >&2
"$KUBE/load-image" "$build/worker.tar" >&2
