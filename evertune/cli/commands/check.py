"""`validate` and `render`: what is wrong with a file, and what it really says."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from evertune.cli import options
from evertune.cli.loading import (
    catalog,
    config_maps,
    documents_of,
    expand_directories,
    known_backend,
    the_one,
)
from evertune.cli.output.forms import Form, json_text, text_of, yaml_text
from evertune.cli.session import Session, session
from evertune.errors import UsageError

MOST_TRIALS = 10_000


class RenderForm(StrEnum):
    YAML = "yaml"
    JSON = "json"


def validate_(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help="Files, directories, or - for standard input.", show_default=False),
    ],
    output: options.Output = Form.TABLE,
    backend: options.Backend = None,
    configmap: options.ConfigMaps = None,
) -> int:
    """Find everything that is wrong with experiment files: all problems at once, with their lines.

    Exit code 0 when every document is valid, else 2. `-o json` gives a list with one element per document.
    """
    from evertune import spec
    from evertune.spec.report import as_dict, report_lines

    now = session()
    known = catalog()
    paths = expand_directories(files)
    where = known_backend(now, backend)
    templates = config_maps(configmap)
    verdicts = [
        verdict
        for path in paths
        for verdict in spec.check_all(documents_of(path), known, templates=templates, backend=where)
    ]
    valid = all(verdict.valid for verdict in verdicts)
    if output.for_people:
        for index, verdict in enumerate(verdicts):
            lines = report_lines(verdict, width=now.out.width or 100)
            if len(lines) > 1 and index:
                lines = [[], *lines]
            now.out.lines(lines)
        bad = next((verdict.document.source for verdict in verdicts if not verdict.valid), None)
        now.say(f"Mend it, then: evertune validate {bad}" if bad else f"Next: evertune run {paths[0]}")
    else:
        found = [{"name": verdict.document.source, **as_dict(verdict)} for verdict in verdicts]
        if output is not Form.NAME:
            found = [{key: value for key, value in entry.items() if key != "name"} for entry in found]
        if output is Form.CSV:
            found = [_flat(entry) for entry in found]
        now.out.write(text_of(output, found))
    return 0 if valid else 2


def _flat(entry: dict[str, Any]) -> dict[str, Any]:
    return {**entry, "errors": len(entry["errors"]), "warnings": len(entry["warnings"])}


def render_(
    file: options.File,
    trial: Annotated[
        int | None,
        typer.Option(
            "--trial",
            metavar="N",
            min=0,
            max=MOST_TRIALS,
            help="Show the object of trial N (from 0) with the values that the algorithm gives it.",
            show_default=False,
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Value of a parameter of the trial.", show_default=False),
    ] = None,
    local: Annotated[
        bool, typer.Option("--local", help="Show the local command line, environment and rewritten paths.")
    ] = False,
    kubernetes: Annotated[
        bool,
        typer.Option("--kubernetes", help="Show the object as it would be created in a cluster, with its collector."),
    ] = False,
    output: Annotated[RenderForm, typer.Option("-o", "--output", help="yaml or json.")] = RenderForm.YAML,
    namespace: options.Namespace = None,
    images: options.Images = None,
    image_root: options.ImageRoot = None,
    configmap: options.ConfigMaps = None,
) -> None:
    """Show the full experiment with every default, or one trial of it with its values filled in."""
    now = session()
    if local and kubernetes:
        raise UsageError("--local and --kubernetes exclude each other")
    experiment, templates = _checked(now, file, namespace, configmap)
    wanted = trial is not None or bool(set_) or local or kubernetes
    if not wanted:
        data: Any = experiment.manifest()
        now.out.write(json_text(data) if output is RenderForm.JSON else yaml_text(data))
        now.say(f"Next: evertune render {file} --trial 0")
        return
    from evertune.cli.rendering import cluster_object, local_command, trial_manifest, trial_parameters

    number = trial or 0
    parameters = trial_parameters(now, experiment, number, set_ or [])
    data = trial_manifest(experiment, number, parameters, namespace, templates)
    if local:
        data = local_command(now, experiment, data, number, parameters, images, image_root or [], templates)
    elif kubernetes:
        data = cluster_object(now, experiment, data, number, parameters)
    now.out.write(json_text(data) if output is RenderForm.JSON else yaml_text(data))
    now.say(f"Next: evertune run {file}{' --backend kubernetes' if kubernetes else ''}")


def _checked(now: Session, file: Path, namespace: str | None, configmap: list[Path] | None) -> tuple[Any, Any]:
    """The one experiment of a file, and the trial templates in the ConfigMaps at hand."""
    experiment, templates = the_one(now, file, "render", configmap)
    if namespace is not None and experiment.metadata is not None:
        experiment.metadata.namespace = namespace
    return experiment, templates
