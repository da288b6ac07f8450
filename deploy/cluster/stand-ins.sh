#!/usr/bin/env bash
# Makes the images that Katib's own examples name out of the stand-ins in examples/katib, and loads them into a cluster that
# was brought up by the programs in the directory $KUBE, as images.sh does. `evertune run --images` uses the same table.
#
# The examples' tag is `latest`, which a kubelet pulls each time unless the pod says imagePullPolicy: IfNotPresent.
set -euo pipefail
cd "$(dirname "$0")/../.."
: "${KUBE:?the directory of mkimage and load-image}"
python=${PYTHON:-.venv/bin/python}
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT

site=$("$python" -c 'import pathlib, numpy; print(pathlib.Path(numpy.__file__).parents[1])')
libraries=() # of what writes event files
for package in tensorboardX numpy numpy.libs google packaging; do
  libraries+=(--add "$site/$package:/opt/lib/$package")
done
while read -r image folder; do
  words=(-t "$image:latest" -o "$build/$folder-${image##*/}.tar" --base python --root "examples/katib/$folder" --workdir /)
  if grep -rq tensorboardX "examples/katib/$folder"; then words+=("${libraries[@]}" --env PYTHONPATH=/opt/lib); fi
  if [ -e "examples/katib/$folder/entrypoint" ]; then words+=(--entrypoint python3 /entrypoint); fi
  "$KUBE/mkimage" "${words[@]}" >&2
done < <(sed -n 's/^\([^#:]*\): *\(.*\)$/\1 \2/p' examples/katib/images.yaml)
"$KUBE/load-image" "$build"/*.tar >&2
