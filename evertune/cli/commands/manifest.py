"""`manifest rbac`: what an administrator applies to a namespace so that trials can run there. Asks no cluster."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evertune.cli import options
from evertune.cli.loading import catalog, expand_directories, read_source, say_verdicts
from evertune.cli.session import Session, Stop, session
from evertune.errors import UsageError

if TYPE_CHECKING:
    from evertune.spec import Experiment, Templates
    from evertune.spec.rights import Rule


class Part(StrEnum):
    """What can be printed."""

    RBAC = "rbac"


def manifest_(
    part: Annotated[Part, typer.Argument(metavar="rbac", help="rbac: the Role and RoleBinding of a worker.")],
    files: Annotated[
        list[Path] | None,
        typer.Option("-f", "--file", metavar="FILE", help="Only the kinds of these experiments.", show_default=False),
    ] = None,
    namespace: options.Namespace = None,
    system: Annotated[
        str, typer.Option("--worker-namespace", metavar="NAMESPACE", help="Where the worker runs.")
    ] = "evertune",
) -> None:
    """Print what a namespace needs so that a worker can run trials in it, for kubectl apply -f -."""
    from evertune.cli.output.forms import yaml_text
    from evertune.spec import rights

    now = session()
    wanted = rights.rules(_resources(now, files) if files else rights.USUAL)
    where = now.namespace(namespace)
    documents = [rights.role(wanted, where), rights.binding(where, account_namespace=system)]
    now.out.write("---\n".join(yaml_text(document) for document in documents))
    widths = [max(len(text) for text in column) for column in zip(*map(_cells, wanted), strict=True)]
    for rule in wanted:
        cells = "  ".join(text.ljust(width) for text, width in zip(_cells(rule), widths, strict=True))
        now.say([(f"{cells}  {rule.reason}", "dim")])


def _cells(rule: Rule) -> tuple[str, str]:
    return f"{rule.resource}.{rule.group}".rstrip("."), " ".join(rule.verbs)


def _resources(now: Session, files: list[Path]) -> set[tuple[str, str]]:
    from evertune import spec
    from evertune.spec import rights

    documents = [
        document
        for file in expand_directories(files)
        for document in spec.parse_documents(read_source(file), str(file))
    ]
    verdicts = spec.check_all(documents, catalog())
    if any(verdict.problems for verdict in verdicts):
        say_verdicts(now, [verdict for verdict in verdicts if verdict.problems])
        raise Stop(2)
    templates = spec.templates_of(documents)
    experiments = [verdict.experiment for verdict in verdicts if verdict.experiment is not None]
    kinds = [rights.resource_of(_trial_of(experiment, templates)) for experiment in experiments]
    if None in kinds or not kinds:
        raise UsageError(f"cannot tell what the trials are in {', '.join(map(str, files))}")
    return {resource for resource in kinds if resource is not None}


def _trial_of(experiment: Experiment, templates: Templates) -> dict[str, Any]:
    """The object that this experiment's trials are, with nothing filled in; {} where it cannot be told."""
    import yaml

    from evertune.spec.template import template_text

    template = experiment.spec.trial_template if experiment.spec else None
    if template is None:
        return {}
    try:
        found = yaml.safe_load(template_text(template, templates) or "")
    except yaml.YAMLError:
        return {}
    return found if isinstance(found, dict) else {}
