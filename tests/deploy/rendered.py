"""What `kubectl kustomize` makes of deploy/kubernetes, as objects."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.repository.checkout import ROOT

KUBERNETES = ROOT / "deploy" / "kubernetes"
OVERLAYS = ("dev", "external", "team-namespace")

needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl renders these files")

Object = dict[str, Any]


@cache
def text_of(folder: str) -> str:
    """Of a folder below deploy/kubernetes."""
    return kustomized(KUBERNETES / folder)


def kustomized(folder: Path) -> str:
    done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "kustomize warns of something"
    return done.stdout


def with_components(folder: Path, overlay: str, *components: str) -> list[Object]:
    """An overlay with components on top, written into an empty folder."""
    here = os.path.relpath(KUBERNETES, folder.resolve())
    (folder / "kustomization.yaml").write_text(
        yaml.safe_dump(
            {
                "apiVersion": "kustomize.config.k8s.io/v1beta1",
                "kind": "Kustomization",
                "resources": [f"{here}/overlays/{overlay}"],
                "components": [f"{here}/components/{name}" for name in components],
            }
        )
    )
    return objects_of(kustomized(folder))


def objects_of(text: str) -> list[Object]:
    return [document for document in yaml.safe_load_all(text) if document]


def overlay(name: str) -> list[Object]:
    return objects_of(text_of(f"overlays/{name}"))


def everything() -> list[Object]:
    return [thing for name in OVERLAYS for thing in overlay(name)]


def find(things: list[Object], kind: str, name: str) -> Object:
    (found,) = (thing for thing in things if thing["kind"] == kind and thing["metadata"]["name"] == name)
    return found


def templates(things: list[Object]) -> Iterator[tuple[str, Object]]:
    """Name of the Deployment and its pods' template."""
    for thing in things:
        if thing["kind"] == "Deployment":
            yield thing["metadata"]["name"], thing["spec"]["template"]


def environment_of(things: list[Object], container: Object) -> dict[str, str]:
    """As the kubelet would put it together; a value out of a Secret stays its key, in angle brackets."""
    found: dict[str, str] = {}
    for source in container.get("envFrom", []):
        found |= find(things, "ConfigMap", source["configMapRef"]["name"])["data"]
    for entry in container.get("env", []):
        found[entry["name"]] = entry["value"] if "value" in entry else f"<{entry['valueFrom']['secretKeyRef']['key']}>"
    return found
